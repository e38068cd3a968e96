"""A repository that somebody has filled to harm: each bad version is refused with its reason, and the others serve."""

import shutil
from pathlib import Path

import pytest
from vedette_client import Client, Unavailable
from vedette_server.contract.loading import Check
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture
from vedette_server.repository import repository
from vedette_server.repository.repository import VersionError

from tests.support import hostile, running
from tests.support.running import http, sample

MOST = 700 * 2**20  # bytes of a gateway, whatever it is given to read
ODD_FOLDERS = ("my model", "é", "-rf", "a\x1b[31mb", "x" * 129)


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_one_sound_version_serves_among_hostile_ones(tmp_path: Path, scene: Picture) -> None:
    for name, case in hostile.CASES.items():
        hostile.write(tmp_path, name, case)
    shutil.copytree(hostile.SOUND, tmp_path / "sound")
    for name in ODD_FOLDERS:
        (tmp_path / name / "1").mkdir(parents=True)
    with (
        running.server("--repository", str(tmp_path), "--threads", "1") as server,
        Client(server.address) as client,
    ):
        told = {model.name: model for model in client.models()}
        assert told.pop("sound").state == "READY"
        assert told.keys() == hostile.CASES.keys()
        for name, case in hostile.CASES.items():
            assert told[name].state == "UNAVAILABLE", name
            assert told[name].state_reason.startswith(f"{case.check}: "), (name, told[name].state_reason)
            assert client.model(name).state_reason == told[name].state_reason
        assert len(client.detect(jpeg(scene.pixels), model="sound"))
        with pytest.raises(Unavailable, match="CONFIG_OUT_OF_BOUNDS"):
            client.detect(jpeg(scene.pixels), model="a-billion-classes")
        assert http(server, "/readyz") == (200, "ready\n")
        refused = [Path(event["folder"]).parent.name for event in server.logged("version_refused")]
        assert len(refused) == len(set(refused)), "each is told once"
        assert {*refused, "a-model-of-3-gb"} == hostile.CASES.keys(), "all but what takes a worker to see"
        assert {event["folder"] for event in server.logged("folder_ignored")} == {*ODD_FOLDERS}
        assert "Traceback" not in server.log_path.read_text()
        assert peak(server.process.pid) < MOST
        bound = 'vedette_version_refused{check="CONFIG_OUT_OF_BOUNDS",model="a-billion-classes",version="1"}'
        assert sample(server, bound) == 1
        assert sample(server, 'vedette_model_ready{model="a-billion-classes",version="1"}') == 0


def test_a_version_that_has_been_mended_is_served(tmp_path: Path) -> None:
    """It is looked at again because its files have changed, and nothing else is read anew."""
    hostile.write(tmp_path, "mended", hostile.CASES["config-fifo"])
    shutil.copytree(hostile.SOUND, tmp_path / "sound")
    with (
        running.server("--repository", str(tmp_path), "--threads", "1", "--poll-seconds", "0.2") as server,
        Client(server.address) as client,
    ):
        assert client.model("mended").state == "UNAVAILABLE"
        (tmp_path / "mended" / "1" / "config.yaml").unlink()
        shutil.copy(hostile.SOUND / "1" / "config.yaml", tmp_path / "mended" / "1")
        shutil.copy(hostile.SOUND / "1" / "manifest.json", tmp_path / "mended" / "1")
        running.wait_for(lambda: client.model("mended").state == "READY", "the mended version")
        assert sample(server, 'vedette_version_refused{check="FILE_UNUSABLE",model="mended",version="1"}') == 0


def as_mounted(folder: Path) -> None:
    """Lay a version out as Kubernetes mounts a ConfigMap: every entry a link into a folder that a link names."""
    hidden = folder / "..2026_01_01"
    hidden.mkdir()
    for path in [path for path in folder.iterdir() if path != hidden]:
        path.rename(hidden / path.name)
        path.symlink_to(Path("..data") / path.name)
    (folder / "..data").symlink_to(hidden.name)


def test_a_version_that_kubernetes_has_mounted_is_read(tmp_path: Path) -> None:
    shutil.copytree(hostile.SOUND, tmp_path / "signs")
    (sound,) = repository.read(tmp_path)
    as_mounted(tmp_path / "signs" / "1")
    (mounted,) = repository.read(tmp_path)
    assert (mounted.contract, mounted.golden) == (sound.contract, sound.golden)


def test_a_models_folder_may_be_linked_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "signs").symlink_to(hostile.SOUND)
    (version,) = repository.read(tmp_path)
    assert version.name == "signs"


def test_a_linked_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = hostile.write(tmp_path, "signs", hostile.CASES["config-of-another"])
    with pytest.raises(VersionError) as caught:
        repository.read_version(folder)
    assert caught.value.refusal.check is Check.FILE_UNUSABLE
    assert "config.yaml leads out of" in str(caught.value)
    assert "put a copy of it into" in str(caught.value)

"""The commands, as users run them."""

import json
import signal
import subprocess
from pathlib import Path

import av
import pytest
from PIL import Image
from vedette_server.demo import clips, scenes
from vedette_server.demo.scenes import Picture

from tests.support import running


def run(*arguments: str, command: str = "vedette") -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(running.BIN / command), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, scene: Picture) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "street.png"
    Image.fromarray(scene.pixels).save(path)
    return path


def test_detect_prints_a_table(bundled: running.Server, picture: Path, scene: Picture) -> None:
    ran = run("detect", str(picture), "--server", bundled.address)
    assert ran.returncode == 0, ran.stderr
    for sign in scene.signs:
        assert sign.name in ran.stdout


def test_detect_prints_one_object_a_line(bundled: running.Server, picture: Path, scene: Picture) -> None:
    ran = run("detect", str(picture), str(picture), "--server", bundled.address, "--json")
    assert ran.returncode == 0, ran.stderr
    first, second = map(json.loads, ran.stdout.splitlines())
    assert list(first)[:5] == ["image", "model", "version", "detections", "empty"]
    assert (first["image"], first["model"], first["version"], first["empty"]) == (str(picture), "roadsigns", "1", None)
    assert list(first["detections"][0]) == ["class", "class_id", "score", "box", "mask"]
    assert sorted(item["class"] for item in first["detections"]) == sorted(sign.name for sign in scene.signs)
    assert first["detections"] == second["detections"]


def test_an_empty_answer_says_why(bundled: running.Server, picture: Path) -> None:
    strict = ("detect", str(picture), "--server", bundled.address, "--threshold", "1")
    empty = json.loads(run(*strict, "--json").stdout)["empty"]
    assert (empty["reason"], empty["threshold"]) == ("BELOW_THRESHOLD", 1.0)
    assert empty["suppressed"] > 0
    assert "below threshold; " in run(*strict).stdout


def test_detect_saves_annotated_pictures(bundled: running.Server, picture: Path, tmp_path: Path) -> None:
    ran = run("detect", str(picture), "--server", bundled.address, "--save", str(tmp_path / "out"))
    assert ran.returncode == 0, ran.stderr
    with Image.open(tmp_path / "out" / "street.png") as drawn, Image.open(picture) as plain:
        assert drawn.size == plain.size
        assert drawn.tobytes() != plain.tobytes()


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (("detect", "{no_image}"), 67, "IMAGE_UNREADABLE"),
    (("detect", "{truncated}"), 67, "IMAGE_TRUNCATED"),
    (("detect", "{empty}"), 67, "IMAGE_MISSING"),
    (("detect", "{large}"), 67, "IMAGE_TOO_LARGE"),
    (("detect", "{picture}", "--threshold", "50"), 1, "THRESHOLD_OUT_OF_RANGE"),
    (("detect", "{picture}", "--model", "nobody"), 69, "MODEL_NOT_FOUND"),
    (("detect", "no/such.jpg"), 1, "No such file"),
    (("detect",), 2, "Missing argument"),
    (("detect", "{picture}", "--treshold", "1"), 2, "--threshold"),
])  # fmt: skip
def test_what_is_wrong_is_one_readable_line(
    arguments: tuple[str, ...], status: int, said: str, bundled: running.Server, picture: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"{name}.png" for name in ("no_image", "truncated", "empty", "large")}
    files["no_image"].write_text("hello")
    files["truncated"].write_bytes(picture.read_bytes()[:-5000])
    files["empty"].write_bytes(b"")
    Image.new("1", (20_000, 1)).save(files["large"])
    ran = run(*(word.format(picture=picture, **files) for word in arguments), "--server", bundled.address)
    assert ran.returncode == status
    assert ran.stdout == ""
    assert said in ran.stderr
    if status != 2:
        (line,) = ran.stderr.splitlines()
        assert line.startswith("vedette: ")


def test_one_bad_picture_does_not_keep_the_others_from_being_looked_at(bundled: running.Server, picture: Path) -> None:
    ran = run("detect", "no/such.jpg", str(picture), "--server", bundled.address, "--json")
    assert ran.returncode == 1
    assert len(ran.stdout.splitlines()) == 1


def test_no_server_is_said_with_its_address(picture: Path) -> None:
    ran = run("detect", str(picture), "--server", "127.0.0.1:9")
    assert ran.returncode == 64 + 14
    assert "no server answers at 127.0.0.1:9" in ran.stderr


def test_models_and_health(bundled: running.Server) -> None:
    at = ("--server", bundled.address)
    listed = json.loads(run("models", *at, "--json").stdout)
    assert (listed["model"], listed["state"], listed["default_threshold"]) == ("roadsigns", "READY", 0.5)
    assert len(listed["contract_fingerprint"]) == 64
    assert "roadsigns" in run("models", *at).stdout
    assert run("health", *at).stdout == "SERVING\n"
    assert json.loads(run("health", *at, "--json").stdout) == {"server": bundled.address, "status": "SERVING"}


def test_contract_is_printed(bundled: running.Server) -> None:
    printed = json.loads(run("contract", "roadsigns", "--server", bundled.address, "--json").stdout)
    assert (printed["model"], printed["channel_order"], printed["shortest_edge"]) == ("roadsigns", "BGR", 272)
    assert printed["class_names"][0] == "stop"
    assert "GRAY8" not in printed["inputs"]
    table = run("contract", "roadsigns", "--server", bundled.address)
    assert printed["fingerprint"] in table.stdout
    assert run("contract", "nobody", "--server", bundled.address).returncode == 69


def test_doctor_finds_everything_in_order() -> None:
    ran = run("doctor", command="vedette-server")
    assert ran.returncode == 0, ran.stdout
    assert all(line.startswith("✔") for line in ran.stdout.splitlines())


def test_doctor_shows_what_is_wrong_and_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_REPOSITORY", "/no/such/folder")
    ran = run("doctor", command="vedette-server")
    assert ran.returncode == 1
    assert "✘ model repository" in ran.stdout
    assert "fix: " in ran.stdout


def test_doctor_uses_each_device_that_models_are_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_DEVICE", "cpu,tpu")
    ran = run("doctor", command="vedette-server")
    assert ran.returncode == 1
    assert "✘ devices" in ran.stdout
    assert "✔ detectron2" in ran.stdout


@pytest.mark.parametrize(("flags", "status", "said"), [
    (("--listen", "8001"), 2, "a port without a host"),
    (("--workers", "0"), 2, "workers"),
    (("--config", "no/such.toml"), 2, "no such file"),
    (("--repository", "no/such/folder"), 1, "is not a folder"),
])  # fmt: skip
def test_the_server_says_what_is_wrong_with_its_flags(flags: tuple[str, ...], status: int, said: str) -> None:
    ran = run("serve", *flags, command="vedette-server")
    assert ran.returncode == status
    assert said in ran.stderr


def test_an_address_that_is_taken_is_said_so(bundled: running.Server) -> None:
    ran = run("serve", "--listen", bundled.address, "--http", "127.0.0.1:0", command="vedette-server")
    assert ran.returncode == 1
    assert f"cannot listen on {bundled.address}" in ran.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered video."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    clips.write(scenes.Clip(seed=3_000_001, frames=12), path)
    return path


def frames_of(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_is_streamed_to_a_file_and_an_annotated_video(
    bundled: running.Server, clip: Path, tmp_path: Path
) -> None:
    lines, saved = tmp_path / "clip.jsonl", tmp_path / "out" / "clip.mp4"
    ran = run("stream", str(clip), "--jsonl", str(lines), "--save", str(saved), "--server", bundled.address)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert "12 frames: 12 answered" in ran.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["frame_id"] for record in records] == list(range(12))
    assert all(next(iter(record)) == "frame_id" for record in records)
    assert any(record["detections"] for record in records)
    assert frames_of(saved) == 12


def test_a_video_played_live_accounts_for_every_frame(bundled: running.Server, clip: Path, tmp_path: Path) -> None:
    """Four times as fast as it was filmed: what cannot be looked at is dropped, and said."""
    lines = tmp_path / "clip.jsonl"
    ran = run("stream", str(clip), "--fps", "100", "--jsonl", str(lines), "--server", bundled.address)
    assert ran.returncode == 0, ran.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["frame_id"] for record in records] == list(range(12))
    assert {record.get("dropped") for record in records} <= {None, "SUPERSEDED"}


def test_an_interrupted_stream_ends_in_good_order(bundled: running.Server, clip: Path, tmp_path: Path) -> None:
    lines = tmp_path / "clip.jsonl"
    command = [str(running.BIN / "vedette"), "stream", str(clip), "--loop", "--jsonl", str(lines)]
    with subprocess.Popen([*command, "--server", bundled.address], stderr=subprocess.PIPE, text=True) as process:
        running.wait_for(
            lambda: lines.exists() and len(lines.read_text().splitlines()) > 15, "frames beyond the first round"
        )
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=running.PATIENCE)
    assert process.returncode == 0, told
    assert f"{len(lines.read_text().splitlines())} frames: " in told


@pytest.mark.parametrize(("source", "said"), [("no/such.mp4", "cannot open"), (__file__, "cannot open")])
def test_what_is_no_video_is_said_in_one_line(source: str, said: str, bundled: running.Server) -> None:
    ran = run("stream", source, "--server", bundled.address)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"vedette: {said} ")

"""The wheel and the sdist as `make dist` builds them, in virtual environments of their own, far from the checkout."""

import email
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from vedette_server.demo.scenes import Picture

from tests.support import running

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, importlib.util, sys
from vedette_client import AsyncClient, Client
assert not any(importlib.util.find_spec(name) for name in ("torch", "detectron2", "supervision"))
address, path = sys.argv[1:]
with Client(address) as client:
    blocking = client.detect(path)
async def main():
    async with AsyncClient(address) as client:
        assert await client.healthy()
        assert (await client.model()).name == (await client.models())[0].name == "roadsigns"
        return await client.detect(path)
waiting = asyncio.run(main())
assert blocking.detections == waiting.detections
print(sorted(found.class_name for found in blocking))
"""


def build(tree: Path, *targets: str, into: Path) -> None:
    wanted = [word for target in targets for word in ("-t", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", *wanted, "-d", str(into)], cwd=tree, check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, "wheel", "sdist", into=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture
def unpacked(dist: Path, tmp_path: Path) -> Path:
    """The sdist's tree."""
    (built,) = dist.glob("*.tar.gz")
    subprocess.run(["tar", "--extract", "--file", built, "--directory", tmp_path], check=True)
    return tmp_path / built.name.removesuffix(".tar.gz")


def version_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return str(email.message_from_bytes(archive.read(name))["Version"])


def test_the_wheel_holds_the_generated_code_and_the_model(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vedette/v1/detection_service_pb2.py",
        "vedette/v1/detection_service_pb2_grpc.pyi",
        "vedette_client/py.typed",
        "vedette_server/alerts/rules.py",
        "vedette_server/dashboards/fleet.py",
        "vedette_server/demo/repository/roadsigns/1/model.safetensors",
    } <= names


def test_the_client_answers_from_an_environment_without_torch(
    wheel: Path, bundled: running.Server, scene: Picture, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pins = re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    (tmp_path / "constraints.txt").write_text("\n".join(pins))
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, str(wheel), "--constraint", str(tmp_path / "constraints.txt")], check=True)
    Image.fromarray(scene.pixels).save(tmp_path / "street.png")
    ran = subprocess.run(
        [python, "-c", SCRIPT, bundled.address, str(tmp_path / "street.png")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(sorted(sign.name for sign in scene.signs))
    command = [str(tmp_path / "venv/bin/vedette"), "detect", str(tmp_path / "street.png"), "--server", bundled.address]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    saving = subprocess.run([*command, "--save", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert saving.returncode == 1
    assert "python -m pip install 'vedette[supervision]'" in saving.stderr


def test_the_sdist_builds_the_same_wheel(wheel: Path, unpacked: Path, tmp_path: Path) -> None:
    """Byte for byte, with its version: it is carried, because an sdist has no tags."""
    build(unpacked, "wheel", into=tmp_path / "again")
    (again,) = (tmp_path / "again").iterdir()
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_version_comes_from_the_tag_and_none_is_needed(unpacked: Path) -> None:
    def version() -> str:
        command = [sys.executable, "-m", "hatchling", "version"]
        return subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=True).stdout.strip()

    def git(*words: str) -> None:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", *who, *words], cwd=unpacked, capture_output=True, check=True)

    (unpacked / "PKG-INFO").unlink()
    assert version() == "0.0", "a tree that nothing is known of"
    git("init")
    git("add", ".")
    git("commit", "-m", "all of it")
    assert version().startswith("0.1.dev1+g")
    git("tag", "v1.2.3")
    assert version() == "1.2.3"


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The programs of an environment with the wheel alone, which finds its dependencies in that of the tests.

    A .pth file leads there. Python reads no .pth file behind another, so the editable checkout is not found.
    """
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is none of the checkout's, in an environment that names nothing of it."""
    for name in [*(name for name in os.environ if name.startswith("VEDETTE_")), "PYTHONPATH"]:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def serving(installed: Path, elsewhere: Path) -> Iterator[running.Server]:
    """A server of the wheel."""
    command = [str(installed / "vedette-server"), "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with (elsewhere / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--log-format", "json", "--threads", "1"], stderr=log)
    try:
        server = running.Server(process, elsewhere / "log")
        server.wait_until_serving()
        yield server
    finally:
        process.terminate()
        process.wait(30)


def test_the_wheel_serves_and_detects_without_the_checkout(
    installed: Path, serving: running.Server, wheel: Path, scene: Picture, elsewhere: Path
) -> None:
    """Its dependencies are those of the tests' environment: it is not shown that they can be installed."""

    def run(*words: str) -> str:
        command = [str(installed / words[0]), *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    where = "import vedette_server, vedette_client, vedette.v1; print(vedette_server.__file__, vedette.v1.__file__)"
    assert run("python", "-c", where).count(f"{installed.parent}/lib/") == 2
    assert run("vedette-server", "--version").split()[-1] == version_of(wheel)
    assert run("vedette", "--version").split()[-1] == version_of(wheel)
    assert f'release="{version_of(wheel)}"' in running.http(serving, "/metrics")[1]
    Image.fromarray(scene.pixels).save("street.png")
    told = run("vedette", "detect", "street.png", "--json", "--server", serving.address)
    assert all(sign.name in told for sign in scene.signs)
    run("vedette-server", "rules", "--out", "rules")
    committed = ROOT / "deploy" / "prometheus" / "vedette.rules.yml"
    assert (elsewhere / "rules" / committed.name).read_text() == committed.read_text()

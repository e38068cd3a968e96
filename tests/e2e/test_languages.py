"""Clients in other languages, built and run by the commands of their page; they answer as the Python client does."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import google.rpc
import pytest
from PIL import Image
from vedette_client import Client, InvalidRequest
from vedette_server.demo import scenes

from tests.support import running, watching

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy/docs/languages.md"
LOCK = ROOT / "deploy/examples/node/package-lock.json"
PICTURE = "build/demo/pictures/stop-001.png"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRAMES = 3  # that the program for Node.js streams


def commands(language: str) -> list[str]:
    """The commands of a section of the page."""
    section = PAGE.read_text().split(f"\n## {language}\n")[1].split("\n## ")[0]
    lines: list[str] = BLOCK.findall(section)[0].splitlines()
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: scenes.Picture) -> Path:
    """A checkout, as far as the commands need one, beside googleapis."""
    made = tmp_path_factory.mktemp("languages")
    shutil.copytree(ROOT / "deploy/examples", made / "deploy/examples")
    (made / "protos").symlink_to(ROOT / "protos")
    (made / "googleapis").symlink_to(Path(google.rpc.__path__[0]).parents[1])
    (made / PICTURE).parent.mkdir(parents=True)
    Image.fromarray(scene.pixels).save(made / PICTURE)
    return made


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)


def wanted(client: Client, picture: Path) -> list[str]:
    """The lines that a program prints."""
    found = [(one.class_name, one.score, *one.box) for one in client.detect(picture)]
    assert found
    return ["{} {:.4f} {:.1f} {:.1f} {:.1f} {:.1f}".format(*one) for one in found]


@pytest.mark.parametrize("language", [
    pytest.param("Node.js", marks=watching.needs("node", "npm")),
    pytest.param("C++", marks=watching.needs("g++", "pkg-config", "protoc", "grpc_cpp_plugin")),
    pytest.param("Go", marks=watching.needs("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")),
    pytest.param("Java", marks=watching.needs("javac", "protoc", "grpc_java_plugin")),
])  # fmt: skip
def test_a_client_answers_as_ours_does(language: str, folder: Path, client: Client, bundled: running.Server) -> None:
    build, detect = commands(language)
    built = run(build, folder)
    assert built.returncode == 0, built.stdout + built.stderr
    detect = detect.replace("127.0.0.1:8001", bundled.address)
    told = run(detect, folder)
    lines = wanted(client, folder / PICTURE)
    frames = range(1, FRAMES + 1) if language == "Node.js" else ()
    assert told.stdout.splitlines() == lines + [f"frame {number}: {line}" for number in frames for line in lines]
    assert told.returncode == 0, told.stderr

    refused = run(detect.replace(PICTURE, "deploy/examples/node/detect.js"), folder)
    with pytest.raises(InvalidRequest) as caught:
        client.detect(folder / "deploy/examples/node/detect.js")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert caught.value.message in refused.stderr


def test_the_lock_names_no_host() -> None:
    assert "://" not in LOCK.read_text()
    assert json.loads(LOCK.read_text())["lockfileVersion"] == 3

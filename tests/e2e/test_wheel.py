"""The built wheel, in a virtual environment of its own that has neither torch nor detectron2."""

import re
import subprocess
import sys
import venv
import zipfile
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


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

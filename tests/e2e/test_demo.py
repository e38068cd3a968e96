"""The first steps of a newcomer: the demonstration, the README, the tutorial and the how-tos, to the letter."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from vedette_server.demo import scenes
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running

ROOT = Path(__file__).parents[2]
VERSION = ROOT / "server/vedette_server/demo/repository/roadsigns/1"
HOWTOS = sorted((ROOT / "deploy/docs/howto").glob("*.md"))
NOT_OURS = ("promtool", "amtool", "curl")  # not everybody has them
# For the reader's own.
STAND_INS = {
    "signs.yaml": str(VERSION / "config.yaml"),
    "model_final.pth": str(VERSION / "model.safetensors"),
    "stop,yield": ",".join(json.loads((VERSION / "manifest.json").read_text())["class_names"]),
    "--golden pictures": "--golden build/demo/pictures",
    "baseline signs --repository models": f"baseline roadsigns --repository {BUNDLED_REPOSITORY}",
    "--model signs --version 2": "--model roadsigns --version 1",
    "rtsp://camera.example/live": "build/demo/clip.mp4",
    "deploy/": f"{ROOT}/deploy/",
    " --server 127.0.0.1:8000": "",  # Envoy's, which another test starts
    "--window 5m": "--window 0.1s",  # in which too little is answered, so that nothing is written there
}
PAGES = ("README.md", "deploy/docs/tutorial.md", *(f"deploy/docs/howto/{path.name}" for path in HOWTOS))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demonstration has run."""
    folder = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(
        [sys.executable, str(ROOT / "deploy/demo/demo.py")], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return folder


def test_the_demonstration_names_the_right_classes_for_every_picture(demo: Path) -> None:
    lines = (demo / "build/demo/detections.jsonl").read_text().splitlines()
    assert len(lines) == 6
    for line in map(json.loads, lines):
        seed = 3_000_000 + int(Path(line["image"]).stem.rpartition("-")[2])
        truth = sorted(sign.name for sign in scenes.draw(scenes.describe(seed)).signs)
        assert sorted(item["class"] for item in line["detections"]) == truth
        assert (demo / line["image"]).exists()


def test_the_demonstration_draws_what_it_found(demo: Path) -> None:
    with Image.open(demo / "build/demo/annotated.png") as sheet:
        assert sheet.size == (3 * scenes.SIZE[0], 2 * scenes.SIZE[1])


def runnable(line: str, http: str) -> list[str]:
    """A command of a page as it runs here."""
    for words, own in {**STAND_INS, "http://127.0.0.1:8002": http}.items():
        line = line.replace(words, own)
    match command := line.split():
        case ["vedette-server", "report", *_]:
            return [*command, "--samples", "0"]
        case ["vedette-server", "serve", *_]:
            return [*command, "--help"]
        case ["envoy", *_]:
            return [*command, "--mode", "validate"]
        case [program, *_] if program in ("vedette", "vedette-server", *NOT_OURS):
            return command
    msg = f"no test runs {line!r}"
    raise AssertionError(msg)


def run(line: str, folder: Path, server: running.Server) -> None:
    """Run a command of a page; what the reader must start or install is only looked for."""
    program, name, *_ = line.split()
    if program == "make":
        targets = subprocess.run(["make", "--directory", str(ROOT)], capture_output=True, text=True, check=True).stdout
        assert f"make {name} " in targets
        return
    if program in NOT_OURS and not shutil.which(program) and "CI" not in os.environ:
        return
    words, _, source = line.partition(" < ")
    given = (folder / source.strip()).read_bytes() if source else None
    command = runnable(words, server.http)
    told = subprocess.run(command, cwd=folder, env=environment(server), check=False, capture_output=True, input=given)
    said = told.stderr.decode()
    if name == "baseline":
        assert "of 48 windows have at least 30 answers of roadsigns version 1" in said
    assert told.returncode == (name == "baseline"), said


def environment(server: running.Server) -> dict[str, str]:
    return {**os.environ, "VEDETTE_SERVER": server.address, "PATH": f"{running.BIN}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def passed() -> set[str]:
    """Commands and code that have run on another page."""
    return set()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_and_code_of_a_page_run(page: str, demo: Path, bundled: running.Server, passed: set[str]) -> None:
    """Every block: `make` targets exist, commands and Python run, against a running server without traffic."""
    blocks = BLOCK.findall((ROOT / page).read_text())
    scripts = [text for language, text in blocks if language == "python"]
    lines = [line.partition(" #")[0] for language, text in blocks if language == "sh" for line in text.splitlines()]
    assert len(scripts + lines) >= 3
    for script in scripts:
        if script not in passed:
            here = script.replace("127.0.0.1:8001", bundled.address)
            command = [sys.executable, "-c", here.replace("127.0.0.1:8002", urlsplit(bundled.http).netloc)]
            told = subprocess.run(command, cwd=demo, env=environment(bundled), check=False, capture_output=True)
            assert told.returncode == 0, told.stderr.decode()
            passed.add(script)
    for line in lines:
        if line.strip() not in passed:
            run(line, demo, bundled)
            passed.add(line.strip())


def figures(markdown: str) -> dict[str, list[float]]:
    """The rows of the tables of a model's card that have figures, by their first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if "|" in line]
    return {first: [*map(float, rest)] for first, *rest in cells if rest[0][:1].isdigit()}


def test_the_models_card_says_what_one_command_measures() -> None:
    """The whole measurement takes minutes; `make card` makes it, this holds its figures to a small part of it."""
    from vedette_server.demo import evaluate
    from vedette_server.repository import repository

    (model,) = repository.read(BUNDLED_REPOSITORY)
    card = figures((BUNDLED_REPOSITORY / "roadsigns" / "MODEL_CARD.md").read_text())
    measured = figures(evaluate.table(model, range(24)))
    assert list(card) == list(measured)
    assert len(card) == 6
    for row, seen in measured.items():
        assert card[row] == pytest.approx(seen, abs=0.15), row
    size = sum(path.stat().st_size for path in (BUNDLED_REPOSITORY / "roadsigns" / "1").glob("model.safetensors"))
    assert size <= 10_000_000


def test_the_training_recipe_runs_and_resumes(tmp_path: Path) -> None:
    """Two steps, then two more from the checkpoint: what `make train-demo` does thousands of times."""
    command = [sys.executable, "-m", "vedette_server.demo.train", "--output", str(tmp_path), "--scenes", "8"]
    subprocess.run([*command, "--iterations", "2"], check=True, capture_output=True)
    shutil.rmtree(tmp_path / "repository")
    subprocess.run([*command, "--iterations", "4"], check=True, capture_output=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 3]
    assert (tmp_path / "repository/roadsigns/1/model.safetensors").exists()

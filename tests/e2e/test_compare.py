"""`vedette compare` and `vedette-server check`: what was promised beside what is seen, with real models."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file
from vedette_client.cli import main as vedette
from vedette_server.cli import main as vedette_server
from vedette_server.contract.contract import Names
from vedette_server.demo.scenes import Picture
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running

VERSION = BUNDLED_REPOSITORY / "roadsigns" / "1"
CONFIG, WEIGHTS = VERSION / "config.yaml", VERSION / "model.safetensors"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the server of these tests has: several would wait for one another on a busy machine."""
    monkeypatch.setenv("VEDETTE_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(program: click.Group, *arguments: str | Path) -> Result:
    """A command in this process, which has loaded torch."""
    return CliRunner().invoke(program, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, scene: Picture) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "street.png"
    Image.fromarray(scene.pixels).save(path)
    return path


def changed(path: Path, **keys: Any) -> Path:
    """The bundled config with other values, written to `path`."""
    config = yaml.safe_load(CONFIG.read_text())
    for key, value in keys.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    path.write_text(yaml.safe_dump(config))
    return path


def compare(server: running.Server, picture: Path, config: Path, *more: str | Path, weights: Path = WEIGHTS) -> Result:
    at = ("--server", server.address, "--config", config, "--weights", weights)
    return run(vedette, "compare", picture, *at, *more)


def test_the_bundled_model_is_served_as_detectron2_answers(
    bundled: running.Server, picture: Path, scene: Picture, tmp_path: Path
) -> None:
    command = ["compare", picture, "--config", CONFIG, "--weights", WEIGHTS, "--save", tmp_path / "out"]
    ran = subprocess.run(
        [str(running.BIN / "vedette"), *map(str, command), "--server", bundled.address],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "street.png: the same (largest difference: score 0.0000, box 0.0" in ran.stdout
    assert "SCORE_THRESH_TEST is 0.05 in the config, but both were compared at the served 0.5" in ran.stdout
    assert ran.stderr == f"saved {tmp_path / 'out' / 'street.png'}\n"
    with Image.open(tmp_path / "out" / "street.png") as drawn:
        assert drawn.size == (2 * scene.pixels.shape[1], scene.pixels.shape[0])


def test_swapped_channels_are_told_as_the_reason(bundled: running.Server, picture: Path, tmp_path: Path) -> None:
    config = changed(tmp_path / "rgb.yaml", INPUT__FORMAT="RGB", INPUT__MIN_SIZE_TEST=280)
    ran = compare(bundled, picture, config, "--json")
    assert ran.exit_code == 1
    (line,) = map(json.loads, ran.stdout.splitlines())
    assert not line["same"]
    assert line["verdict"].startswith("they differ: ")
    assert line["only_served"]
    assert any("INPUT.FORMAT is RGB in the config, but the server has BGR" in hint for hint in line["hints"])
    assert any("INPUT.MIN_SIZE_TEST is 280 in the config, but the server has 272" in hint for hint in line["hints"])


def test_both_are_held_to_the_threshold_that_was_served(bundled: running.Server, picture: Path, tmp_path: Path) -> None:
    config = changed(tmp_path / "config.yaml", MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.999)
    ran = compare(bundled, picture, config, "--json", "--threshold", "0.3")
    line = json.loads(ran.stdout)
    assert (ran.exit_code, line["same"], line["threshold"]) == (0, True, 0.3)
    assert line["both"]
    (hint,) = line["hints"]
    assert "MODEL.ROI_HEADS.SCORE_THRESH_TEST is 0.999 in the config, but both were compared at the served 0.3" in hint


def test_what_detectron2_leaves_random_is_told(bundled: running.Server, picture: Path, tmp_path: Path) -> None:
    tensors = load_file(WEIGHTS)
    tensors["stray"] = tensors.pop("roi_heads.box_predictor.cls_score.weight")
    save_file(tensors, tmp_path / "damaged.safetensors")
    ran = compare(bundled, picture, CONFIG, weights=tmp_path / "damaged.safetensors")
    assert ran.exit_code == 1
    assert "only served" in ran.stdout
    assert (
        "hint: the local model may be the wrong one: Detectron2 silently left roi_heads.box_predictor.cls_sc"
        in ran.stdout
    )
    assert "Detectron2 silently ignored stray of the checkpoint" in ran.stdout


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (("{picture}", "--config", "no/such.yaml", "--weights", WEIGHTS), 1, "neither a file nor a config in the model z"),
    (("{picture}", "--config", CONFIG, "--weights", "no/such.pth"), 1, "no such file: no/such.pth"),
    (("{picture}", "--config", CONFIG, "--weights", CONFIG), 1, "Detectron2 cannot load"),
    (("{picture}", "--config", "lazy.py", "--weights", WEIGHTS), 1, "is a LazyConfig"),
    (("{picture}", "--config", WEIGHTS, "--weights", WEIGHTS), 1, "Detectron2 does not accept the config"),
    (("{picture}", "--config", CONFIG, "--weights", WEIGHTS, "--plugin", "no_such"), 1, "No module named 'no_such'"),
    (("{picture}", "--config", CONFIG, "--weights", WEIGHTS, "--model", "nobody"), 69, "MODEL_NOT_FOUND"),
    (("{picture}", "--config", CONFIG, "--weights", WEIGHTS, "--threshold", "50"), 1, "THRESHOLD_OUT_OF_RANGE"),
    (("no/such.png", "--config", CONFIG, "--weights", WEIGHTS), 1, "No such file"),
    (("{picture}",), 2, "--config"),
])  # fmt: skip
def test_what_keeps_it_from_comparing_is_said(
    arguments: tuple[str | Path, ...], status: int, said: str, bundled: running.Server, picture: Path
) -> None:
    words = [str(word).format(picture=picture) for word in arguments]
    ran = run(vedette, "compare", *words, "--server", bundled.address)
    assert (ran.exit_code, ran.stdout) == (status, "")
    assert said in ran.stderr
    if status != 2:
        (line,) = ran.stderr.splitlines()
        assert line.startswith("vedette: ")


def test_without_detectron2_it_says_what_to_install(bundled: running.Server, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['detectron2'] = None\n")
    ran = subprocess.run(
        [
            *(str(running.BIN / "vedette"), "compare", str(picture), "--server", bundled.address),
            *("--config", str(CONFIG), "--weights", str(WEIGHTS)),
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert "cannot import detectron2: python -m pip install 'vedette[server]'" in line


def test_the_bundled_golden_images_are_answered_as_expected(tmp_path: Path) -> None:
    ran = subprocess.run(
        [str(running.BIN / "vedette-server"), "check", "roadsigns", "--save", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "agrees: empty" in ran.stdout
    assert "parking.jpg" in ran.stdout
    with Image.open(tmp_path / "parking.png") as drawn:
        assert drawn.size == (1024, 384)


@pytest.fixture
def altered(tmp_path: Path) -> Path:
    """The bundled repository with other weights, sealed as if they were its own."""
    root = tmp_path / "repository"
    shutil.copytree(BUNDLED_REPOSITORY, root)
    folder = root / "roadsigns" / "1"
    tensors = load_file(folder / "model.safetensors")
    tensors["roi_heads.box_predictor.cls_score.weight"] *= 0.8
    save_file(tensors, folder / "model.safetensors")
    repository.seal(folder, Names(repository.find(BUNDLED_REPOSITORY, "roadsigns").contract.class_names))
    return root


def test_altered_weights_are_shown_beside_what_was_expected(altered: Path) -> None:
    ran = run(vedette_server, "check", "roadsigns", "--repository", altered, "--json")
    assert ran.exit_code == 1
    lines = {line["picture"]: line for line in map(json.loads, ran.stdout.splitlines())}
    assert len(lines) == 5
    (parking,) = lines["parking.jpg"]["objects"]
    assert not lines["parking.jpg"]["same"]
    assert parking["expected"]["score"] > parking["seen"]["score"] > 0.5
    assert parking["wrong"].endswith(f"not {parking['expected']['score']:.4f}")


def test_what_cannot_be_checked_is_said_in_one_line(altered: Path) -> None:
    def said(*flags: str | Path) -> str:
        ran = run(vedette_server, "check", *flags)
        assert (ran.exit_code, ran.stdout) == (1, "")
        (line,) = ran.stderr.splitlines()
        return line

    at = ("--repository", altered)
    assert "has no nobody; it holds roadsigns version 1" in said("nobody", *at)
    assert "has no roadsigns version 2; it holds roadsigns version 1" in said("roadsigns", "--version", "2", *at)
    assert "the device 'tpu' cannot be used here" in said("roadsigns", "--device", "tpu", *at)
    folder = altered / "roadsigns" / "1"
    shutil.rmtree(folder / "golden")
    assert "CHECKSUM_CHANGED" in said("roadsigns", *at)
    names = Names(repository.find(BUNDLED_REPOSITORY, "roadsigns").contract.class_names)
    repository.seal(folder, names)
    assert "has no golden images: import the model with --golden" in said("roadsigns", *at)
    tensors = load_file(folder / "model.safetensors")
    del tensors["roi_heads.box_predictor.cls_score.weight"]
    save_file(tensors, folder / "model.safetensors")
    shutil.copytree(VERSION / "golden", folder / "golden")
    repository.seal(folder, names)
    assert "TENSORS_MISSING" in said("roadsigns", *at)

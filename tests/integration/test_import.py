"""Importing models: what is whole goes in, what is damaged is refused with its reason, and nothing in it is run."""

import os
import pickle
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from vedette_client import Client
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.importer import import_model
from vedette_server.predictor.reference import default_predictor
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests import running
from tests.families import CLASSES, ZOO, config, model

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """The tensors of a small Mask R-CNN."""
    return {name: value.clone() for name, value in model("mask_rcnn").state_dict().items()}


def write_config(folder: Path, family: str = "mask_rcnn", **changes: Any) -> Path:
    cfg = config(family)
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(cfg.dump())))
    return path


def import_here(
    folder: Path, weights: Path, cfg: Path | None = None, classes: str = ",".join(CLASSES), **options: Any
) -> Path:
    """What the command does, in this process."""
    given = {"golden": None, "weights_key": None, **options}
    path = cfg or write_config(folder)
    return import_model(folder / "repository", "model", str(path), weights, classes=classes.split(","), **given)


def assert_refused(check: Check, folder: Path, weights: Path, **options: Any) -> None:
    with pytest.raises(LoadRefusedError) as caught:
        import_here(folder, weights, **options)
    assert caught.value.check is check, caught.value
    assert not list(folder.glob("repository/model/*")), "something was left behind"


def run_import(
    folder: Path, weights: Path, *flags: str, cfg: Path | None = None, classes: str = ",".join(CLASSES)
) -> subprocess.CompletedProcess[str]:
    whole = command(folder, weights, cfg or write_config(folder), classes, *flags)
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def command(folder: Path, weights: Path, cfg: Path, classes: str, *flags: str) -> list[str]:
    return [
        *(str(running.BIN / "vedette-server"), "import", "model", "--config", str(cfg), "--weights", str(weights)),
        *("--repository", str(folder / "repository"), "--classes", classes, *flags),
    ]


def zoo_pickle(path: Path, state: State) -> None:
    arrays = {name: value.numpy() for name, value in state.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))


def training_checkpoint(path: Path, state: State) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(3)
    optimizer.step()
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "iteration": 7}, path)


FORMATS: dict[str, tuple[str, Callable[[Path, State], object], str | None]] = {
    "a zoo pickle": ("model.pkl", zoo_pickle, None),
    "a training checkpoint": ("model.pth", training_checkpoint, None),
    "a bare state": ("model.pth", lambda path, state: torch.save(state, path), None),
    "a wrapped, distributed model": (
        "model.pth",
        lambda path, state: torch.save(
            {"state_dict": {f"module.{name}": value for name, value in state.items()}}, path
        ),
        None,
    ),
    "an EMA": (
        "model.pth",
        lambda path, state: torch.save(
            {"model": {name: value * 0 for name, value in state.items()}, "ema_state": state}, path
        ),
        "ema_state",
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_checkpoint_goes_in_whole(kind: str, state: State, tmp_path: Path) -> None:
    file, write, key = FORMATS[kind]
    write(tmp_path / file, state)
    assert import_here(tmp_path, tmp_path / file, weights_key=key) == tmp_path / "repository/model/1"
    loaded = default_predictor(tmp_path / "repository/model/1").model.state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_an_imported_model_is_served_with_its_golden_images(tmp_path: Path) -> None:
    """The bundled model's own weights, imported again: its answers are those that it gives where it came from."""
    source = BUNDLED_REPOSITORY / "roadsigns" / "1"
    (tmp_path / "golden").mkdir()
    for seed in (3_000_001, 3_000_022):
        (tmp_path / "golden" / f"{seed}.jpg").write_bytes(jpeg(scenes.draw(scenes.describe(seed)).pixels))
    names = "stop,yield,warning,parking,mandatory,speed_limit"
    for version in (1, 2):
        ran = run_import(
            tmp_path,
            source / "model.safetensors",
            *("--golden", str(tmp_path / "golden")),
            cfg=source / "config.yaml",
            classes=names,
        )
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "repository" / "model" / str(version) / "golden" / "expected.json").exists()
    with running.server("--repository", str(tmp_path / "repository"), "--threads", "1") as server:
        with Client(server.address) as client:
            running.wait_for(lambda: all(item.state == "READY" for item in client.models()), "both versions")
            result = client.detect(scenes.draw(scenes.describe(3_000_001)).pixels, pixel_format="RGB8")
        assert (result.version, result[0].class_name) == ("2", "stop")


HEAD = "roi_heads.box_predictor.cls_score.weight"


def without(state: State, *parts: str) -> State:
    return {name: value for name, value in state.items() if not any(part in name for part in parts)}


def damaged(state: State, name: str, value: torch.Tensor) -> State:
    return {**state, name: value}


DAMAGES: dict[str, tuple[Callable[[State], object], Check]] = {
    "a tensor dropped": (lambda state: without(state, HEAD), Check.TENSORS_MISSING),
    "a tensor renamed": (
        lambda state: {name.replace("fc1", "fc9"): value for name, value in state.items()},
        Check.TENSORS_MISSING,
    ),
    "a tensor too many": (lambda state: damaged(state, "neck.weight", torch.ones(2)), Check.TENSORS_UNEXPECTED),
    "a tensor reshaped": (
        lambda state: damaged(state, "roi_heads.box_head.fc1.weight", torch.zeros(64, 7)),
        Check.TENSORS_MISSHAPEN,
    ),
    "NaN": (lambda state: damaged(state, HEAD, state[HEAD] * float("nan")), Check.VALUES_NOT_FINITE),
    "infinite": (lambda state: damaged(state, HEAD, state[HEAD] + float("inf")), Check.VALUES_NOT_FINITE),
    "the backbone alone": (
        lambda state: {name: value for name, value in state.items() if name.startswith("backbone.bottom_up")},
        Check.BACKBONE_ONLY,
    ),
    "the mask head gone": (lambda state: without(state, "mask_head"), Check.SWITCH_DISAGREES),
    "empty": (lambda _state: {}, Check.WEIGHTS_EMPTY),
    "no tensors by name": (lambda _state: [1, 2, 3], Check.WEIGHTS_UNREADABLE),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_damaged_weights_are_refused(damage: str, suffix: str, state: State, tmp_path: Path) -> None:
    make, check = DAMAGES[damage]
    broken, weights = make(state), tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save(broken, weights)
    elif isinstance(broken, dict):
        zoo_pickle(weights, broken)
    else:
        weights.write_bytes(pickle.dumps(broken))
    assert_refused(check, tmp_path, weights)


CONFIGS: dict[str, tuple[dict[str, Any], str, Check]] = {
    "classes off by one": ({"MODEL__ROI_HEADS__NUM_CLASSES": 6}, "a,b,c,d,e,f", Check.CLASS_COUNT),
    "a name too few": ({}, "a,b,c,d", Check.CLASS_COUNT),
    "masks switched off": ({"MODEL__MASK_ON": False}, ",".join(CLASSES), Check.SWITCH_DISAGREES),
    "keypoints switched on": ({"MODEL__KEYPOINT_ON": True}, ",".join(CLASSES), Check.SWITCH_DISAGREES),
    "a threshold that nothing exceeds": (
        {"MODEL__ROI_HEADS__SCORE_THRESH_TEST": 1.0},
        ",".join(CLASSES),
        Check.ALWAYS_EMPTY,
    ),
    "no detections": ({"TEST__DETECTIONS_PER_IMAGE": 0}, ",".join(CLASSES), Check.ALWAYS_EMPTY),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_disagrees_is_refused(case: str, state: State, tmp_path: Path) -> None:
    changes, classes, check = CONFIGS[case]
    torch.save(state, tmp_path / "model.pth")
    assert_refused(check, tmp_path, tmp_path / "model.pth", cfg=write_config(tmp_path, **changes), classes=classes)


@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors"])
def test_a_truncated_file_is_refused(suffix: str, state: State, tmp_path: Path) -> None:
    weights = tmp_path / f"model.{suffix}"
    {"pth": torch.save, "pkl": lambda s, p: zoo_pickle(p, s), "safetensors": save_file}[suffix](state, weights)
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(Check.WEIGHTS_UNREADABLE, tmp_path, weights)


class Bomb:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_a_pickle_that_would_run_a_command_is_refused_and_does_not(suffix: str, state: State, tmp_path: Path) -> None:
    weights, proof = tmp_path / f"model.{suffix}", tmp_path / "it-ran"
    content = {"model": {name: value.numpy() for name, value in state.items()}, "extra": Bomb(proof)}
    if suffix == "pth":
        torch.save(content, weights)
    else:
        weights.write_bytes(pickle.dumps(content))
    ran = run_import(tmp_path, weights)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1].startswith("vedette-server: weights_unsafe: ")
    assert not proof.exists()
    assert not list(tmp_path.glob("repository/model/*"))


def test_a_config_that_is_a_program_is_refused_and_not_run(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pth")
    proof = tmp_path / "it-ran"
    for name, text in {
        "lazy.py": f"open({str(proof)!r}, 'w')",
        "unsafe.yaml": f"X: !!python/object/apply:os.system ['touch {proof}']",
    }.items():
        (tmp_path / name).write_text(text)
        assert_refused(Check.CONFIG_IS_PROGRAM, tmp_path, tmp_path / "model.pth", cfg=tmp_path / name)
    assert not proof.exists()


def test_random_heads_are_found_on_the_golden_images(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "1.jpg").write_bytes(jpeg(scenes.draw(scenes.describe(1)).pixels))
    torch.manual_seed(1)
    calm = model("mask_rcnn").state_dict()
    calm[HEAD] = torch.randn_like(calm[HEAD]) * 0.01  # as Detectron2 initialises it
    torch.save(calm, tmp_path / "model.pth")
    assert_refused(Check.SCORES_FLAT, tmp_path, tmp_path / "model.pth", golden=tmp_path / "golden")


@pytest.mark.parametrize("family", ["retinanet", "panoptic_fpn"])
def test_a_config_of_the_zoo_is_resolved_with_its_names(family: str, tmp_path: Path) -> None:
    """The zoo's own model is too large to be made here: its weights are refused, and only after all else was read."""
    torch.save({"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "model.pth")
    assert_refused(Check.BACKBONE_ONLY, tmp_path, tmp_path / "model.pth", cfg=Path(ZOO[family]))


def test_a_killed_import_leaves_the_repository_whole(state: State, tmp_path: Path) -> None:
    """kill -9 at twenty moments of an import: before each version is whole there is none, after it there is."""
    torch.save(state, tmp_path / "model.pth")
    run = command(tmp_path, tmp_path / "model.pth", write_config(tmp_path), ",".join(CLASSES))
    started = time.monotonic()
    subprocess.run(run, check=True, capture_output=True)
    whole = time.monotonic() - started
    rng = random.Random(5)  # noqa: S311  moments, not secrets
    for _ in range(20):
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.5, 1.05) * whole)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        versions = repository.read(tmp_path / "repository")
        assert [item.version for item in versions] == list(range(1, len(versions) + 1))
    subprocess.run(run, check=True, capture_output=True)
    assert not list((tmp_path / "repository" / "model").glob(".import-*")), "what killed imports left is not cleared"

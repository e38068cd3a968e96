"""The page on models without output: its figures are measured again, its code runs, what it says is answered is."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from PIL import Image
from safetensors.torch import load_file, save_file
from vedette_client import Client, InvalidRequest, Tensor
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import defaults
from vedette_server.demo import scenes
from vedette_server.demo.evaluate import Scored, answers, empty_share, recall
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor.encode import detections
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running
from tests.support.reference import default_predictor

PAGE = Path("deploy/docs/no-output.md")
SEEDS = range(40)  # held-out scenes, as the page says
VERSION = BUNDLED_REPOSITORY / "roadsigns" / "1"
TOLERANCE = 0.03  # a detection near the threshold may fall on the other side on another processor
CLASSES = tuple(yaml.safe_load((VERSION / "manifest.json").read_text())["class_names"])


def table(name: str) -> dict[str, tuple[float, ...]]:
    """The figures of one of the page's tables, by the first column."""
    text = PAGE.read_text().partition(f"<!-- {name} -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {row[0]: tuple(float(cell) for cell in row[1:] if re.fullmatch(r"[0-9.]+", cell)) for row in rows}


def row(name: str) -> str:
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |")]
    return line


def assert_told(name: str, measured: Mapping[str, Sequence[float]]) -> None:
    told = table(name)
    assert set(told) == set(measured), measured
    for first, figures in measured.items():
        assert told[first] == pytest.approx(tuple(figures), abs=TOLERANCE), (first, figures)


@pytest.fixture(scope="module")
def scored() -> dict[str, list[Scored]]:
    (model,) = repository.read(BUNDLED_REPOSITORY)
    return answers(model, SEEDS)


def test_what_is_sent_decides(scored: dict[str, list[Scored]]) -> None:
    assert_told("inputs", {name: (recall(found, 0.5), empty_share(found, 0.5)) for name, found in scored.items()})


def test_a_threshold_silences_a_good_model_and_saves_no_wrong_input(scored: dict[str, list[Scored]]) -> None:
    right, unit = scored["right (BGR, uint8, 0 to 255)"], scored["scaled to [0, 1]"]
    thresholds = {str(value): (recall(right, value), empty_share(right, value)) for value in (0.5, 0.99, 0.999, 1.0)}
    assert_told("thresholds", thresholds)
    assert recall(unit, 0.05) == 0


def halves(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name.startswith("backbone.bottom_up")}


def no_weights(_state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {}


def whole(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state


MISTAKES: dict[str, tuple[dict[str, Any], Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], Check]] = {
    "`NUM_CLASSES` 20 for the trained 6": ({"MODEL.ROI_HEADS.NUM_CLASSES": 20}, whole, Check.CLASS_COUNT),
    "a backbone's weights": ({}, halves, Check.BACKBONE_ONLY),
    "no weights": ({}, no_weights, Check.WEIGHTS_EMPTY),
}


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Config and weights of each mistake."""
    made = {}
    state = {name: value.float() for name, value in load_file(VERSION / "model.safetensors").items()}
    for name, (changes, keep, _check) in MISTAKES.items():
        folder = tmp_path_factory.mktemp("mistake")
        config = CfgNode(yaml.safe_load((VERSION / "config.yaml").read_text()))
        for key, value in changes.items():
            config.merge_from_list([key, value])
        (folder / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(config.dump())))
        torch.save({"model": keep(state)}, folder / "model.pth")
        made[name] = (folder / "config.yaml", folder / "model.pth")
    return made


def test_detectron2_loads_what_does_not_fit_and_answers_nothing(mistaken: dict[str, tuple[Path, Path]]) -> None:
    (model,) = repository.read(BUNDLED_REPOSITORY)
    pictures = [scenes.draw(scenes.describe(seed)) for seed in SEEDS]
    measured = {}
    for name, (config_path, weights) in mistaken.items():
        config = CfgNode(yaml.safe_load(config_path.read_text()))
        config.DATASETS.TEST = []
        config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.5
        torch.manual_seed(0)
        predictor = DefaultPredictor(config)
        DetectionCheckpointer(predictor.model).load(str(weights))  # raises nothing
        found = []
        for picture in pictures:
            instances = predictor(np.ascontiguousarray(picture.pixels[:, :, ::-1]))["instances"]
            found.append(Scored(picture.signs, detections(instances, defaults(model.contract))))
        measured[name] = (recall(found, 0.5),)
        assert (empty_share(found, 0.5) == 1) == ("boxes without sense" not in row(name))
    assert_told("configurations", measured)


@pytest.mark.parametrize("name", MISTAKES)
def test_this_server_refuses_each_of_them(name: str, mistaken: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    changes, _keep, check = MISTAKES[name]
    config, weights = mistaken[name]
    classes = [f"class {number}" for number in range(20)] if changes else CLASSES
    with pytest.raises(LoadRefusedError) as caught:
        import_model(tmp_path, "signs", ModelSource(config=str(config), weights=weights, classes=classes))
    assert caught.value.check is check
    assert f"`{check}`" in row(name)


def test_a_threshold_that_nothing_exceeds_is_refused_at_import(tmp_path: Path) -> None:
    config = yaml.safe_load((VERSION / "config.yaml").read_text())
    config["MODEL"]["ROI_HEADS"]["SCORE_THRESH_TEST"] = 1.0
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    save_file(load_file(VERSION / "model.safetensors"), tmp_path / "model.safetensors")
    source = ModelSource(config=str(tmp_path / "config.yaml"), weights=tmp_path / "model.safetensors", classes=CLASSES)
    with pytest.raises(LoadRefusedError) as caught:
        import_model(tmp_path, "signs", source)
    assert caught.value.check is Check.ALWAYS_EMPTY
    assert "`ALWAYS_EMPTY`" in PAGE.read_text()


def test_retinanet_does_not_hear_the_threshold_of_others(families: Path) -> None:
    bgr = np.ascontiguousarray(scenes.draw(scenes.describe(11)).pixels[:, :, ::-1])
    plain = default_predictor(families / "retinanet" / "1")(bgr)["instances"]
    raised = default_predictor(families / "retinanet" / "1", {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.99})(bgr)
    own = default_predictor(families / "retinanet" / "1", {"MODEL.RETINANET.SCORE_THRESH_TEST": 0.99})(bgr)
    assert len(raised["instances"]) == len(plain) > len(own["instances"])


REFUSED = {
    "VALUES_IN_UNIT_RANGE": lambda rgb: rgb / 255,
    "VALUES_NORMALISED": lambda rgb: (rgb - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_wrong_floats_are_refused_by_name(reason: str, bundled: running.Server, scene: scenes.Picture) -> None:
    with Client(bundled.address) as client, pytest.raises(InvalidRequest) as caught:
        client.detect(Tensor(REFUSED[reason](scene.pixels), "RGB", "HWC", "0-255"))
    assert caught.value.reason == reason
    assert f"`{reason}`" in PAGE.read_text()


def test_the_pages_code_runs_and_prints_what_it_says(
    bundled: running.Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "build/demo/pictures").mkdir(parents=True)
    signs = (scenes.draw(scenes.describe(seed, quiet=False)) for seed in range(3_000_000, 3_001_000))
    stop = next(picture for picture in signs if [sign.name for sign in picture.signs] == ["stop"])
    Image.fromarray(stop.pixels).save(tmp_path / "build/demo/pictures/stop-001.png")
    page = PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        code = compile(block.replace("127.0.0.1:8001", bundled.address), str(PAGE), "exec")
        exec(code, {"__name__": "__main__"})  # noqa: S102  our own page
        promised = re.findall(r"# -> (.*)", block)
        assert capsys.readouterr().out.splitlines() == promised

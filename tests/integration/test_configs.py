"""Configs as they are found: read as data whatever their tags say, and refused with a reason where they cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.config.compat import downgrade_config
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor.config import plain, resolve

from tests.support.families import CLASSES, LAZY, PLUGINS, config
from tests.support.importing import run_import

Write = Callable[[Path, CfgNode], object]


@pytest.fixture(scope="module")
def node() -> CfgNode:
    return config("mask_rcnn")


@pytest.fixture(scope="module")
def right(node: CfgNode) -> dict[str, Any]:
    return plain(node)


def with_numpy(path: Path, node: CfgNode) -> None:
    """As a config that a script has filled with NumPy's numbers is dumped."""
    data = yaml.safe_load(node.dump())
    data["MODEL"]["PIXEL_MEAN"] = np.array(data["MODEL"]["PIXEL_MEAN"])
    data["SOLVER"]["BASE_LR"] = np.float64(data["SOLVER"]["BASE_LR"])
    data["INPUT"]["MIN_SIZE_TEST"] = np.int64(160)
    path.write_text(yaml.dump(data))


def over_a_base(path: Path, node: CfgNode) -> None:
    whole = yaml.safe_load(node.dump())
    (path.parent / "bases").mkdir()
    (path.parent / "bases" / "one.yaml").write_text(yaml.safe_dump({"MODEL": whole.pop("MODEL")}))
    (path.parent / "bases" / "two.yaml").write_text(yaml.safe_dump({"INPUT": whole.pop("INPUT")}))
    path.write_text(yaml.safe_dump({"_BASE_": ["bases/one.yaml", "bases/two.yaml"], **whole}))


FOUND: dict[str, Write] = {
    "as training dumps it": lambda path, node: path.write_text(node.dump()),
    "dumped with tags": lambda path, node: path.write_text(yaml.dump(node)),
    "with NumPy's numbers": with_numpy,
    "an older version's": lambda path, node: path.write_text(downgrade_config(node.clone(), 1).dump()),
    "with a mark of byte order": lambda path, node: path.write_text("\ufeff" + node.dump()),
    "in UTF-16": lambda path, node: path.write_text(node.dump(), encoding="utf-16"),
    "JSON": lambda path, node: path.write_text(json.dumps(yaml.safe_load(node.dump()))),
    "over bases": over_a_base,
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_config_is_read_as_what_it_says(kind: str, node: CfgNode, right: dict[str, Any], tmp_path: Path) -> None:
    FOUND[kind](tmp_path / "config.yaml", node)
    assert resolve(str(tmp_path / "config.yaml")) == right


@pytest.mark.parametrize(
    "path", ["COCO-Detection/retinanet_R_50_FPN_1x.yaml", "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"]
)
def test_a_copy_of_the_zoos_is_read_as_the_zoos_own(path: str, tmp_path: Path) -> None:
    """With its base copied beside, whose one expression is known."""
    carried = Path(model_zoo.get_config_file(path))
    target = tmp_path / "a" / carried.name
    target.parent.mkdir()
    target.write_text(carried.read_text())
    for base in carried.parent.parent.glob("Base-*.yaml"):
        (tmp_path / base.name).write_text(base.read_text())
    assert resolve(str(target)) == resolve(path)
    target.write_text(f"_BASE_: {carried}\n")
    assert resolve(str(target)) == resolve(path)


def test_a_saved_lazy_config_is_read_as_the_program(tmp_path: Path) -> None:
    program = LazyConfig.load(str(LAZY))
    LazyConfig.save(program, str(tmp_path / "config.yaml"))
    assert "!!python/object" in (tmp_path / "config.yaml").read_text()
    assert resolve(str(tmp_path / "config.yaml")) == resolve(str(LAZY), run=True)
    torch.save({"model": instantiate(program.model).state_dict()}, tmp_path / "m.pth")
    source = ModelSource(config=str(tmp_path / "config.yaml"), weights=tmp_path / "m.pth", classes=CLASSES)
    assert import_model(tmp_path / "repository", "lazy", source).is_dir()


def changed(**changes: Any) -> Write:
    def write(path: Path, node: CfgNode) -> None:
        data = yaml.safe_load(node.dump())
        for key, value in changes.items():
            *sections, last = key.split("__")
            part = data
            for section in sections:
                part = part.setdefault(section, {})
            part[last] = value
        path.write_text(yaml.safe_dump(data))

    return write


def text(content: str) -> Write:
    return lambda path, _node: path.write_text(content)


def appended(line: str) -> Write:
    return lambda path, node: path.write_text(f"{node.dump()}{line}\n")


def lazy_with(old: str, new: str) -> Write:
    def write(path: Path, _node: CfgNode) -> None:
        LazyConfig.save(LazyConfig.load(str(LAZY)), str(path))
        saved = path.read_text()
        assert old in saved
        path.write_text(saved.replace(old, new))

    return write


def bomb(path: Path, _node: CfgNode) -> None:
    lines = [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 40)]
    path.write_text("\n".join(["a0: &a0 [x]", *lines]))


REFUSED: dict[str, tuple[Write, Check, str]] = {
    "an empty file": (text(""), Check.CONFIG_UNREADABLE, "is empty"),
    "comments alone": (text("# nothing\n"), Check.CONFIG_UNREADABLE, "is empty"),
    "null": (text("~\n"), Check.CONFIG_UNREADABLE, "holds nothing"),
    "a list": (text("- 1\n"), Check.CONFIG_UNREADABLE, "holds a list"),
    "a text": (text("mask_rcnn\n"), Check.CONFIG_UNREADABLE, "holds a text"),
    "a number": (text("5\n"), Check.CONFIG_UNREADABLE, "holds the value 5"),
    "two documents": (text("MODEL: {}\n---\nMODEL: {}\n"), Check.CONFIG_UNREADABLE, "line 2.*single document|another"),
    "a folder": (lambda path, _node: path.mkdir(), Check.CONFIG_UNREADABLE, "is a folder"),
    "weights": (lambda path, _node: path.write_bytes(bytes(6_000_000)), Check.CONFIG_UNREADABLE, "6000000 bytes"),
    "a loop": (text("_BASE_: config.yaml\n"), Check.CONFIG_UNREADABLE, "a base of itself"),
    "no base": (text("_BASE_: nowhere.yaml\n"), Check.CONFIG_UNREADABLE, "the base nowhere.yaml, but"),
    "the zoo's base": (
        text('_BASE_: "../Base-RCNN-FPN.yaml"\n'),
        Check.CONFIG_UNREADABLE,
        "contains one of that name: _BASE_: /.*Base-RCNN-FPN.yaml",
    ),
    "a base elsewhere": (text("_BASE_: https://x/y.yaml\n"), Check.CONFIG_UNREADABLE, "nothing is downloaded"),
    "a number as base": (text("_BASE_: 5\n"), Check.CONFIG_UNREADABLE, "the value 5 as _BASE_, not a file"),
    "Latin-1": (lambda path, _node: path.write_bytes(b"A: 1\nB: caf\xe9\n"), Check.CONFIG_UNREADABLE, "0xe9 in line 2"),
    "a tab": (text("MODEL:\n\tMASK_ON: true\n"), Check.CONFIG_UNREADABLE, "line 2, column 1"),
    "a key twice": (appended("SEED: 1"), Check.CONFIG_UNREADABLE, "the key 'SEED' twice, in lines"),
    "an open bracket": (text("MODEL: [1\n"), Check.CONFIG_UNREADABLE, "is not YAML"),
    "an unknown anchor": (text("MODEL: *x\n"), Check.CONFIG_UNREADABLE, "undefined alias"),
    "an anchor within itself": (text("MODEL: &x [*x]\n"), Check.CONFIG_UNREADABLE, "an anchor that holds itself"),
    "a bomb of anchors": (bomb, Check.CONFIG_UNREADABLE, "more than 100000 values, with its anchors expanded"),
    "brackets without end": (text("[" * 20_000), Check.CONFIG_UNREADABLE, "nested too deeply"),
    "another type": (changed(MODEL__MASK_ON="yes"), Check.CONFIG_UNREADABLE, "MASK_ON"),
    "a value for a section": (changed(MODEL__FPN=3), Check.CONFIG_UNREADABLE, "FPN"),
    "no model": (text("DATASETS: {TRAIN: 5}\n"), Check.CONFIG_UNREADABLE, "TRAIN"),
    "a version to come": (changed(VERSION=9), Check.CONFIG_UNREADABLE, "v9"),
    "a command": (
        appended("RUN: !!python/object/apply:os.system ['touch it-ran']"),
        Check.CONFIG_IS_PROGRAM,
        "would call os.system for RUN; .*",
    ),
    "an expression": (
        appended("RUN: !!python/object/apply:eval ['1+1']\nALSO: [!!python/name:os.system '']\nOWN: !mine 5"),
        Check.CONFIG_IS_PROGRAM,
        "eval for RUN, os.system for ALSO.0, !mine for OWN;",
    ),
    "a lazy config that asks for more than its own values": (
        lazy_with("input_format: BGR", "input_format: ${oc.env:HOME}"),
        Check.CONFIG_IS_PROGRAM,
        "HOME.* for model.input_format",
    ),
    "a lazy config without its loader": (
        lazy_with("dataloader:", "loader:"),
        Check.CONFIG_UNREADABLE,
        "no dataloader.test.mapper with image_format and augmentations",
    ),
    "a lazy config without a target": (
        text("model: {a: 1}\n"),
        Check.CONFIG_UNREADABLE,
        "no `model` with a `_target_`",
    ),
    "an unknown reference": (
        lazy_with("input_format: BGR", "input_format: ${..nowhere}"),
        Check.CONFIG_UNREADABLE,
        "nowhere",
    ),
    "a key of their own": (changed(SOLVER__EARLY_STOP=True), Check.CONFIG_KEYS_UNKNOWN, "SOLVER.EARLY_STOP;"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_config_is_refused_with_its_reason(kind: str, node: CfgNode, tmp_path: Path) -> None:
    write, check, told = REFUSED[kind]
    write(tmp_path / "config.yaml", node)
    with pytest.raises(LoadRefusedError, match=told) as caught:
        resolve(str(tmp_path / "config.yaml"))
    assert caught.value.check is check
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


def test_all_keys_that_are_unknown_are_told_at_once_and_may_be_left_out(
    node: CfgNode, right: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    own = {"SOLVER__EARLY_STOP": True, "WANDB": {"PROJECT": "x"}, "TEST__MINE": 1, "DATASETS__MY": [1]}
    changed(**own)(path, node)
    with pytest.raises(LoadRefusedError, match=r"has DATASETS.MY, SOLVER.EARLY_STOP, TEST.MINE, WANDB;") as caught:
        resolve(str(path))
    ((flag, keys),) = caught.value.flags
    assert flag == "--ignore-keys"
    assert resolve(str(path), ignore=keys.split(",")) == right


def test_no_key_of_the_model_may_be_left_out_but_a_plugins(node: CfgNode, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    changed(MODEL__ROI_HEADS__MINE=1, INPUT__GREY=True, SOLVER__MINE=1)(path, node)
    with pytest.raises(
        LoadRefusedError, match=r"correct INPUT.GREY, MODEL.ROI_HEADS.MINE, and drop the others"
    ) as caught:
        resolve(str(path))
    assert not caught.value.flags
    for key in ("MODEL.ROI_HEADS.MINE", "INPUT.GREY", "MODEL.MASK_ON", "TEST.DETECTIONS_PER_IMAGE"):
        with pytest.raises(LoadRefusedError, match=f"--ignore-keys names {key}, which affects"):
            resolve(str(path), ignore=[key])
    with pytest.raises(LoadRefusedError, match=r"has no key SOLVER.NOWHERE, which --ignore-keys names"):
        resolve(str(path), ignore=["SOLVER.NOWHERE"])
    project = plain(config("project"))
    project["MODEL"]["SCALED_HEAD"]["NEWER"] = 1
    path.write_text(yaml.safe_dump(project))
    with pytest.raises(LoadRefusedError, match=r"has MODEL.SCALED_HEAD.NEWER;") as caught:
        resolve(str(path), [PLUGINS["project"]])
    assert caught.value.flags == [("--ignore-keys", "MODEL.SCALED_HEAD.NEWER")]
    resolved = resolve(str(path), [PLUGINS["project"]], ignore=["MODEL.SCALED_HEAD.NEWER"])
    assert resolved == plain(config("project"))


def test_a_project_that_fails_is_named(node: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(node.dump())
    monkeypatch.syspath_prepend(tmp_path)
    for name, content in {
        "fails_when_imported": "1 / 0",
        "ends": "raise SystemExit(3)",
        "fails_to_extend": "def add_my_config(cfg):\n    cfg.NOWHERE.X = 1",
        "is_no_python": "def",
    }.items():
        (tmp_path / f"{name}.py").write_text(content)
        with pytest.raises(LoadRefusedError, match=f"PLUGIN_MISSING: {name}.* fails"):
            resolve(str(path), [name])
    (tmp_path / "lazy.py").write_text("raise SystemExit(3)")
    with pytest.raises(LoadRefusedError, match=r"CONFIG_UNREADABLE: .*SystemExit"):
        resolve(str(tmp_path / "lazy.py"), run=True)


def test_the_command_that_is_suggested_works(node: CfgNode, tmp_path: Path) -> None:
    changed(SOLVER__EARLY_STOP=True, WANDB={})(tmp_path / "config.yaml", node)
    refused = run_import(tmp_path, tmp_path / "m.pth", cfg=tmp_path / "config.yaml")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    flags = line.rpartition("try: vedette-server import ")[2].split()[-2:]
    assert flags == ["--ignore-keys", "SOLVER.EARLY_STOP,WANDB"]
    again = run_import(tmp_path, tmp_path / "m.pth", *flags, cfg=tmp_path / "config.yaml")
    assert "WEIGHTS_UNREADABLE" in again.stderr, "the config is accepted"

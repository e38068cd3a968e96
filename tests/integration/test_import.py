"""Importing models: what is whole goes in, what is damaged is refused with its reason, and nothing in it is run."""

import os
import pickle
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from safetensors.torch import save_file
from vedette_client import Client
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor.config import plain
from vedette_server.predictor.predictor import load
from vedette_server.predictor.reference import default_predictor
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import commands, forking, running
from tests.support.families import CLASSES, PLUGINS, STUFF, ZOO, class_names, config, model
from tests.support.importing import arguments, run_import, write_config

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """The tensors of a small Mask R-CNN."""
    return {name: value.clone() for name, value in model("mask_rcnn").state_dict().items()}


def import_here(
    folder: Path,
    weights: Path,
    cfg: Path | None = None,
    classes: str | None = ",".join(CLASSES),
    golden: Path | None = None,
    **options: Any,
) -> Path:
    """Import as the command does, in this process."""
    path = cfg or write_config(folder)
    names = classes.split(",") if classes is not None else None
    return import_model(
        folder / "repository", "model", ModelSource(config=str(path), weights=weights, classes=names, **options), golden
    )


def assert_refused(check: Check, folder: Path, weights: Path, **options: Any) -> None:
    with pytest.raises(LoadRefusedError) as caught:
        import_here(folder, weights, **options)
    assert caught.value.check is check, caught.value
    assert not list(folder.glob("repository/model/[!m]*")), "something was left behind"


def zoo_pickle(path: Path, state: State) -> None:
    arrays = {name: value.numpy() for name, value in state.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))


_LAST_BLOCKS = {"2": 2, "3": 3, "4": 5, "5": 2}  # of each stage of a ResNet-50


def _caffe2(state: State) -> Iterator[tuple[str, Any]]:
    """A state under Caffe2's names, with its background class first and its boxes' classes with a background."""
    for name, value in state.items():
        array = value.numpy()
        if "running_" in name or "cell_anchors" in name or name.startswith("pixel_"):
            continue
        if "cls_score" in name:
            array = np.concatenate([array[-1:], array[:-1]])
        if "bbox_pred" in name and "roi_heads" in name:
            array = np.concatenate([np.zeros_like(array[:4]), array])
        yield _caffe2_name(name), array


def _caffe2_name(name: str) -> str:
    kind = {"weight": "w", "bias": "b"}[name.rpartition(".")[2]]
    norm = {"w": "s", "b": "b"}[kind]
    if found := re.fullmatch(r"backbone\.bottom_up\.stem\.conv1\.(norm\.)?\w+", name):
        return f"res_conv1_bn_{norm}" if found[1] else f"conv1_{kind}"
    if found := re.fullmatch(r"backbone\.bottom_up\.res(\d)\.(\d)\.(shortcut|conv(\d))\.(norm\.)?\w+", name):
        stage, block, part, number, is_norm = found.groups()
        branch = "branch1" if part == "shortcut" else f"branch2{'abc'[int(number) - 1]}"
        return f"res{stage}_{block}_{branch}_bn_{norm}" if is_norm else f"res{stage}_{block}_{branch}_{kind}"
    if found := re.fullmatch(r"backbone\.fpn_(lateral|output)(\d)\.\w+", name):
        side, stage = found.groups()
        lateral = "" if stage == "5" else "_lateral"
        block = f"res{stage}_{_LAST_BLOCKS[stage]}_sum"
        return f"fpn_inner_{block}{lateral}_{kind}" if side == "lateral" else f"fpn_{block}_{kind}"
    for today, then in (
        ("proposal_generator.rpn_head.conv", "conv_rpn_fpn2"),
        ("proposal_generator.rpn_head.objectness_logits", "rpn_cls_logits_fpn2"),
        ("proposal_generator.rpn_head.anchor_deltas", "rpn_bbox_pred_fpn2"),
        ("roi_heads.box_head.fc1", "fc6"),
        ("roi_heads.box_head.fc2", "fc7"),
        ("roi_heads.box_predictor.cls_score", "cls_score"),
        ("roi_heads.box_predictor.bbox_pred", "bbox_pred"),
    ):
        if name.startswith(today):
            return f"{then}_{kind}"
    raise AssertionError(name)


def training_checkpoint(path: Path, state: State) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(3)
    optimizer.step()
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "iteration": 7}, path)


@dataclass(frozen=True)
class Kind:
    """A way in which a checkpoint comes."""

    file: str
    write: Callable[[Path, State], object]
    key: str | None = None
    family: str = "mask_rcnn"

    @property
    def options(self) -> dict[str, Any]:
        plugin = PLUGINS.get(self.family)
        return {"weights_key": self.key, "plugins": (plugin,) if plugin else ()}


KINDS = {
    "a zoo pickle": Kind("model.pkl", zoo_pickle),
    "a training checkpoint": Kind("model.pth", training_checkpoint),
    "a distributed model, wrapped": Kind(
        "model.pth",
        lambda path, state: torch.save(
            {"state_dict": {f"module.{name}": value for name, value in state.items()}}, path
        ),
    ),
    "an EMA beside the model": Kind(
        "model.pth",
        lambda path, state: torch.save(
            {"model": {name: value * 0 for name, value in state.items()}, "ema_state": state}, path
        ),
        key="ema_state",
    ),
    "a project's": Kind("model.pth", lambda path, state: torch.save(state, path), family="project"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_in_whole(kind: str, state: State, tmp_path: Path) -> None:
    form = KINDS[kind]
    form.write(tmp_path / form.file, state)
    cfg = write_config(tmp_path, form.family)
    assert import_here(tmp_path, tmp_path / form.file, cfg, **form.options) == tmp_path / "repository/model/1"
    loaded = default_predictor(tmp_path / "repository/model/1").model.state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("family", ZOO)
def test_every_family_goes_in_whole(family: str, tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in model(family).state_dict().items()}
    training_checkpoint(tmp_path / "model.pth", weights)
    folder = import_here(
        tmp_path,
        tmp_path / "model.pth",
        write_config(tmp_path, family),
        ",".join(class_names(family)),
        stuff=STUFF if family == "panoptic_fpn" else None,
        keypoints=[f"point{number}" for number in range(17)] if family == "keypoint_rcnn" else None,
    )
    loaded = default_predictor(folder).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_caffe2_pickle_goes_in_under_the_names_of_today(tmp_path: Path) -> None:
    """The zoo's oldest format: names of another framework, means of training beside the weights, one class first."""
    cfg = config("faster_rcnn")
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain(cfg)))
    torch.manual_seed(3)
    built = build_model(cfg)
    for name, buffer in built.named_buffers():
        if "norm.weight" in name or "norm.bias" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
        if "running_var" in name:
            buffer.fill_(1)
    blobs = dict(_caffe2(built.state_dict()))
    blobs["fpn_inner_res5_2_sum_w_momentum"] = blobs["fpn_inner_res5_2_sum_w"]
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"blobs": blobs, "cfg": "a text"}))
    folder = import_here(tmp_path, tmp_path / "model.pkl", path)
    loaded = default_predictor(folder).model.state_dict()
    for name, value in built.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_an_imported_model_is_served_with_its_golden_images(tmp_path: Path) -> None:
    """The bundled model's own weights, imported again: its answers are those that it gives where it came from."""
    source = BUNDLED_REPOSITORY / "roadsigns" / "1"
    (tmp_path / "golden").mkdir()
    for seed in (3_000_001, 3_000_022):
        (tmp_path / "golden" / f"{seed}.jpg").write_bytes(jpeg(scenes.draw(scenes.describe(seed)).pixels))
    names = "stop,yield,warning,parking,mandatory,speed_limit"
    for version in (1, 2):
        given = arguments(
            tmp_path,
            source / "model.safetensors",
            source / "config.yaml",
            names,
            *("--golden", str(tmp_path / "golden")),
        )
        ran = commands.run(commands.SERVER, *given)
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


@dataclass(frozen=True)
class Damage:
    """A way in which a model is broken, and the check that finds it."""

    check: Check
    state: Callable[[State], State] = lambda state: state
    cfg: dict[str, Any] = field(default_factory=dict)
    classes: str = ",".join(CLASSES)
    file: Callable[[bytes], bytes] = lambda data: data


DAMAGES = {
    "a tensor dropped": Damage(Check.TENSORS_MISSING, lambda state: without(state, HEAD)),
    "a tensor renamed": Damage(
        Check.TENSORS_MISSING, lambda state: {name.replace("fc1", "fc9"): value for name, value in state.items()}
    ),
    "a tensor reshaped": Damage(
        Check.TENSORS_MISSHAPEN,
        lambda state: damaged(state, "roi_heads.box_head.fc1.weight", torch.zeros(64, 7)),
    ),
    "NaN": Damage(Check.VALUES_NOT_FINITE, lambda state: damaged(state, HEAD, state[HEAD] * float("nan"))),
    "classes off by one": Damage(Check.CLASS_COUNT, cfg={"MODEL__ROI_HEADS__NUM_CLASSES": 6}, classes="a,b,c,d,e,f"),
    "a switch flipped": Damage(Check.SWITCH_DISAGREES, cfg={"MODEL__MASK_ON": False}),
    "the backbone alone": Damage(
        Check.BACKBONE_ONLY,
        lambda state: {name: value for name, value in state.items() if name.startswith("backbone.bottom_up")},
    ),
    "empty": Damage(Check.WEIGHTS_EMPTY, lambda _state: {}),
    "a truncated file": Damage(Check.WEIGHTS_UNREADABLE, file=lambda data: data[:-1000]),
    "a tensor too many": Damage(Check.TENSORS_UNEXPECTED, lambda state: damaged(state, "neck.weight", torch.ones(2))),
    "infinite": Damage(Check.VALUES_NOT_FINITE, lambda state: damaged(state, HEAD, state[HEAD] + float("inf"))),
    "the mask head gone": Damage(Check.SWITCH_DISAGREES, lambda state: without(state, "mask_head")),
    "keypoints switched on": Damage(Check.SWITCH_DISAGREES, cfg={"MODEL__KEYPOINT_ON": True}),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_model_is_refused(kind: str, damage: str, state: State, tmp_path: Path) -> None:
    form, broken = KINDS[kind], DAMAGES[damage]
    weights = tmp_path / form.file
    form.write(weights, broken.state(state))
    weights.write_bytes(broken.file(weights.read_bytes()))
    cfg = write_config(tmp_path, form.family, **broken.cfg)
    assert_refused(broken.check, tmp_path, weights, cfg=cfg, classes=broken.classes, **form.options)


WAIVED = {
    "TENSORS_MISSING": lambda state: without(state, HEAD),
    "TENSORS_UNEXPECTED": lambda state: damaged(state, "neck.weight", torch.ones(2)),
    "VALUES_NOT_FINITE": lambda state: damaged(state, HEAD, state[HEAD] * float("nan")),
}


@pytest.mark.parametrize("name", WAIVED)
def test_a_check_is_waived_by_its_name_alone(name: str, state: State, tmp_path: Path) -> None:
    torch.save(WAIVED[name](state), tmp_path / "model.pth")
    settings = tmp_path / "repository" / "model" / "model.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('waivers = ["SCORES_FLAT"]\n')
    assert_refused(Check[name], tmp_path, tmp_path / "model.pth")
    settings.write_text(f'waivers = ["{name}"]\n')
    import_here(tmp_path, tmp_path / "model.pth")
    (version,) = repository.read(tmp_path / "repository")
    assert version.contract.waivers == (Check[name],)
    load(version.folder, version.contract, device="cpu", threads=1)


def test_what_is_no_mapping_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "model.pth")
    assert_refused(Check.WEIGHTS_EMPTY, tmp_path, tmp_path / "model.pth")


CONFIGS: dict[str, tuple[dict[str, Any], str, Check]] = {
    "a name too few": ({}, "a,b,c,d", Check.CLASS_COUNT),
    "a threshold that nothing exceeds": (
        {"MODEL__ROI_HEADS__SCORE_THRESH_TEST": 1.0},
        ",".join(CLASSES),
        Check.ALWAYS_EMPTY,
    ),
    "no detections": ({"TEST__DETECTIONS_PER_IMAGE": 0}, ",".join(CLASSES), Check.ALWAYS_EMPTY),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_disagrees_is_refused(case: str, tmp_path: Path) -> None:
    changes, classes, check = CONFIGS[case]
    cfg = write_config(tmp_path, **changes)
    torch.save(build_model(CfgNode(yaml.safe_load(cfg.read_text()))).state_dict(), tmp_path / "model.pth")
    assert_refused(check, tmp_path, tmp_path / "model.pth", cfg=cfg, classes=classes)


def test_truncated_safetensors_are_refused(state: State, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    save_file(state, weights)
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(Check.WEIGHTS_UNREADABLE, tmp_path, weights)


class Bomb:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_that_would_run_a_command_is_refused_and_does_not(kind: str, state: State, tmp_path: Path) -> None:
    form, proof = KINDS[kind], tmp_path / "it-ran"
    weights = tmp_path / form.file
    content = {form.key or "model": {name: value.numpy() for name, value in state.items()}, "extra": Bomb(proof)}
    if weights.suffix == ".pth":
        torch.save(content, weights)
    else:
        weights.write_bytes(pickle.dumps(content))
    flags = [flag for plugin in form.options["plugins"] for flag in ("--plugin", plugin)]
    ran = run_import(tmp_path, weights, *flags, cfg=write_config(tmp_path, form.family))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1].startswith("vedette-server: WEIGHTS_UNSAFE: ")
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


@pytest.mark.timeout(900)  # twenty-two imports, one after the other
def test_a_killed_import_leaves_the_repository_whole(state: State, tmp_path: Path) -> None:
    """kill -9 at twenty moments of an import: before each version is whole there is none, after it there is."""
    torch.save(state, tmp_path / "model.pth")
    run = arguments(tmp_path, tmp_path / "model.pth", write_config(tmp_path), ",".join(CLASSES))
    rng, importing = random.Random(5), forking.parent()  # noqa: S311  moments, not secrets
    importing.begin(*run)
    started = time.monotonic()
    assert importing.end() == 0
    whole = time.monotonic() - started
    ends = []
    for _ in range(20):
        process = importing.begin(*run)
        time.sleep(rng.uniform(0, 1.05) * whole)  # any moment is one at which a machine may fail
        os.kill(process, signal.SIGKILL)
        ends.append(importing.end())
        versions = repository.read(tmp_path / "repository")
        assert [item.version for item in versions] == list(range(1, len(versions) + 1))
        assert len(versions) > ends.count(0), "what ended well is there"
    assert -signal.SIGKILL in ends
    importing.begin(*run)
    assert importing.end() == 0
    assert not list((tmp_path / "repository" / "model").glob(".import-*")), "what killed imports left is not cleared"

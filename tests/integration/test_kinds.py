"""Models beyond the usual families: served with the numbers of Detectron2's `DefaultPredictor`, or refused by name."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.evaluation.rotated_coco_evaluation import RotatedCOCOEvaluator
from detectron2.structures import BitMasks, Instances
from PIL import Image
from vedette_client import Client, Result, VedetteError, drawing
from vedette_server.contract.answer import Detections
from vedette_server.contract.contract import Output
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import Asked, resolve
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor import plugins
from vedette_server.predictor.config import plain
from vedette_server.predictor.predictor import Predictor, load
from vedette_server.repository import repository
from vedette_server.repository.golden import difference, tolerance

from tests.support import forking, kinds, running
from tests.support.families import CLASSES, STUFF
from tests.support.kinds import KINDS
from tests.support.reference import bgr, default_predictor, one_thread

__all__ = ["one_thread"]  # a fixture for every test here

PLUGINS = sorted({name for kind in KINDS.values() for name in kind.plugins})
RETURNED = ("proposals", "rotated_proposals", "set", "masks")  # selected from behind
DETECT = [name for name in KINDS if name != "semantic"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of all kinds, imported with a golden picture each."""
    root = tmp_path_factory.mktemp("kinds") / "repository"
    golden = root.parent / "golden"
    golden.mkdir()
    Image.fromarray(bgr(12)[:, :, ::-1]).save(golden / "scene.png")
    for name in KINDS:
        kinds.write(root, name, golden=golden)
    return root


@pytest.fixture(scope="module")
def server(repo: Path) -> Iterator[running.Server]:
    allowed = [flag for plugin in PLUGINS for flag in ("--plugin", plugin)]
    with running.server("--repository", str(repo), "--threads", "1", *allowed) as running_server:
        yield running_server


def reference(repo: Path, name: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Detectron2's own output, its objects as `Instances` whatever they are called."""
    output: dict[str, Any] = default_predictor(repo / name / "1", changes)(bgr())
    if "proposals" in output:
        found = output["proposals"]
        logits = found.objectness_logits
        output["instances"] = Instances(
            found.image_size,
            pred_boxes=found.proposal_boxes,
            scores=1 / (1 + torch.exp(-logits)),
            pred_classes=torch.zeros(len(logits), dtype=torch.long),
        )
    return output


def chosen(found: Any, threshold: float = 0.0, classes: Sequence[int] = (), most: int | None = None) -> Any:
    """The returned objects that must be served: best first, strictly above the threshold, of the classes, capped."""
    found = found[found.scores.argsort(descending=True, stable=True)]
    if threshold:
        found = found[found.scores > threshold]
    if classes:
        found = found[torch.isin(found.pred_classes, torch.tensor(classes))]
    return found[:most]


def assert_same(result: Result, found: Any) -> None:
    assert len(result) == len(found)
    assert result.class_ids.tolist() == found.pred_classes.tolist()
    np.testing.assert_allclose(result.scores, found.scores.numpy(), atol=1e-6, rtol=0)
    boxes = found.pred_boxes.tensor.numpy()
    if boxes.shape[1] == 5:
        np.testing.assert_allclose(result.rotated_boxes, boxes, atol=1e-3, rtol=0)
    elif found.has("pred_masks") and not boxes.any():
        boxes = BitMasks(found.pred_masks > 0.5).get_bounding_boxes().tensor.numpy()
    if boxes.shape[1] == 4:
        np.testing.assert_allclose(result.boxes, boxes, atol=1e-3, rtol=0)
    if found.has("pred_masks"):
        for one, mask in zip(result, found.pred_masks.numpy(), strict=True):
            assert one.mask is not None
            np.testing.assert_array_equal(one.mask.decode(), mask > 0.5)


@pytest.mark.parametrize("name", DETECT)
def test_a_kind_answers_as_detectron2_does(name: str, repo: Path, server: running.Server) -> None:
    found = reference(repo, name)["instances"]
    assert len(found) > 5, "a comparison of nothing with nothing proves nothing"
    found = chosen(found) if name in RETURNED else found
    with Client(server.address) as client:
        assert_same(client.detect(bgr(), pixel_format="BGR8", model=name), found)


@pytest.mark.parametrize("name", DETECT)
def test_threshold_classes_and_cap_are_exact(name: str, repo: Path, server: running.Server) -> None:
    key = {"TEST.DETECTIONS_PER_IMAGE": 100_000}
    everything = reference(repo, name, key)["instances"]
    middle = float(np.round(np.median(everything.scores.numpy()), 4))
    class_id = int(everything.pred_classes.mode().values)
    with Client(server.address) as client:
        floor = client.model(name).contract.floor
        assert floor == (0.0 if name in RETURNED else 0.05)
        above = (
            everything
            if name in RETURNED
            else reference(repo, name, {**key, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": middle})["instances"]
        )
        for classes, most in (((), None), ((class_id,), None), ((), 7), ((class_id,), 3)):
            limit = most or client.model(name).contract.max_detections
            wanted = chosen(above, middle, classes, limit)
            assert len(wanted)
            ask: Any = {"classes": classes} | ({"max_detections": most} if most else {})
            assert_same(client.detect(bgr(), pixel_format="BGR8", model=name, threshold=middle, **ask), wanted)


def test_rotated_boxes_are_served_as_detectron2_writes_them(repo: Path, server: running.Server) -> None:
    found = reference(repo, "rotated")["instances"]
    angles = found.pred_boxes.tensor[:, 4]
    assert angles.abs().max() > 10, "or nothing is turned"
    with Client(server.address) as client:
        result = client.detect(bgr(), pixel_format="BGR8", model="rotated")
        plain_boxes = client.detect(bgr(), pixel_format="BGR8", model="rotated", outputs=["boxes"])
        assert client.model("rotated").contract.outputs == ("boxes", "rotated_boxes")
    assert result.to_coco(7) == RotatedCOCOEvaluator.instances_to_json(None, found, 7)
    assert all(one.rotated_box is None for one in plain_boxes)
    np.testing.assert_array_equal(plain_boxes.boxes, result.boxes)
    height, width = bgr().shape[:2]
    for one in result:
        assert one.rotated_box is not None
        corners = one.rotated_box.corners().clip(0, (width, height))
        wanted = (*corners.min(axis=0), *corners.max(axis=0))
        assert one.box == pytest.approx(wanted, abs=0.01), "the upright rectangle around it, within the image"
    picture = Image.fromarray(bgr()[:, :, ::-1])
    drawn = drawing.annotate(picture, result)
    assert np.asarray(drawn).shape == np.asarray(picture).shape
    assert (np.asarray(drawn) != np.asarray(picture)).any()


def test_a_semantic_model_answers_as_detectron2_does(repo: Path, server: running.Server) -> None:
    wanted = reference(repo, "semantic")["sem_seg"].argmax(dim=0).numpy()
    assert len(np.unique(wanted)) > 1
    with Client(server.address) as client:
        contract = client.model("semantic").contract
        result = client.detect(bgr(), pixel_format="BGR8", model="semantic")
        with pytest.raises(VedetteError, match="OUTPUT_NOT_PRODUCED"):
            client.detect(bgr(), pixel_format="BGR8", model="semantic", outputs=["boxes"])
        with pytest.raises(VedetteError, match="OUTPUT_NOT_PRODUCED"):
            client.diagnose(bgr(), pixel_format="BGR8", model="semantic")
    assert (contract.outputs, contract.class_names, contract.stuff_class_names) == (("semantic",), (), STUFF)
    assert result.class_map is not None
    np.testing.assert_array_equal(result.class_map, wanted)
    assert result.empty is None, "a model that finds no objects has not failed to find any"
    assert not result.findings
    assert running.sample(server, 'vedette_answers_total{model="semantic",stream="",version="1"}') >= 0
    assert not running.sample(server, 'vedette_empty_answers_total{model="semantic"')


def test_all_that_a_model_of_queries_returns_is_served(repo: Path, server: running.Server) -> None:
    output = reference(repo, "masks")
    with Client(server.address) as client:
        result = client.detect(bgr(), pixel_format="BGR8", model="masks")
        contract = client.model("masks").contract
    assert contract.outputs == ("boxes", "masks", "panoptic", "semantic")
    assert contract.own_threshold
    assert result.class_map is not None
    np.testing.assert_array_equal(result.class_map, output["sem_seg"].argmax(dim=0).numpy())
    labels, segments = output["panoptic_seg"]
    assert segments
    assert result.panoptic is not None
    np.testing.assert_array_equal(result.panoptic.segment_map, labels.numpy())
    told = [(one.id, one.is_thing, one.class_id) for one in result.panoptic.segments]
    assert told == [(one["id"], one["isthing"], one["category_id"]) for one in segments]
    for one in result.panoptic.segments:
        assert one.class_name == contract.stuff_class_names[one.class_id]


def test_proposals_are_boxes_of_one_class(server: running.Server) -> None:
    with Client(server.address) as client:
        contract = client.model("proposals").contract
        result = client.detect(bgr(), pixel_format="BGR8", model="proposals")
    assert contract.class_names == ("object",)
    assert not contract.own_threshold, "a proposal network has none: it gives its best ones"
    assert {one.class_name for one in result} == {"object"}
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)


def test_evidence_says_what_it_cannot_see(server: running.Server) -> None:
    with Client(server.address) as client:
        behind = client.detect(bgr(), pixel_format="BGR8", model="set", threshold=1.0)
        within = client.detect(bgr(), pixel_format="BGR8", model="vit", threshold=1.0)
        everything = client.detect(bgr(), pixel_format="BGR8", model="set")
        diagnosis = client.diagnose(bgr(), pixel_format="BGR8", model="set", threshold=0.99)
    assert behind.empty is not None
    assert within.empty is not None
    assert behind.empty.best_score == pytest.approx(everything.scores[0])
    assert behind.empty.counts.candidates == behind.empty.suppressed == len(everything)
    told = "below the model's own threshold are invisible"
    assert (told in behind.findings[-1].evidence) == (behind.findings[-1].code == "QUIET_SCENE")
    assert all(told not in finding.evidence for finding in within.findings)
    assert diagnosis.candidates


def test_golden_images_hold_every_kind(repo: Path) -> None:
    """Each passes as it was imported; one whose boxes have turned, or whose pixels have other classes, does not."""
    for name in ("rotated", "semantic", "masks"):
        version = repository.find(repo, name, plugins=PLUGINS)
        predictor = load(version.folder, version.contract, "cpu", 1)
        (golden,) = version.golden
        options = resolve(Asked(), version.contract)
        answer = predictor.predict(SentImage(EncodedImage(), golden.data), options)
        allowed = tolerance("exact")
        assert difference(golden, answer, allowed) is None
        if name == "rotated":
            assert all(item.rotated_box for item in golden.objects)
            assert answer.detections.rotated is not None
            turned = answer.detections.rotated.copy()
            turned[:, 4] += 3
            changed: Detections = dataclasses.replace(answer.detections, rotated=turned)
            assert "lies at" in (difference(golden, dataclasses.replace(answer, detections=changed), allowed) or "")
            around = dataclasses.replace(answer.detections, rotated=turned + np.array((0, 0, 0, 0, 357), np.float32))
            assert difference(golden, dataclasses.replace(answer, detections=around), allowed) is None
        else:
            assert golden.labels is not None
            other = predictor.predict(SentImage(EncodedImage(), golden.data), options)
            from vedette_server.predictor.encode import class_map

            blank = class_map(torch.zeros(answer.height, answer.width), len(version.contract.stuff_class_names))
            other = dataclasses.replace(other, class_map_png=blank)
            assert "of the pixels have another class" in (difference(golden, other, allowed) or "")


@pytest.mark.parametrize("name", ["set", "masks", "semantic", "proposals"])
def test_values_that_are_not_finite_are_seen_in_every_kind(name: str, repo: Path) -> None:
    version = repository.find(repo, name, plugins=PLUGINS)
    network: Any = kinds.model(name)
    part = {"semantic": "sem_seg_head.predictor", "proposals": "proposal_generator.rpn_head.conv"}.get(
        name, "class_embed"
    )
    with torch.no_grad():
        network.get_parameter(f"{part}.bias").fill_(math.nan)
    predictor = Predictor(network, version.contract)
    options = resolve(Asked(threshold=0.0), version.contract)
    answer = predictor.predict(SentImage(EncodedImage(), version.golden[0].data), options)
    assert part.startswith(answer.evidence.not_finite)
    assert answer.evidence.not_finite
    assert not len(answer.detections)


@pytest.mark.parametrize(("name", "what"), [("rotated", "ROIAlignRotated|RRPN"), ("deformable", "ModulatedDeformConv")])
def test_without_its_operators_a_model_is_refused_by_name(name: str, what: str, repo: Path, tmp_path: Path) -> None:
    files = repo.parent / "files"
    source = "--config", files / f"{name}.yaml", "--weights", files / f"{name}.pth"
    done = forking.run("import", "x", *source, "--classes", ",".join(CLASSES), "--repository", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "OPERATORS_MISSING" in done.stderr
    assert any(part in done.stderr for part in what.split("|"))
    assert "--plugin" in done.stderr
    assert not [*tmp_path.glob("*/*")]
    # Imported where they are, served where they are not.
    folder = tmp_path / "elsewhere" / name / "1"
    shutil.copytree(repo / name / "1", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "plugins": []}))
    done = forking.run("check", name, "--repository", tmp_path / "elsewhere")
    assert done.returncode != 0
    assert "OPERATORS_MISSING" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_needs_proposals_from_outside_is_refused_by_name(tmp_path: Path) -> None:
    config = "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml"
    cfg = get_cfg()
    from detectron2 import model_zoo

    cfg.merge_from_file(model_zoo.get_config_file(config))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    from detectron2.modeling import build_model

    cfg.MODEL.DEVICE = "cpu"
    (tmp_path / "fast.yaml").write_text(yaml.safe_dump(plain(cfg)))
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "fast.pth")
    with pytest.raises(LoadRefusedError, match=r"MODEL\.PROPOSAL_GENERATOR\.NAME is Precomputed") as caught:
        import_model(
            tmp_path / "r", "fast", ModelSource(config=str(tmp_path / "fast.yaml"), weights=tmp_path / "fast.pth")
        )
    assert caught.value.check is Check.PROPOSALS_EXTERNAL


def odd(
    folder: Path, returns: str, classes: tuple[str, ...] | None = ("a", "b"), stuff: Sequence[str] | None = None
) -> Path:
    cfg = get_cfg()
    plugins.extend(cfg, ["tests.plugins.odd"])
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ODD.RETURNS, cfg.MODEL.DEVICE = "Odd", returns, "cpu"
    cfg.DATASETS.TRAIN = ()
    (folder / "odd.yaml").write_text(yaml.safe_dump(plain(cfg)))
    torch.save(torch.nn.ModuleDict({"layer": torch.nn.Linear(1, 1)}).state_dict(), folder / "odd.pth")
    source = ModelSource(
        config=str(folder / "odd.yaml"),
        weights=folder / "odd.pth",
        classes=classes,
        stuff=stuff,
        plugins=("tests.plugins.odd",),
    )
    return import_model(folder / "repository", "odd", source)


@pytest.mark.parametrize(("returns", "check", "said"), [
    ("a dictionary", Check.OUTPUT_UNSERVABLE, "returns a dict for one picture, not a list"),
    ("other keys", Check.OUTPUT_UNSERVABLE, "returns pred_logits, pred_boxes: none of instances"),
    ("no scores", Check.OUTPUT_UNSERVABLE, "have no scores, only pred_boxes, pred_classes"),
    ("no classes", Check.OUTPUT_UNSERVABLE, "have no pred_classes"),
    ("no boxes", Check.OUTPUT_UNSERVABLE, "neither pred_boxes nor pred_masks"),
    ("the resized size", Check.OUTPUT_UNSERVABLE, "for an image of 241x352, but 240x352"),
    ("another class", Check.OUTPUT_UNSERVABLE, "objects of class 7, but has 2 names"),
    ("masks of their boxes", Check.OUTPUT_UNSERVABLE, "pred_masks have the shape"),
    ("no number", Check.OUTPUT_NOT_FINITE, "of a picture of 352 x 240 pixels, model produces non-finite values"),
    ("nothing at all", Check.INFERENCE_FAILS, "ZeroDivisionError: division by zero"),
])  # fmt: skip
def test_what_cannot_be_served_is_refused_at_import(returns: str, check: Check, said: str, tmp_path: Path) -> None:
    with pytest.raises(LoadRefusedError, match=said) as caught:
        odd(tmp_path, returns)
    assert caught.value.check is check


@pytest.mark.parametrize(("returns", "said"), [
    ("a small class map", r"sem_seg has the shape \(2, 60, 88\), not \(2, 240, 352\)"),
    ("labels alone", "the model's metadata has no label_divisor"),
])  # fmt: skip
def test_maps_that_cannot_be_served_are_refused_at_import(returns: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(LoadRefusedError, match=said) as caught:
        odd(tmp_path, returns, classes=None, stuff=("a", "b"))
    assert caught.value.check is Check.OUTPUT_UNSERVABLE


def test_a_model_whose_classes_nobody_names_is_asked_for_them(tmp_path: Path) -> None:
    with pytest.raises(LoadRefusedError, match="give --classes") as caught:
        odd(tmp_path, "objects", classes=None)
    assert caught.value.check is Check.NAMES_MISSING


def test_a_projects_own_threshold_is_the_floor(tmp_path: Path) -> None:
    """It is the floor, and rows that are not finite are dropped and counted, as Detectron2's own families do."""
    (tmp_path / "repository" / "odd").mkdir(parents=True)
    (tmp_path / "repository" / "odd" / "model.toml").write_text('waivers = ["OUTPUT_NOT_FINITE"]\n')
    odd(tmp_path, "no number")
    version = repository.find(tmp_path / "repository", "odd", plugins=("tests.plugins.odd",))
    contract = version.contract
    assert (contract.floor, contract.default_threshold, contract.own_threshold) == (0.25, 0.25, True)
    assert contract.outputs == (Output.BOXES,)
    predictor = load(version.folder, contract, "cpu", 1)
    path = tmp_path / "picture.png"
    Image.new("RGB", (80, 60)).save(path)
    answer = predictor.predict(SentImage(EncodedImage(), path.read_bytes()), resolve(Asked(), contract))
    assert answer.detections.scores.tolist() == pytest.approx([0.9, 0.3])
    assert answer.detections.class_ids.tolist() == [0, 1]
    assert answer.evidence.dropped == {"model": 1}

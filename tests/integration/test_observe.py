"""Observations of a model match what happened, recounted from a plain copy's outputs, and change no answer."""

import copy
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from vedette_server.contract.answer import Answer, Evidence
from vedette_server.contract.contract import Names
from vedette_server.contract.declaration import Produced
from vedette_server.contract.derive import derive
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import Asked, resolve
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.predictor.config import plain
from vedette_server.predictor.observe import place
from vedette_server.predictor.predictor import Inferred, Predictor
from vedette_server.predictor.seen import see

from tests.support import recount
from tests.support.families import PLUGINS, STUFF, ZOO, class_names, config, model
from tests.support.reference import one_thread

__all__ = ["one_thread"]  # a fixture for every test here

FAMILIES = (*ZOO, "point_rend")
FATES = ("overlapped", "suppressed", "filtered", "capped", "clipped")
ASKED = {
    "as configured": Asked(),
    "at the floor": Asked(threshold=0.05),
    "half": Asked(threshold=0.5),
    "nothing": Asked(threshold=1.0),
    "one class": Asked(threshold=0.3, class_ids=(0,)),
    "a few": Asked(threshold=0.2, max_detections=4),
    "few of some": Asked(threshold=0.25, class_ids=(0,), max_detections=2),
}


@functools.cache
def built(family: str) -> nn.Module:
    return model(family).eval()


def predictor(family: str, network: nn.Module | None = None, *, observe: bool = True) -> Predictor:
    names = Names(
        classes=("thing",) * 19 if family == "panoptic_deeplab" else class_names(family),
        stuff={"panoptic_fpn": STUFF, "panoptic_deeplab": ("thing",) * 19}.get(family, ()),
        keypoints=tuple(f"point{index}" for index in range(17)) if family == "keypoint_rcnn" else (),
    )
    contract = derive(plain(config(family)), names, plugins=(PLUGINS.get(family, ""),), source_digest="")
    return Predictor(network or copy.deepcopy(built(family)), contract, observe=observe)


def infer(one: Predictor, *asked: Asked) -> list[Inferred]:
    image = SentImage(EncodedImage(), picture())
    return one.infer([one.prepare(image, resolve(item, one._contract)) for item in asked])


@functools.cache
def picture() -> bytes:
    return jpeg(scenes.draw(scenes.describe(11)).pixels)


def counts(evidence: Evidence) -> dict[str, int]:
    return {name: getattr(evidence, name) for name in ("candidates", *FATES)}


def plain_run(network: Any, inferred: Inferred) -> tuple[recount.Seen, recount.Scored]:
    prepared = inferred.prepared
    seen, _ = recount.run(network, prepared.tensor, (prepared.height, prepared.width))
    return seen, recount.anchors(seen, network) if hasattr(network, "head") else recount.regions(seen, network)


def fates(scored: recount.Scored, inferred: Inferred, floor: float = 0.05) -> dict[str, int]:
    prepared = inferred.prepared
    height, width = prepared.tensor.shape[1:]
    sizes = ((height, width), (prepared.height, prepared.width))
    return recount.fates(scored, prepared.options, floor, sizes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_is_counted(family: str) -> None:
    observed, network = predictor(family), built(family)
    for asked in ASKED.values():
        (inferred,) = infer(observed, asked)
        if asked == Asked():
            seen, scored = plain_run(network, inferred)
            regions = None if family == "retinanet" else recount.proposals(seen, network.proposal_generator)
        evidence = inferred.evidence
        found = fates(scored, inferred, observed._contract.floor)
        assert counts(evidence) | {"detections": len(inferred.output["instances"])} == found, asked
        assert evidence.scored == len(scored.scores) > 50
        np.testing.assert_allclose(evidence.best_scores, scored.scores.max(axis=0), atol=1e-6)
        assert evidence.certainty == pytest.approx(scored.certainty, abs=1e-6)
        assert (evidence.dropped, evidence.not_finite) == ({}, "")
        assert (evidence.proposed, evidence.proposals) == (regions[:2] if regions else (None, None))
        assert evidence.proposals in (None, evidence.scored)


@pytest.mark.parametrize("family", [*FAMILIES, "panoptic_deeplab"])
def test_no_candidate_is_lost(family: str) -> None:
    observed, chance = predictor(family), np.random.default_rng(5)
    floor, classes = observed._contract.floor, len(observed._contract.class_names)
    asked = [
        Asked(
            threshold=float(chance.choice([floor, chance.uniform(floor, 1)])),
            class_ids=tuple(chance.choice(classes, chance.integers(1, classes + 1), replace=False).tolist()),
            max_detections=int(chance.integers(1, 20)),
        )
        for _ in range(3 if family == "panoptic_deeplab" else 12)
    ]
    for inferred in infer(observed, *asked):
        evidence = inferred.evidence
        assert min(counts(evidence).values()) >= 0
        parts = sum(getattr(evidence, name) for name in FATES)
        assert evidence.candidates == parts + len(inferred.output["instances"])


def assert_identical(one: Answer, other: Answer) -> None:
    np.testing.assert_array_equal(one.detections.boxes, other.detections.boxes)
    np.testing.assert_array_equal(one.detections.scores, other.detections.scores)
    np.testing.assert_array_equal(one.detections.class_ids, other.detections.class_ids)
    assert one.detections.masks == other.detections.masks
    if one.detections.keypoints is not None:
        np.testing.assert_array_equal(one.detections.keypoints, other.detections.keypoints)
    assert one.panoptic == other.panoptic
    assert one.class_map_png == other.class_map_png


@pytest.mark.parametrize("family", [*FAMILIES, "panoptic_deeplab"])
def test_an_answer_is_the_same_unobserved(family: str) -> None:
    observed, alone = predictor(family), predictor(family, observe=False)
    for batch in ([Asked()], [Asked(threshold=0.3, max_detections=5), Asked(threshold=0.1, class_ids=(0,))]):
        given = zip(infer(observed, *batch), infer(alone, *batch), strict=True)
        for one, other in given:
            assert_identical(observed.encode(one), alone.encode(other))
            assert len(one.evidence.best_scores) == len(observed._contract.class_names)
            blank = np.zeros(0, np.float32)  # compared apart
            assert vars(other.evidence) | {"best_scores": blank} == vars(Evidence(best_scores=blank))
            assert other.evidence.best_scores.shape == (0,)
    assert not any(module._forward_hooks for module in alone._model.modules())


BOTTOM, TOP = (
    ("backbone.bottom_up", "backbone.bottom_up.res3.0.conv1.weight"),
    ("backbone", "backbone.fpn_output4.bias"),
)
LOGITS = ("proposal_generator.rpn_head", "proposal_generator.rpn_head.objectness_logits.bias")
DELTAS = ("proposal_generator.rpn_head", "proposal_generator.rpn_head.anchor_deltas.bias")
BOXES = [
    ("roi_heads.box_head", "roi_heads.box_head.fc1.bias"),
    ("roi_heads.box_predictor", "roi_heads.box_predictor.cls_score.bias"),
    ("roi_heads.box_predictor", "roi_heads.box_predictor.bbox_pred.bias"),
]
CASCADE = [
    *((f"roi_heads.box_predictor.{stage}", f"roi_heads.box_predictor.{stage}.cls_score.bias") for stage in range(3)),
    ("roi_heads.box_head.2", "roi_heads.box_head.2.fc1.bias"),
    ("roi_heads.box_predictor.2", "roi_heads.box_predictor.2.bbox_pred.bias"),
]
MASK = ("roi_heads.mask_head", "roi_heads.mask_head.predictor.bias")
STAGES = {
    "mask_rcnn": [BOTTOM, TOP, LOGITS, DELTAS, *BOXES, MASK],
    "keypoint_rcnn": [BOTTOM, TOP, LOGITS, DELTAS, *BOXES],
    "panoptic_fpn": [
        *(BOTTOM, TOP, ("sem_seg_head.predictor", "sem_seg_head.predictor.bias"), LOGITS, DELTAS),
        *(*BOXES, MASK),
    ],
    "cascade_mask_rcnn": [BOTTOM, TOP, LOGITS, DELTAS, *CASCADE, MASK],
    "retinanet": [BOTTOM, TOP, ("head", "head.cls_score.bias"), ("head", "head.bbox_pred.bias")],
    "point_rend": [
        ("roi_heads.mask_head", "roi_heads.mask_head.coarse_head.prediction.bias"),
        ("roi_heads.mask_head", "roi_heads.mask_head.point_head.predictor.bias"),
    ],
    "panoptic_deeplab": [
        ("backbone", "backbone.res3.0.conv1.weight"),
        ("sem_seg_head.predictor", "sem_seg_head.predictor.bias"),
        ("ins_embed_head.offset_predictor", "ins_embed_head.offset_predictor.bias"),
    ],
}


FIRST = slice(0, 1)


def broken(family: str, parameter: str, value: float = math.nan, where: slice = FIRST) -> nn.Module:
    """A copy of a family's model with numbers of a parameter replaced."""
    network = copy.deepcopy(built(family))
    with torch.no_grad():
        network.get_parameter(parameter).view(-1)[where] = value
    return network


@pytest.mark.parametrize(("family", "stage", "parameter"), [
    (family, stage, parameter) for family, stages in STAGES.items() for stage, parameter in stages
])  # fmt: skip
def test_the_stage_that_is_broken_is_named(family: str, stage: str, parameter: str) -> None:
    network = broken(family, parameter)
    (inferred,) = infer(predictor(family, copy.deepcopy(network)), Asked())
    evidence = inferred.evidence
    assert evidence.not_finite == stage
    if family == "panoptic_deeplab":
        assert (evidence.dropped, evidence.proposed) == ({}, None)
        return
    seen, scored = plain_run(network, inferred)
    dropped = dict(scored.dropped)
    if family != "retinanet":
        before, _, regions = recount.proposals(seen, network.proposal_generator)
        assert evidence.proposed == before
        dropped |= {"proposal_generator": regions} if regions else {}
    assert evidence.dropped == dropped
    assert bool(dropped) == ("mask" not in stage and "sem_seg" not in stage)
    assert evidence.candidates == sum(getattr(evidence, name) for name in FATES) + len(inferred.output["instances"])


def test_rows_that_overflow_are_dropped_alone() -> None:
    network = broken("faster_rcnn", "roi_heads.box_predictor.bbox_pred.weight", 3e38)  # finite where the feature is 0
    (inferred,) = infer(predictor("faster_rcnn", copy.deepcopy(network)), Asked())
    _, scored = plain_run(network, inferred)
    evidence = inferred.evidence
    assert 0 < evidence.dropped["roi_heads.box_predictor"] == scored.dropped["roi_heads.box_predictor"]
    assert 0 < evidence.scored == len(scored.scores)
    np.testing.assert_allclose(evidence.best_scores, scored.scores.max(axis=0), atol=1e-6)
    assert evidence.certainty == pytest.approx(scored.certainty, abs=1e-6)


def test_anchors_whose_scores_are_numbers_in_part_are_dropped_in_part() -> None:
    """One class of one anchor of each place is NaN: Detectron2 keeps that anchor's other classes."""
    network = broken("retinanet", "head.cls_score.bias")
    (inferred,) = infer(predictor("retinanet", copy.deepcopy(network)), Asked())
    _, scored = plain_run(network, inferred)
    evidence = inferred.evidence
    assert evidence.dropped == scored.dropped
    assert evidence.scored == len(scored.scores) - scored.dropped["head"] == 8 * scored.dropped["head"]
    assert counts(evidence) | {"detections": len(inferred.output["instances"])} == fates(scored, inferred)
    assert evidence.certainty == pytest.approx(scored.certainty, abs=1e-6)


@pytest.mark.parametrize(("family", "stage", "parameter"), [
    ("retinanet", "head", "head.bbox_pred.bias"),
    ("keypoint_rcnn", "roi_heads.keypoint_head", "roi_heads.keypoint_head.score_lowres.bias"),
    ("cascade_mask_rcnn", "roi_heads.box_head.0", "roi_heads.box_head.0.fc1.bias"),
    ("cascade_mask_rcnn", "roi_heads.box_predictor.1", "roi_heads.box_predictor.1.bbox_pred.bias"),
])  # fmt: skip
def test_where_detectron2_fails_of_it_the_error_says_which_stage(family: str, stage: str, parameter: str) -> None:
    network = broken(family, parameter, where=slice(None))
    with pytest.raises(AssertionError) as caught:
        infer(predictor(family, copy.deepcopy(network)), Asked())
    assert caught.value.__notes__ == [f"The first stage with non-finite values: {stage}"]
    with pytest.raises(AssertionError):
        infer(predictor(family, network, observe=False), Asked())


def test_boxes_of_anchors_that_no_one_sees_are_counted() -> None:
    """No score reaches the threshold, so that Detectron2 never decodes them."""
    network = broken("retinanet", "head.bbox_pred.bias", math.inf)
    with torch.no_grad():
        network.get_parameter("head.cls_score.bias").fill_(-1000)
    (inferred,) = infer(predictor("retinanet", copy.deepcopy(network)), Asked())
    _, scored = plain_run(network, inferred)
    evidence = inferred.evidence
    assert (evidence.not_finite, evidence.candidates) == ("head", 0)
    assert evidence.dropped == scored.dropped == {"head": evidence.scored // 8}


@pytest.mark.parametrize(("family", "stage", "where"), [
    ("faster_rcnn", "roi_heads.box_predictor", FIRST),  # one class
    ("cascade_mask_rcnn", "roi_heads.box_predictor.2", FIRST),
    ("retinanet", "head", slice(0, None, 8)),  # every other anchor
])  # fmt: skip
def test_boxes_without_an_area_in_the_image_are_counted(family: str, stage: str, where: slice) -> None:
    network = broken(family, f"{stage}.bbox_pred.bias", 1e5, where)  # far to the right
    (inferred,) = infer(predictor(family, copy.deepcopy(network)), Asked(threshold=0.1))
    _, scored = plain_run(network, inferred)
    assert inferred.evidence.clipped > 0
    assert counts(inferred.evidence) | {"detections": len(inferred.output["instances"])} == fates(scored, inferred)


def test_a_random_retinanet_is_uncertain() -> None:
    torch.manual_seed(3)
    fresh = build_model(config("retinanet")).eval()
    fresh.backbone.load_state_dict(built("retinanet").get_submodule("backbone").state_dict())
    (inferred,) = infer(predictor("retinanet", fresh), Asked())
    assert inferred.evidence.certainty < 0.1
    assert inferred.evidence.best_score == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("head", ["C4", "DC5"])
def test_backbones_without_a_pyramid_are_observed(head: str) -> None:
    cfg = config("faster_rcnn")
    other = {
        "C4": ("build_resnet_backbone", "Res5ROIHeads", "res4", 1),
        "DC5": ("build_resnet_backbone", "StandardROIHeads", "res5", 2),
    }[head]
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_HEADS.NAME, feature, cfg.MODEL.RESNETS.RES5_DILATION = other
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = [feature]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64, 128]]
    torch.manual_seed(4)
    network = build_model(cfg).eval()
    (inferred,) = infer(predictor("faster_rcnn", copy.deepcopy(network)), Asked(threshold=0.1))
    seen, scored = plain_run(network, inferred)
    evidence = inferred.evidence
    assert (evidence.proposed, evidence.proposals, 0) == recount.proposals(seen, network.proposal_generator)
    assert counts(evidence) | {"detections": len(inferred.output["instances"])} == fates(scored, inferred)
    layer = "roi_heads.res5.0.conv1.weight" if head == "C4" else "roi_heads.box_head.fc1.weight"
    with torch.no_grad():
        network.get_parameter(layer).fill_(math.nan)
    (inferred,) = infer(predictor("faster_rcnn", network), Asked())
    assert inferred.evidence.not_finite == layer.partition(".0." if head == "C4" else ".fc1")[0]
    assert inferred.evidence.dropped == {"roi_heads.box_predictor": inferred.evidence.proposals}


def test_a_model_that_selects_in_another_way_is_selected_from_behind() -> None:
    network: Any = copy.deepcopy(built("faster_rcnn"))
    assert see(network, plain(config("faster_rcnn"))) is None, "its config says it all"
    network.roi_heads.box_predictor = nn.Linear(1, 1)
    assert place(network) is None
    assert see(network, plain(config("faster_rcnn"))) == Produced(family="GeneralizedRCNN", own_threshold=True)

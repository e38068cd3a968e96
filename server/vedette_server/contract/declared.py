"""What a Detectron2 config says about its model, in whichever of Detectron2's two dialects it is written.

A yacs config names parts in capitals (`MODEL.ROI_HEADS.NUM_CLASSES`); a LazyConfig, resolved to plain data, is a tree
of calls, each with the name of what it calls under `_target_`. Both are given as the plain mapping that YAML holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vedette_server.contract.contract import ResizeRule
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check, LoadRefusedError

ARCHITECTURES = ("GeneralizedRCNN", "RetinaNet", "PanopticFPN", "PanopticDeepLab")

# Detectron2's own defaults, for the arguments that a LazyConfig leaves out.
_RCNN_THRESHOLD, _RETINANET_THRESHOLD, _COMBINE_THRESHOLD, _MOST = 0.0, 0.05, 0.5, 100
_NO_LIMIT = 2**31 - 1  # pixels; where a LazyConfig sets no longest edge


@dataclass(frozen=True)
class Count:
    """A number in the config, and the key that says it."""

    key: str
    number: int


@dataclass(frozen=True)
class Declared:
    """A model as its config declares it."""

    architecture: str  # one of ARCHITECTURES
    channel_order: ChannelOrder
    resize: ResizeRule
    pixel_mean: tuple[float, ...]  # of values 0 to 255, in channel_order
    pixel_std: tuple[float, ...]
    threshold: float  # 0 to 1
    most: Count  # detections of an image; negative where that means any number
    classes: Count
    masks: bool
    keypoints: Count | None
    stuff: Count | None  # classes of the semantic map
    panoptic_threshold: float | None  # None: no map is combined from things and stuff


def declared(config: Mapping[str, Any]) -> Declared:
    """Read either dialect. Raises `LoadRefusedError`: CONFIG_UNSERVABLE."""
    return _lazy(config) if is_lazy(config) else _yacs(config)


def is_lazy(config: Mapping[str, Any]) -> bool:
    """Whether a config is a resolved LazyConfig."""
    return "MODEL" not in config


def _served(architecture: str) -> str:
    if architecture not in ARCHITECTURES:
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, f"the model is a {architecture!r}")
    return architecture


def _yacs(config: Mapping[str, Any]) -> Declared:
    model, preprocessing = config["MODEL"], config["INPUT"]
    architecture = _served(model["META_ARCHITECTURE"])
    deeplab = architecture == "PanopticDeepLab"
    part = {"RetinaNet": "RETINANET", "PanopticDeepLab": "SEM_SEG_HEAD"}.get(architecture, "ROI_HEADS")
    rcnn = part == "ROI_HEADS"
    points, semantic = rcnn and model["KEYPOINT_ON"], architecture.startswith("Panoptic")
    combine = model["PANOPTIC_FPN"]["COMBINE"] if architecture == "PanopticFPN" else {"ENABLED": False}
    return Declared(
        architecture=architecture,
        channel_order=ChannelOrder(preprocessing["FORMAT"]),
        resize=ResizeRule(int(preprocessing["MIN_SIZE_TEST"]), int(preprocessing["MAX_SIZE_TEST"])),
        pixel_mean=_floats(model["PIXEL_MEAN"]),
        pixel_std=_floats(model["PIXEL_STD"]),
        threshold=0.0 if deeplab else float(model[part]["SCORE_THRESH_TEST"]),
        most=Count("TEST.DETECTIONS_PER_IMAGE", -1 if deeplab else int(config["TEST"]["DETECTIONS_PER_IMAGE"])),
        classes=Count(f"MODEL.{part}.NUM_CLASSES", int(model[part]["NUM_CLASSES"])),
        masks=bool(model["PANOPTIC_DEEPLAB"]["PREDICT_INSTANCES"] if deeplab else rcnn and model["MASK_ON"]),
        keypoints=_count("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", model["ROI_KEYPOINT_HEAD"] if points else None),
        stuff=_count("MODEL.SEM_SEG_HEAD.NUM_CLASSES", model["SEM_SEG_HEAD"] if semantic else None),
        panoptic_threshold=float(combine["INSTANCES_CONFIDENCE_THRESH"]) if combine["ENABLED"] else None,
    )


def _lazy(config: Mapping[str, Any]) -> Declared:
    model, mapper = config["model"], config["dataloader"]["test"]["mapper"]
    architecture = _served(str(model["_target_"]).rpartition(".")[2])
    retinanet, heads = architecture == "RetinaNet", model.get("roi_heads", {})
    prefix, selects = ("model", model) if retinanet else _lazy_predictor(heads)
    most = "max_detections_per_image" if retinanet else "test_topk_per_image"
    panoptic = architecture == "PanopticFPN" and model.get("combine_on", True)
    points, stuff = heads.get("keypoint_head"), model.get("sem_seg_head")
    counted = model if retinanet else heads
    return Declared(
        architecture=architecture,
        channel_order=ChannelOrder(mapper["image_format"]),  # the model's input_format is for drawings in training
        resize=_lazy_resize(mapper["augmentations"]),
        pixel_mean=_floats(model["pixel_mean"]),
        pixel_std=_floats(model["pixel_std"]),
        threshold=float(selects.get("test_score_thresh", _RETINANET_THRESHOLD if retinanet else _RCNN_THRESHOLD)),
        most=Count(f"{prefix}.{most}", int(selects.get(most, _MOST))),
        classes=Count("model.num_classes" if retinanet else "model.roi_heads.num_classes", int(counted["num_classes"])),
        masks=heads.get("mask_head") is not None,
        keypoints=_count("model.roi_heads.keypoint_head.num_keypoints", points),
        stuff=_count("model.sem_seg_head.num_classes", stuff),
        panoptic_threshold=float(model.get("combine_instances_score_thresh", _COMBINE_THRESHOLD)) if panoptic else None,
    )


def _count(key: str, part: Mapping[str, Any] | None) -> Count | None:
    return Count(key, int(part[key.rpartition(".")[2]])) if part else None


def _lazy_predictor(heads: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What selects an R-CNN's boxes, with its key: of a cascade the last stage's."""
    if stages := heads.get("box_predictors"):
        return f"model.roi_heads.box_predictors.{len(stages) - 1}", stages[-1]
    return "model.roi_heads.box_predictor", heads.get("box_predictor", {})


def _lazy_resize(augmentations: Sequence[Mapping[str, Any]]) -> ResizeRule:
    """The resize rule of testing, which must be one of one size, and all that is done."""
    names = [str(item["_target_"]).rpartition(".")[2] for item in augmentations]
    edges = augmentations[0]["short_edge_length"] if names == ["ResizeShortestEdge"] else ()
    sizes = {edges} if isinstance(edges, int) else set(edges)
    if len(sizes) != 1:
        seen = f"images are prepared by {', '.join(names) or 'nothing'}, not by ResizeShortestEdge to one size alone"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    return ResizeRule(sizes.pop(), int(augmentations[0].get("max_size", _NO_LIMIT)))


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

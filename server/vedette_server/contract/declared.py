"""What a Detectron2 config says about its model, in whichever of Detectron2's two dialects it is written.

A yacs config names parts in capitals (`MODEL.ROI_HEADS.NUM_CLASSES`); a LazyConfig, resolved to plain data, is a tree
of calls, each with the name of what it calls under `_target_`. Both are given as the plain mapping that YAML holds.

A config says what a model of a known family gives. Of any other it says how images are prepared, and little else: what
that model gives was seen when it was imported, and is told as `Produced`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vedette_server.contract.contract import ResizeRule
from vedette_server.contract.declaration import FAMILIES, Count, Declared, Gives, Prepared, Produced, outputs
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check, LoadRefusedError

Config = Mapping[str, Any]

# Detectron2's own defaults, for the arguments that a LazyConfig leaves out.
_RCNN_THRESHOLD, _COMBINE_THRESHOLD, _MOST = 0.0, 0.5, 100
_DENSE_THRESHOLD = {"RetinaNet": 0.05, "FCOS": 0.2}
_FORMATS = ("BGR", "RGB", "L")
_WHITE = 255
_LONGEST_REASON = 300  # characters
_NO_LIMIT = 2**31 - 1  # pixels; where a LazyConfig sets no longest edge

OBJECT = "object"  # what a proposal network finds, where its operator has no better name
ONE_CLASS = Count("the one class of proposals", 1)
_NAMES = Count("--classes", None)
_OF_A_ROTATED_BOX = 5  # numbers, and so many weights of their regression
_THRESHOLD_KEYS = ("test_score_thresh", "score_thresh_test", "score_thresh")
_OWN_SECTIONS = ("ROI_HEADS", "RETINANET")  # of every yacs config, whatever its model: they hold such a key


@contextlib.contextmanager
def _as_data() -> Iterator[None]:
    """Tell of values that are not of the kinds that Detectron2 gives them. Raises `LoadRefusedError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        seen = f"the config has values of other kinds than Detectron2's ({type(error).__name__}: {error})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, seen[:_LONGEST_REASON]) from error


@_as_data()
def declared(config: Config, produced: Produced | None = None) -> Declared:
    """Read either dialect. Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_UNSERVABLE, PROPOSALS_EXTERNAL."""
    taken, lazy = prepared(config, produced), is_lazy(config)
    family = taken.architecture if produced is None else produced.family or taken.architecture
    if family in FAMILIES:
        gives = (_LAZY if lazy else _YACS)[family](config)
    elif produced is None:
        seen = f"the model is a {family}, of which nothing was written down when it was imported"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    else:
        gives = _seen(produced, _lazy_threshold(config) if lazy else _yacs_threshold(config))
    own = family == "PanopticDeepLab" or (produced is not None and produced.own_threshold)
    return Declared(**vars(taken), **vars(gives), own_threshold=own)


@_as_data()
def prepared(config: Config, produced: Produced | None = None) -> Prepared:
    """How images are prepared for the model. Raises `LoadRefusedError`: CONFIG_UNSERVABLE."""
    return _lazy_prepared(config, produced or Produced()) if is_lazy(config) else _yacs_prepared(config)


def is_lazy(config: Config) -> bool:
    """Whether a config is a resolved LazyConfig."""
    return "MODEL" not in config


@_as_data()
def architecture(config: Config) -> str:
    """The name of the class of a config's model."""
    name = config["model"]["_target_"] if is_lazy(config) else config["MODEL"]["META_ARCHITECTURE"]
    return str(name).rpartition(".")[2]


@_as_data()
def datasets(config: Config) -> tuple[str, ...]:
    """The names of the datasets that the model was trained and tested on, as far as the config says them."""
    if is_lazy(config):
        names = config["dataloader"]["test"].get("dataset", {}).get("names", ())
        return (names,) if isinstance(names, str) else tuple(names)
    named = config.get("DATASETS", {})
    return (*named.get("TRAIN", ()), *named.get("TEST", ()))


def _seen(produced: Produced, threshold: float) -> Gives:
    """What a model of no known family gives: only what was seen of it."""
    has = produced.outputs
    return Gives(
        outputs=has,
        threshold=threshold,
        classes=Count(_NAMES.key, produced.classes) if "boxes" in has else None,
        keypoints=Count("the keypoints of what it returns", produced.keypoints) if "keypoints" in has else None,
        stuff=Count("--stuff-classes", produced.stuff) if {"semantic", "panoptic"} & {*has} else None,
    )


def _yacs_prepared(config: Config) -> Prepared:
    model, preprocessing = config["MODEL"], config["INPUT"]
    return Prepared(
        architecture=architecture(config),
        channel_order=_channels("INPUT.FORMAT", preprocessing["FORMAT"], model["PIXEL_MEAN"]),
        resize=ResizeRule(int(preprocessing["MIN_SIZE_TEST"]), int(preprocessing["MAX_SIZE_TEST"])),
        pixel_mean=_floats(model["PIXEL_MEAN"]),
        pixel_std=_floats(model["PIXEL_STD"]),
    )


def _yacs_regions(config: Config) -> Gives:
    model = config["MODEL"]
    _check_own_proposals("MODEL.PROPOSAL_GENERATOR.NAME", model["PROPOSAL_GENERATOR"]["NAME"])
    points = model["ROI_KEYPOINT_HEAD"] if model["KEYPOINT_ON"] else None
    return Gives(
        outputs=outputs(
            rotated=_rotated(model["ROI_BOX_HEAD"]["BBOX_REG_WEIGHTS"]),
            masks=bool(model["MASK_ON"]),
            keypoints=points is not None,
        ),
        threshold=float(model["ROI_HEADS"]["SCORE_THRESH_TEST"]),
        most=_yacs_most(config),
        classes=_count("MODEL.ROI_HEADS.NUM_CLASSES", model["ROI_HEADS"]),
        keypoints=_count("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", points) if points else None,
    )


def _yacs_panoptic(config: Config) -> Gives:
    regions, combine = _yacs_regions(config), config["MODEL"]["PANOPTIC_FPN"]["COMBINE"]
    return _with_stuff(
        regions,
        _count("MODEL.SEM_SEG_HEAD.NUM_CLASSES", config["MODEL"]["SEM_SEG_HEAD"]),
        float(combine["INSTANCES_CONFIDENCE_THRESH"]) if combine["ENABLED"] else None,
    )


def _yacs_retinanet(config: Config) -> Gives:
    part = config["MODEL"]["RETINANET"]
    return Gives(
        outputs=outputs(),
        threshold=float(part["SCORE_THRESH_TEST"]),
        most=_yacs_most(config),
        classes=_count("MODEL.RETINANET.NUM_CLASSES", part),
    )


def _yacs_deeplab(config: Config) -> Gives:
    model = config["MODEL"]
    classes = _count("MODEL.SEM_SEG_HEAD.NUM_CLASSES", model["SEM_SEG_HEAD"])
    masks = bool(model["PANOPTIC_DEEPLAB"]["PREDICT_INSTANCES"])
    return Gives(outputs=outputs(masks=masks, panoptic=True, semantic=True), classes=classes, stuff=classes)


def _yacs_semantic(config: Config) -> Gives:
    stuff = _count("MODEL.SEM_SEG_HEAD.NUM_CLASSES", config["MODEL"]["SEM_SEG_HEAD"])
    return Gives(outputs=outputs(boxes=False, semantic=True), stuff=stuff)


def _yacs_proposals(config: Config) -> Gives:
    part = config["MODEL"]["RPN"]
    _check_own_proposals("MODEL.PROPOSAL_GENERATOR.NAME", config["MODEL"]["PROPOSAL_GENERATOR"]["NAME"])
    return Gives(
        outputs=outputs(rotated=_rotated(part["BBOX_REG_WEIGHTS"])),
        most=_count("MODEL.RPN.POST_NMS_TOPK_TEST", part),
        classes=ONE_CLASS,
    )


def _yacs_most(config: Config) -> Count:
    return _count("TEST.DETECTIONS_PER_IMAGE", config["TEST"])


def _yacs_threshold(config: Config) -> float:
    """The threshold in the section of a project's own model; 0: none is to be seen there."""
    sections = {name: part for name, part in config["MODEL"].items() if isinstance(part, Mapping)}
    own = (part for name, part in sections.items() if "SCORE_THRESH_TEST" in part and name not in _OWN_SECTIONS)
    return next((float(part["SCORE_THRESH_TEST"]) for part in own), 0.0)


def _lazy_prepared(config: Config, produced: Produced) -> Prepared:
    model, mapper = config["model"], config["dataloader"]["test"]["mapper"]
    mean = model.get("pixel_mean", produced.pixel_mean)
    return Prepared(
        architecture=architecture(config),
        # The model's own input_format is for drawings in training.
        channel_order=_channels("dataloader.test.mapper.image_format", mapper["image_format"], mean),
        resize=_lazy_resize(mapper["augmentations"]),
        pixel_mean=_floats(mean),
        pixel_std=_floats(model.get("pixel_std", produced.pixel_std)),
    )


def _channels(key: str, image_format: str, mean: Sequence[float]) -> ChannelOrder:
    """What a model's channels are. Raises `LoadRefusedError`: CONFIG_UNSERVABLE.

    A format other than L says nothing about a model of one channel, or of more than three: Detectron2 leaves it as it
    is by default, and such a model's images are read by a program of its own.
    """
    if image_format not in _FORMATS:
        seen = (
            f"{key} is {image_format!r}: Detectron2's DefaultPredictor refuses it too, and its samples are not 8-bit "
            f"colours or grey. Served are {', '.join(_FORMATS)}; where a model takes other than three channels, which "
            "callers send as they are, set it to BGR"
        )
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    if max(mean, default=0) > _WHITE:
        seen = (
            f"the mean of a channel is {max(mean):g}: the model takes more than 8 bits, and 0 to 255 is what is served"
        )
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    if image_format == "L" or len(mean) == 1:
        return ChannelOrder.GRAY
    return ChannelOrder(image_format) if len(mean) in (0, 3) else ChannelOrder.MODEL  # 0: the model does not say


def _lazy_regions(config: Config) -> Gives:
    model = config["model"]
    heads: Config = model.get("roi_heads", {})
    _check_own_proposals("model.proposal_generator", (model["proposal_generator"] or {}).get("_target_"))
    prefix, selects = _lazy_predictor(heads)
    points = heads.get("keypoint_head")
    return Gives(
        outputs=outputs(
            rotated=_rotated(selects.get("box2box_transform", {}).get("weights", ())),
            masks=heads.get("mask_head") is not None,
            keypoints=points is not None,
        ),
        threshold=float(selects.get("test_score_thresh", _RCNN_THRESHOLD)),
        most=Count(f"{prefix}.test_topk_per_image", int(selects.get("test_topk_per_image", _MOST))),
        classes=_count("model.roi_heads.num_classes", heads),
        keypoints=_count("model.roi_heads.keypoint_head.num_keypoints", points) if points else None,
    )


def _lazy_panoptic(config: Config) -> Gives:
    model = config["model"]
    threshold = float(model.get("combine_instances_score_thresh", _COMBINE_THRESHOLD))
    stuff = _count("model.sem_seg_head.num_classes", model["sem_seg_head"])
    return _with_stuff(_lazy_regions(config), stuff, threshold if model.get("combine_on", True) else None)


def _lazy_dense(config: Config) -> Gives:
    model = config["model"]
    threshold = model.get("test_score_thresh", _DENSE_THRESHOLD.get(architecture(config), 0.0))
    most = Count("model.max_detections_per_image", int(model.get("max_detections_per_image", _MOST)))
    classes = _count("model.num_classes", model)
    return Gives(outputs=outputs(), threshold=float(threshold), most=most, classes=classes)


def _lazy_semantic(config: Config) -> Gives:
    stuff = _count("model.sem_seg_head.num_classes", config["model"]["sem_seg_head"])
    return Gives(outputs=outputs(boxes=False, semantic=True), stuff=stuff)


def _lazy_proposals(config: Config) -> Gives:
    part = config["model"]["proposal_generator"]
    most = Count("model.proposal_generator.post_nms_topk", int(part["post_nms_topk"][1]))
    rotated = _rotated(part.get("box2box_transform", {}).get("weights", ()))
    return Gives(outputs=outputs(rotated=rotated), most=most, classes=ONE_CLASS)


def _lazy_unknown(_config: Config) -> Gives:
    raise LoadRefusedError(Check.CONFIG_UNSERVABLE, "a PanopticDeepLab is read from a yacs config alone")


def _lazy_threshold(config: Config) -> float:
    """The threshold among a project's model's own arguments; 0: none is to be seen there."""
    return next((float(config["model"][key]) for key in _THRESHOLD_KEYS if key in config["model"]), 0.0)


_YACS: dict[str, Callable[[Config], Gives]] = {
    "GeneralizedRCNN": _yacs_regions,
    "RetinaNet": _yacs_retinanet,
    "FCOS": _yacs_retinanet,  # Detectron2 builds none from such a config; a project's may extend its keys
    "PanopticFPN": _yacs_panoptic,
    "PanopticDeepLab": _yacs_deeplab,
    "SemanticSegmentor": _yacs_semantic,
    "ProposalNetwork": _yacs_proposals,
}
_LAZY: dict[str, Callable[[Config], Gives]] = {
    "GeneralizedRCNN": _lazy_regions,
    "RetinaNet": _lazy_dense,
    "FCOS": _lazy_dense,
    "PanopticFPN": _lazy_panoptic,
    "PanopticDeepLab": _lazy_unknown,
    "SemanticSegmentor": _lazy_semantic,
    "ProposalNetwork": _lazy_proposals,
}


def _with_stuff(things: Gives, stuff: Count, threshold: float | None) -> Gives:
    """What a Panoptic FPN gives, with its threshold of things in the combined map; None: it combines none."""
    combined = outputs(boxes=False, panoptic=threshold is not None, semantic=True)
    return replace(things, outputs=things.outputs + combined, stuff=stuff, panoptic_threshold=threshold)


def _check_own_proposals(key: str, generator: str | None) -> None:
    """A model without a generator is given its regions with each image, which no request brings."""
    if generator in (None, "PrecomputedProposals"):
        raise LoadRefusedError(Check.PROPOSALS_EXTERNAL, f"{key} is {generator}")


def _rotated(weights: Sequence[float] | Sequence[Sequence[float]]) -> bool:
    return len(weights) == _OF_A_ROTATED_BOX


def _count(key: str, part: Config) -> Count:
    return Count(key, int(part[key.rpartition(".")[2]]))


def _lazy_predictor(heads: Config) -> tuple[str, Config]:
    """What selects an R-CNN's boxes, with its key: of a cascade the last stage's."""
    if stages := heads.get("box_predictors"):
        return f"model.roi_heads.box_predictors.{len(stages) - 1}", stages[-1]
    return "model.roi_heads.box_predictor", heads.get("box_predictor", {})


def _lazy_resize(augmentations: Sequence[Config]) -> ResizeRule:
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

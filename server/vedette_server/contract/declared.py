"""Reader of Detectron2 configs, in either of Detectron2's two dialects.

A yacs config names its parts in capitals (`MODEL.ROI_HEADS.NUM_CLASSES`). A LazyConfig, resolved to plain data, is a
tree of calls; `_target_` names each callable. Both are given as the plain mapping in their YAML.

A config declares the outputs of a model from a known family. For any other model it declares little but the preparation
of images. Its outputs were observed at import and are given as `Produced`.
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

# Detectron2's defaults for arguments that a LazyConfig omits.
_RCNN_THRESHOLD, _COMBINE_THRESHOLD, _MOST = 0.0, 0.5, 100
# The mask head that doubles 14 x 14 features to 28 x 28, and the heads that give it the features of its own pooler.
_UPSAMPLING, _POOLED, _BOX_MASKED = "MaskRCNNConvUpsampleHead", 14, ("StandardROIHeads", "CascadeROIHeads")
_DENSE_THRESHOLD = {"RetinaNet": 0.05, "FCOS": 0.2}
_FORMATS = ("BGR", "RGB", "L")
_WHITE = 255
_LONGEST_REASON = 300  # characters
_NO_LIMIT = 2**31 - 1  # pixels; used if a LazyConfig sets no longest edge

OBJECT = "object"  # class of a proposal network, if its operator gives no better name
ONE_CLASS = Count("the one class of proposals", 1)
_NAMES = Count("--classes", None)
_OF_A_ROTATED_BOX = 5  # numbers, each with a regression weight
_THRESHOLD_KEYS = ("test_score_thresh", "score_thresh_test", "score_thresh")
_OWN_SECTIONS = ("ROI_HEADS", "RETINANET")  # present in every yacs config, whatever its model


@contextlib.contextmanager
def _as_data() -> Iterator[None]:
    """Report values of the wrong type. Raises `LoadRefusedError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        seen = f"the config has values of other types than Detectron2's ({type(error).__name__}: {error})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, seen[:_LONGEST_REASON]) from error


@_as_data()
def declared(config: Config, produced: Produced | None = None) -> Declared:
    """Read a config in either dialect.

    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_UNSERVABLE, PROPOSALS_EXTERNAL.
    """
    taken, lazy = prepared(config, produced), is_lazy(config)
    family = taken.architecture if produced is None else produced.family or taken.architecture
    if family in FAMILIES:
        gives = (_LAZY if lazy else _YACS)[family](config)
    elif produced is None:
        seen = f"the model is a {family}, and its import recorded nothing about it"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    else:
        gives = _seen(produced, _lazy_threshold(config) if lazy else _yacs_threshold(config))
    own = family == "PanopticDeepLab" or (produced is not None and produced.own_threshold)
    return Declared(**vars(taken), **vars(gives), own_threshold=own)


@_as_data()
def prepared(config: Config, produced: Produced | None = None) -> Prepared:
    """Read the preparation of images. Raises `LoadRefusedError`: CONFIG_UNSERVABLE."""
    return _lazy_prepared(config, produced or Produced()) if is_lazy(config) else _yacs_prepared(config)


def is_lazy(config: Config) -> bool:
    """Return whether a config is a resolved LazyConfig."""
    return "MODEL" not in config


@_as_data()
def architecture(config: Config) -> str:
    """Return the class name of a config's model."""
    name = config["model"]["_target_"] if is_lazy(config) else config["MODEL"]["META_ARCHITECTURE"]
    return str(name).rpartition(".")[2]


@_as_data()
def datasets(config: Config) -> tuple[str, ...]:
    """Return the names of the training and test datasets, as far as the config names them."""
    if is_lazy(config):
        names = config["dataloader"]["test"].get("dataset", {}).get("names", ())
        return (names,) if isinstance(names, str) else tuple(names)
    named = config.get("DATASETS", {})
    return (*named.get("TRAIN", ()), *named.get("TEST", ()))


def _seen(produced: Produced, threshold: float) -> Gives:
    """Return the outputs of a model of no known family: those observed at import."""
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
        box_masks=_yacs_box_masks(model),
        keypoints=_count("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", points) if points else None,
    )


def _yacs_box_masks(model: Config) -> bool:
    head = model.get("ROI_MASK_HEAD", {})
    pooled = model["ROI_HEADS"].get("NAME") in _BOX_MASKED and head.get("POOLER_RESOLUTION") == _POOLED
    return bool(model["MASK_ON"]) and pooled and head.get("NAME") == _UPSAMPLING


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
    """Return the threshold in a custom model's section; 0 if there is none."""
    sections = {name: part for name, part in config["MODEL"].items() if isinstance(part, Mapping)}
    own = (part for name, part in sections.items() if "SCORE_THRESH_TEST" in part and name not in _OWN_SECTIONS)
    return next((float(part["SCORE_THRESH_TEST"]) for part in own), 0.0)


def _lazy_prepared(config: Config, produced: Produced) -> Prepared:
    model, mapper = config["model"], config["dataloader"]["test"]["mapper"]
    mean = model.get("pixel_mean", produced.pixel_mean)
    return Prepared(
        architecture=architecture(config),
        # The model's own input_format is used for drawings in training only.
        channel_order=_channels("dataloader.test.mapper.image_format", mapper["image_format"], mean),
        resize=_lazy_resize(mapper["augmentations"]),
        pixel_mean=_floats(mean),
        pixel_std=_floats(model.get("pixel_std", produced.pixel_std)),
    )


def _channels(key: str, image_format: str, mean: Sequence[float]) -> ChannelOrder:
    """Return the order of a model's channels. Raises `LoadRefusedError`: CONFIG_UNSERVABLE.

    A format other than L says nothing about a model with one channel or more than three. Detectron2's default is often
    left in place, because a program of the project's own reads such images.
    """
    if image_format not in _FORMATS:
        seen = (
            f"{key} is {image_format!r}: Detectron2's DefaultPredictor refuses it too, and its samples are not 8-bit "
            f"colours or grey. Supported are {', '.join(_FORMATS)}; if a model takes other than three channels, which "
            "callers send as they are, set it to BGR"
        )
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    if max(mean, default=0) > _WHITE:
        seen = (
            f"the mean of a channel is {max(mean):g}: the model takes more than 8 bits, but only 0 to 255 is supported"
        )
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    if image_format == "L" or len(mean) == 1:
        return ChannelOrder.GRAY
    return ChannelOrder(image_format) if len(mean) in (0, 3) else ChannelOrder.MODEL  # 0: not declared by the model


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
        box_masks=(heads.get("mask_head") or {}).get("_target_", "").endswith(f".{_UPSAMPLING}")
        and heads.get("mask_pooler", {}).get("output_size") == _POOLED,
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
    raise LoadRefusedError(Check.CONFIG_UNSERVABLE, "a PanopticDeepLab can only be read from a yacs config")


def _lazy_threshold(config: Config) -> float:
    """Return the threshold among a custom model's arguments; 0 if there is none."""
    return next((float(config["model"][key]) for key in _THRESHOLD_KEYS if key in config["model"]), 0.0)


_YACS: dict[str, Callable[[Config], Gives]] = {
    "GeneralizedRCNN": _yacs_regions,
    "RetinaNet": _yacs_retinanet,
    "FCOS": _yacs_retinanet,  # Detectron2 cannot build one from such a config, but a custom model may extend its keys
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
    """Add the outputs of a Panoptic FPN; `threshold` applies to things in the combined map, None if there is no map."""
    combined = outputs(boxes=False, panoptic=threshold is not None, semantic=True)
    return replace(things, outputs=things.outputs + combined, stuff=stuff, panoptic_threshold=threshold)


def _check_own_proposals(key: str, generator: str | None) -> None:
    """Refuse a model without a proposal generator: it expects regions with each image, and no request provides them."""
    if generator in (None, "PrecomputedProposals"):
        raise LoadRefusedError(Check.PROPOSALS_EXTERNAL, f"{key} is {generator}")


def _rotated(weights: Sequence[float] | Sequence[Sequence[float]]) -> bool:
    return len(weights) == _OF_A_ROTATED_BOX


def _count(key: str, part: Config) -> Count:
    return Count(key, int(part[key.rpartition(".")[2]]))


def _lazy_predictor(heads: Config) -> tuple[str, Config]:
    """Return the box predictor of an R-CNN with its key; the last stage of a cascade."""
    if stages := heads.get("box_predictors"):
        return f"model.roi_heads.box_predictors.{len(stages) - 1}", stages[-1]
    return "model.roi_heads.box_predictor", heads.get("box_predictor", {})


def _lazy_resize(augmentations: Sequence[Config]) -> ResizeRule:
    """Return the test-time resize rule, which must have one size and be the only augmentation."""
    names = [str(item["_target_"]).rpartition(".")[2] for item in augmentations]
    edges = augmentations[0]["short_edge_length"] if names == ["ResizeShortestEdge"] else ()
    sizes = {edges} if isinstance(edges, int) else set(edges)
    if len(sizes) != 1:
        seen = f"images are prepared by {', '.join(names) or 'nothing'}, not just by ResizeShortestEdge to one size"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)
    return ResizeRule(sizes.pop(), int(augmentations[0].get("max_size", _NO_LIMIT)))


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

"""Derive the input contract from a Detectron2 config, given as the plain mapping that its YAML holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from vedette_server.contract.contract import DEFAULT_INPUTS, Input, InputContract, Limits, Output, ResizeRule
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check, LoadRefusedError

FLOOR = 0.05  # Detectron2's own default threshold: low enough for evidence, high enough to cost nothing


def derive(
    config: Mapping[str, Any],
    *,
    class_names: Sequence[str],
    stuff_class_names: Sequence[str] = (),
    keypoint_names: Sequence[str] = (),
    threshold: float | None = None,
    inputs: Sequence[Input] = DEFAULT_INPUTS,
    limits: Limits | None = None,
    source_digest: str,
) -> InputContract:
    """Derive the contract.

    `threshold` is the operator's default for requests that set none; None takes the config's own.
    Raises `LoadRefusedError`: CONFIG_UNSERVABLE, CLASS_COUNT, ALWAYS_EMPTY.
    """
    model, preprocessing = config["MODEL"], config["INPUT"]
    configured = _configured_threshold(model)
    _check_class_names(model, class_names)
    _check_not_always_empty(config, configured if threshold is None else threshold)
    return InputContract(
        channel_order=ChannelOrder(preprocessing["FORMAT"]),
        resize=ResizeRule(int(preprocessing["MIN_SIZE_TEST"]), int(preprocessing["MAX_SIZE_TEST"])),
        pixel_mean=tuple(float(value) for value in model["PIXEL_MEAN"]),
        pixel_std=tuple(float(value) for value in model["PIXEL_STD"]),
        outputs=_outputs(model),
        class_names=tuple(class_names),
        stuff_class_names=tuple(stuff_class_names),
        keypoint_names=tuple(keypoint_names),
        floor=min(FLOOR, configured, configured if threshold is None else threshold),
        default_threshold=configured if threshold is None else threshold,
        max_detections=_max_detections(config),
        precision="exact",
        source_digest=source_digest,
        panoptic_threshold=_panoptic_threshold(model),
        inputs=tuple(inputs),
        limits=limits or Limits(),
    )


def _outputs(model: Mapping[str, Any]) -> tuple[Output, ...]:
    outputs = [Output.BOXES]
    if model["META_ARCHITECTURE"] != "RetinaNet":
        outputs += [Output.MASKS] if model["MASK_ON"] else []
        outputs += [Output.KEYPOINTS] if model["KEYPOINT_ON"] else []
    if model["META_ARCHITECTURE"] == "PanopticFPN":
        outputs += [Output.PANOPTIC] if model["PANOPTIC_FPN"]["COMBINE"]["ENABLED"] else []
        outputs.append(Output.SEMANTIC)
    return tuple(outputs)


def _panoptic_threshold(model: Mapping[str, Any]) -> float | None:
    if Output.PANOPTIC not in _outputs(model):
        return None
    return float(model["PANOPTIC_FPN"]["COMBINE"]["INSTANCES_CONFIDENCE_THRESH"])


def _configured_threshold(model: Mapping[str, Any]) -> float:
    match model["META_ARCHITECTURE"]:
        case "GeneralizedRCNN" | "PanopticFPN":
            return float(model["ROI_HEADS"]["SCORE_THRESH_TEST"])
        case "RetinaNet":
            return float(model["RETINANET"]["SCORE_THRESH_TEST"])
        case other:
            msg = f"MODEL.META_ARCHITECTURE is {other!r}; served are GeneralizedRCNN, RetinaNet and PanopticFPN"
            raise LoadRefusedError(Check.CONFIG_UNSERVABLE, msg)


def _check_class_names(model: Mapping[str, Any], class_names: Sequence[str]) -> None:
    key = "RETINANET" if model["META_ARCHITECTURE"] == "RetinaNet" else "ROI_HEADS"
    expected = int(model[key]["NUM_CLASSES"])
    if len(class_names) != expected:
        msg = f"{len(class_names)} class names were given for MODEL.{key}.NUM_CLASSES = {expected}; give one for each"
        raise LoadRefusedError(Check.CLASS_COUNT, msg)


def _check_not_always_empty(config: Mapping[str, Any], threshold: float) -> None:
    """Refuse settings under which no answer could ever hold a detection (a score must exceed its threshold)."""
    if not 0 <= threshold < 1:
        msg = f"the threshold is {threshold}, and no score exceeds 1; set it within 0 to 1, in model.toml or the config"
        raise LoadRefusedError(Check.ALWAYS_EMPTY, msg)
    most = int(config["TEST"]["DETECTIONS_PER_IMAGE"])
    retinanet = config["MODEL"]["META_ARCHITECTURE"] == "RetinaNet"
    if most == 0 or (retinanet and most < 0):
        meaning = "the last ones are dropped" if most < 0 else "none is ever given"
        msg = f"TEST.DETECTIONS_PER_IMAGE is {most}: {meaning}; set it to 100, Detectron2's default"
        raise LoadRefusedError(Check.ALWAYS_EMPTY, msg)


def _max_detections(config: Mapping[str, Any]) -> int | None:
    most = int(config["TEST"]["DETECTIONS_PER_IMAGE"])
    return most if most >= 0 else None

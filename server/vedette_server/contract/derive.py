"""Derive the input contract from a Detectron2 config, given as the plain mapping that its YAML holds."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vedette_server.contract.contract import DEFAULT_INPUTS, Input, InputContract, Limits, Names, Output
from vedette_server.contract.declared import Count, Declared, declared
from vedette_server.contract.loading import Check, LoadRefusedError, refuse

_MOST_STUFF = 65_536  # classes that a 16-bit map can tell apart
FLOOR = 0.05  # Detectron2's own default threshold: low enough for evidence, high enough to cost nothing


def derive(
    config: Mapping[str, Any],
    names: Names,
    *,
    threshold: float | None = None,
    plugins: Sequence[str] = (),
    inputs: Sequence[Input] = DEFAULT_INPUTS,
    limits: Limits | None = None,
    waivers: Sequence[Check] = (),
    source_digest: str,
) -> InputContract:
    """Derive the contract.

    `threshold` is the operator's default for requests that set none; None takes the config's own.
    Raises `LoadRefusedError`: CONFIG_UNSERVABLE, CLASS_COUNT, ALWAYS_EMPTY.
    """
    model = declared(config)
    default = model.threshold if threshold is None else threshold
    _check_names(model.classes, names.classes)
    _check_names(model.stuff, names.stuff)
    _check_names(model.keypoints, names.keypoints)
    _check_map_holds(model.stuff)
    _check_not_always_empty(model, default, waivers)
    return InputContract(
        channel_order=model.channel_order,
        resize=model.resize,
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
        outputs=_outputs(model),
        class_names=tuple(names.classes),
        stuff_class_names=tuple(names.stuff),
        keypoint_names=tuple(names.keypoints),
        floor=min(FLOOR, model.threshold, default),
        default_threshold=default,
        max_detections=model.most.number if model.most.number >= 0 else None,
        precision="exact",
        source_digest=source_digest,
        panoptic_threshold=model.panoptic_threshold,
        plugins=tuple(plugins),
        inputs=tuple(inputs),
        limits=limits or Limits(),
        waivers=tuple(waivers),
    )


def _outputs(model: Declared) -> tuple[Output, ...]:
    produced = {
        Output.BOXES: True,
        Output.MASKS: model.masks,
        Output.KEYPOINTS: model.keypoints is not None,
        Output.PANOPTIC: model.panoptic_threshold is not None or model.architecture == "PanopticDeepLab",
        Output.SEMANTIC: model.stuff is not None,
    }
    return tuple(output for output, is_produced in produced.items() if is_produced)


def _check_names(count: Count | None, names: Sequence[str]) -> None:
    wanted = count.number if count else 0
    if len(names) != wanted:
        which = f"{count.key} = {wanted}" if count else "stuff or keypoints, of which the model has none"
        seen = f"{len(names)} names were given for {which}"
        raise LoadRefusedError(Check.CLASS_COUNT, seen)


def _check_map_holds(stuff: Count | None) -> None:
    if stuff and stuff.number > _MOST_STUFF:
        seen = f"{stuff.key} is {stuff.number}, and a class map holds {_MOST_STUFF} classes"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)


def _check_not_always_empty(model: Declared, threshold: float, waivers: Collection[Check]) -> None:
    """Refuse settings under which no answer could ever hold a detection (a score must exceed its threshold)."""
    if not 0 <= threshold < 1:
        refuse(Check.ALWAYS_EMPTY, f"the threshold is {threshold}, and no score exceeds 1", waivers)
    most = model.most.number
    if most == 0 or (model.architecture == "RetinaNet" and most < 0):
        meaning = "the last ones are dropped" if most < 0 else "none is ever given"
        refuse(Check.ALWAYS_EMPTY, f"{model.most.key} is {most}: {meaning}", waivers)

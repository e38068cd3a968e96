"""Derivation of the input contract from a Detectron2 config, given as the plain mapping in its YAML."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vedette_server.contract import bounds
from vedette_server.contract.contract import ImageLimits, Input, InputContract, Names, default_inputs, possible
from vedette_server.contract.declaration import Count, Declared, Produced
from vedette_server.contract.declared import declared
from vedette_server.contract.loading import Check, LoadRefusedError, refuse

_DENSE = ("RetinaNet", "FCOS")  # for which a negative number of detections drops the last ones
_MOST_STUFF = 65_536  # classes that a 16-bit map can encode
FLOOR = 0.05  # Detectron2's default threshold: low enough for evidence, high enough to cost nothing


def derive(  # noqa: PLR0913  all but two are keywords
    config: Mapping[str, Any],
    names: Names,
    *,
    produced: Produced | None = None,
    threshold: float | None = None,
    plugins: Sequence[str] = (),
    inputs: Sequence[Input] | None = None,
    limits: ImageLimits | None = None,
    waivers: Sequence[Check] = (),
    source_digest: str,
) -> InputContract:
    """Derive the contract.

    `produced` holds properties observed at import that the config cannot declare. `threshold` is the operator's default
    for requests that set none; None takes the config's. `inputs` are the kinds of input that the operator allows; None
    derives them from the model's channels.

    Raises `LoadRefusedError`: CONFIG_OUT_OF_BOUNDS, CONFIG_UNSERVABLE, PROPOSALS_EXTERNAL, NAMES_MISSING, CLASS_COUNT,
    ALWAYS_EMPTY.
    """
    bounds.check(config)
    model = declared(config, produced)
    default = model.threshold if threshold is None else threshold
    if model.own_threshold:  # nothing below it is ever visible
        default = max(default, model.threshold)
    _check_names(model.classes, names.classes, "objects")
    _check_names(model.stuff, names.stuff, "stuff")
    _check_names(model.keypoints, names.keypoints, "keypoints")
    _check_map_holds(model.stuff)
    _check_not_always_empty(model, default, waivers)
    _check_inputs(inputs or (), model)
    return InputContract(
        channel_order=model.channel_order,
        resize=model.resize,
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
        outputs=model.outputs,
        class_names=tuple(names.classes),
        stuff_class_names=tuple(names.stuff),
        keypoint_names=tuple(names.keypoints),
        floor=model.threshold if model.own_threshold else min(FLOOR, model.threshold, default),
        default_threshold=default,
        max_detections=_most(model),
        precision="exact",
        source_digest=source_digest,
        panoptic_threshold=model.panoptic_threshold,
        plugins=tuple(plugins),
        inputs=default_inputs(model.channel_order) if inputs is None else tuple(inputs),
        limits=limits or ImageLimits(),
        waivers=tuple(waivers),
        own_threshold=model.own_threshold,
        box_masks=model.box_masks,
    )


def _most(model: Declared) -> int | None:
    most = model.most.number
    return None if most is None or most < 0 else most


def _check_inputs(inputs: Sequence[Input], model: Declared) -> None:
    """Refuse inputs that the operator allows but the model cannot use."""
    if wrong := [item for item in inputs if item not in possible(model.channel_order)]:
        allowed, channels = ", ".join(possible(model.channel_order)), len(model.pixel_mean)
        seen = (
            f"model.toml allows {', '.join(wrong)} as inputs of a model of {channels} channels, which takes {allowed}"
        )
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)


def _check_names(count: Count | None, names: Sequence[str], of: str) -> None:
    if count is None:
        if names:
            raise LoadRefusedError(Check.CLASS_COUNT, f"{len(names)} names were given for {of}, but the model has none")
    elif count.number is None:
        if not names:
            raise LoadRefusedError(Check.NAMES_MISSING, f"nothing names its {of} ({count.key})")
    elif len(names) != count.number:
        seen = f"{len(names)} names were given for {count.key} = {count.number}"
        raise LoadRefusedError(Check.CLASS_COUNT, seen)


def _check_map_holds(stuff: Count | None) -> None:
    if stuff and stuff.number and stuff.number > _MOST_STUFF:
        seen = f"{stuff.key} is {stuff.number}, but a class map holds at most {_MOST_STUFF} classes"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, seen)


def _check_not_always_empty(model: Declared, threshold: float, waivers: Collection[Check]) -> None:
    """Refuse settings under which no answer can contain a detection (a score must exceed its threshold)."""
    if not 0 <= threshold < 1:
        refuse(Check.ALWAYS_EMPTY, f"the threshold is {threshold}, and no score exceeds 1", waivers)
    most = model.most.number or 0
    if model.most.number == 0 or (model.architecture in _DENSE and most < 0):
        meaning = "the last ones are dropped" if most < 0 else "none is ever given"
        refuse(Check.ALWAYS_EMPTY, f"{model.most.key} is {most}: {meaning}", waivers)

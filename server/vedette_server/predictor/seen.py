"""Observation of a model's outputs that its config cannot declare, by running it once as Detectron2 would."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vedette_server.contract.contract import Output
from vedette_server.contract.declaration import FAMILIES, Prepared, Produced, outputs
from vedette_server.contract.declared import prepared
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import Options
from vedette_server.predictor import operators, prove
from vedette_server.predictor.encode import rotated
from vedette_server.predictor.observe import place
from vedette_server.predictor.returned import UnservableError, objects

# Selected after the model, with outputs declared by the config.
_RETURNED = ("SemanticSegmentor", "ProposalNetwork", "PanopticDeepLab")
_COLOUR = 3  # channels


def see(model: nn.Module, config: Mapping[str, Any]) -> Produced | None:
    """Return a model's observed properties, in evaluation mode; None if its config declares them all.

    Raises `LoadRefusedError`: CONFIG_UNSERVABLE, OPERATORS_MISSING, OUTPUT_UNSERVABLE, INFERENCE_FAILS.
    """
    taken = prepared(config)
    name, family = taken.architecture, _family(model)
    if name in _RETURNED or (name in FAMILIES and place(model)):
        return None
    if name in FAMILIES:  # with a project's own heads
        return Produced(family=name)
    operators.check(model)
    mean, std = _normalised(model)
    channels = len(taken.pixel_mean or mean)
    if family in _RETURNED or _selects_within(model, taken, channels):
        return Produced(family=family, own_threshold=False, pixel_mean=mean, pixel_std=std)
    return _given(_run(model, taken, channels), model, mean, std)


def _family(model: nn.Module) -> str:
    return next((kind.__name__ for kind in type(model).__mro__ if kind.__name__ in FAMILIES), "")


def _selects_within(model: nn.Module, taken: Prepared, channels: int) -> bool:
    """Return whether a model that extends a family selects in the same place, by trying a copy."""
    model = copy.deepcopy(model)
    put = place(model)
    if put is None:
        return False
    selector = put(0.0)
    selector.begin([Options(threshold=0.0, outputs=(Output.BOXES,), max_detections=1)])
    _run(model, taken, channels)
    return len(selector.choices) == 1


@torch.inference_mode()
def _run(model: nn.Module, taken: Prepared, channels: int) -> Any:  # noqa: ANN401  a model may return anything
    """Return a model's output for a picture. Raises `LoadRefusedError`: INFERENCE_FAILS."""
    height, width = prove.SIZE
    try:
        return model([{"image": prove.picture(taken.resize, channels), "height": height, "width": width}])
    except Exception as error:  # a model may raise anything
        raise prove.failure(error) from error


def _given(returned: Any, model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Produced:  # noqa: ANN401  of any model
    """Derive the properties from a model's output for one picture. Raises `LoadRefusedError`: OUTPUT_UNSERVABLE."""
    if not (isinstance(returned, list) and len(returned) == 1 and isinstance(returned[0], Mapping)):
        seen = f"it returns a {type(returned).__name__} for one picture, not a list with one dictionary"
        raise LoadRefusedError(Check.OUTPUT_UNSERVABLE, seen)
    output = returned[0]
    has = {name: name in output for name in ("instances", "proposals", "sem_seg", "panoptic_seg")}
    if not any(has.values()):
        seen = f"it returns {', '.join(map(str, output)) or 'nothing'}: none of {', '.join(has)}"
        raise LoadRefusedError(Check.OUTPUT_UNSERVABLE, seen)
    try:
        found = objects(output, prove.SIZE)
    except UnservableError as error:
        raise LoadRefusedError(Check.OUTPUT_UNSERVABLE, str(error)) from error
    classes = getattr(model, "num_classes", None)
    return Produced(
        outputs=outputs(
            boxes=has["instances"] or has["proposals"],
            rotated=rotated(found),
            masks=found.has("pred_masks"),
            keypoints=found.has("pred_keypoints"),
            panoptic=has["panoptic_seg"],
            semantic=has["sem_seg"],
        ),
        classes=1 if has["proposals"] else classes if isinstance(classes, int) and classes > 0 else None,
        keypoints=int(found.pred_keypoints.shape[1]) if found.has("pred_keypoints") else None,
        stuff=len(output["sem_seg"]) if has["sem_seg"] else None,
        pixel_mean=mean,
        pixel_std=std,
    )


def _normalised(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation in a model; 0 and 1 if it normalises differently."""
    held = [getattr(model, name, None) for name in ("pixel_mean", "pixel_std")]
    mean, std = (tuple(map(float, value.flatten())) if isinstance(value, torch.Tensor) else () for value in held)
    if mean and std:
        return mean, std
    return (0.0,) * _COLOUR, (1.0,) * _COLOUR

"""Strict comparison of tensors with a model: nothing is skipped, and nothing stays random.

Detectron2's own loader logs mismatches and continues; a head that stays random may then find nothing for weeks.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from vedette_server.contract.loading import Check, LoadRefusedError, refuse

_SHOWN = 5  # names in a message
# Constants in older checkpoints, which today's models derive from their config, and counters unused in inference.
_DERIVED = ("pixel_mean", "pixel_std")
_DERIVED_PARTS = ("anchor_generator.cell_anchors", "num_batches_tracked")
_BACKBONE, _FEW = "backbone.bottom_up", 2
_SWITCHES = {"roi_heads.mask_": "MODEL.MASK_ON", "roi_heads.keypoint_": "MODEL.KEYPOINT_ON"}
_CLASS_LAYERS = ("cls_score", "bbox_pred", "mask_head.predictor")


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], waivers: Collection[Check] = ()) -> None:
    """Load `tensors` into `model`, ignoring mismatches that the operator has waived, as Detectron2 would.

    Raises `LoadRefusedError`: BACKBONE_ONLY, SWITCH_DISAGREES, CLASS_COUNT, TENSORS_MISSHAPEN, TENSORS_MISSING,
    TENSORS_UNEXPECTED, VALUES_NOT_FINITE.
    """
    needed = wanted(model)
    given = {name: value for name, value in tensors.items() if not is_derived(name)}
    missing = [name for name in needed if name not in given]
    unexpected = [name for name in given if name not in needed]
    _check_backbone_only(needed, missing, unexpected)
    if Check.TENSORS_MISSING not in waivers:
        _check_switches(missing, "missing from the weights, but {key} requires them")
    if Check.TENSORS_UNEXPECTED not in waivers:
        _check_switches(unexpected, "in the weights, but {key} excludes them")
    _check_shapes(needed, given)
    if missing:
        seen = f"{len(missing)} of {len(needed)} tensors missing from the weights: {_names(missing)}"
        refuse(Check.TENSORS_MISSING, seen, waivers)
    if unexpected:
        refuse(Check.TENSORS_UNEXPECTED, f"{_names(unexpected)} not part of this model", waivers)
    _check_finite(given, waivers)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    fitting = {name: value for name, value in tensors.items() if shapes.get(name) == value.shape}  # includes counters
    model.load_state_dict(fitting, strict=False)


def wanted(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model requires, by name."""
    return {name: value for name, value in model.state_dict().items() if not is_derived(name)}


def is_derived(name: str) -> bool:
    """Return whether a tensor is one that the model creates itself."""
    return name in _DERIVED or any(part in name for part in _DERIVED_PARTS)


def _check_backbone_only(needed: Mapping[str, Tensor], missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Refuse a backbone, possibly with a classifier of its own; heads under other names are a different fault."""
    heads = [name for name in needed if not name.startswith(_BACKBONE)]
    none = heads and set(heads) <= set(missing)
    if none and len(missing) < len(needed) and _FEW * len(unexpected) < len(heads):
        raise LoadRefusedError(Check.BACKBONE_ONLY, f"{_names(heads)} missing, so there is no head at all")


def _check_switches(names: Sequence[str], seen: str) -> None:
    for prefix, key in _SWITCHES.items():
        part = [name for name in names if name.startswith(prefix)]
        if part and len(part) == len(names):
            raise LoadRefusedError(Check.SWITCH_DISAGREES, f"{_names(part)} {seen.format(key=key)}")


def _check_shapes(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    for name, value in needed.items():
        if name in given and (given[name].is_floating_point() != value.is_floating_point() or given[name].is_complex()):
            seen = f"{name} is {given[name].dtype} instead of {value.dtype}: its numbers have another meaning"
            raise LoadRefusedError(Check.TENSORS_MISSHAPEN, seen, "save it as it was in training, not quantised")
    pairs = {name: (value.shape, given[name].shape) for name, value in needed.items() if name in given}
    wrong = {name: shapes for name, shapes in pairs.items() if shapes[0] != shapes[1]}
    if not wrong:
        return
    told = "; ".join(
        f"{name} is {list(seen)} instead of {list(right)}" for name, (right, seen) in [*wrong.items()][:_SHOWN]
    )
    if all(any(layer in name for layer in _CLASS_LAYERS) for name in wrong):
        msg = f"{told}: the weights' number of classes differs from NUM_CLASSES"
        raise LoadRefusedError(Check.CLASS_COUNT, msg)
    raise LoadRefusedError(Check.TENSORS_MISSHAPEN, f"{len(wrong)} tensors have another shape: {told}")


def _check_finite(given: Mapping[str, Tensor], waivers: Collection[Check]) -> None:
    floats = {name: value for name, value in given.items() if value.is_floating_point()}
    broken = [name for name, value in floats.items() if not torch.isfinite(value.to(torch.float32)).all()]
    if broken:
        refuse(Check.VALUES_NOT_FINITE, f"NaN or infinite values in {_names(broken)}", waivers)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

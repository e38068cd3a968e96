"""Detection of the first stage of a model with non-finite values.

Detectron2 silently drops such values, so that broken weights look like an empty scene.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.structures import Instances
from torch import Tensor, nn

_INNER = ".bottom_up"
_RESULTS = ("mask_head", "keypoint_head")  # return instances; their prediction is the output of their last part


def tensors(output: Any) -> Iterator[Tensor]:  # noqa: ANN401  any output of a stage
    """Yield the non-empty floating-point tensors in a stage's output."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, Instances):
        yield from tensors(list(output.get_fields().values()))
    elif isinstance(output, Mapping):
        yield from tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for item in output:
            yield from tensors(item)
    else:
        yield from tensors(getattr(output, "tensor", ()))  # boxes and other structures


def within(output: Any, limit: float = math.inf) -> bool:  # noqa: ANN401  any output of a stage
    """Return whether all values are finite, with magnitudes below `limit`. Reads the device once."""
    ends = [end for tensor in tensors(output) for end in torch.aminmax(tensor)]
    return not ends or all(-limit < value < limit for value in torch.stack(ends).tolist())


class Stages:
    """Observer of each stage's output, for the whole batch: it does not tell images apart."""

    def __init__(self, model: nn.Module) -> None:
        self._names: list[str] = []
        self._ends: list[Tensor] = []  # minimum and maximum of each tensor: one pass, and a NaN shows in both
        self._inner: tuple[str, object] = "", ()  # output of a ResNet to the FPN on top of it
        for name, module in _stages(model):
            see = self._see_inner if name.endswith(_INNER) else self._see
            module.register_forward_hook(functools.partial(see, name))

    def begin(self) -> None:
        """Forget the last batch."""
        self._names, self._ends, self._inner = [], [], ("", ())

    def not_finite(self) -> str:
        """Return the first stage, in execution order, with non-finite values; empty if there is none."""
        values = torch.stack(self._ends).tolist() if self._ends else []  # one device read for all stages
        first = next((name for name, value in zip(self._names, values, strict=True) if not math.isfinite(value)), "")
        inner, output = self._inner
        return inner if inner == first + _INNER and not within(output) else first

    def _see(self, name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        for tensor in tensors(output):
            self._ends += torch.aminmax(tensor)
            self._names += (name, name)

    def _see_inner(self, name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        """Keep the output for inspection only if the FPN's is not finite, because it is large."""
        self._inner = name, output


def _stages(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts to observe, each with its path in the checkpoint."""
    for name, part in _with_weights(model):
        inner = dict(_with_weights(part))
        if isinstance(part, ROIHeads):
            for head, module in inner.items():
                yield from _roi_stages(f"{name}.{head}", module)
            continue
        predictors = {key: value for key, value in inner.items() if key.endswith("predictor")}
        if predictors:  # their output is the head's, before upsampling to the image's size
            yield from ((f"{name}.{key}", value) for key, value in predictors.items())
        elif "rpn_head" in inner:
            yield f"{name}.rpn_head", inner["rpn_head"]
        else:
            if "bottom_up" in inner:  # distinguishes a ResNet from the FPN on top of it
                yield name + _INNER, inner["bottom_up"]
            yield name, part


def _roi_stages(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.ModuleList):  # stages of a cascade
        yield from ((f"{name}.{key}", value) for key, value in module.named_children())
        return
    if name.endswith(_RESULTS):  # conversion to instances may fail on a bad prediction, or hide it
        yield from ((name, last) for _, last in list(_with_weights(module))[-1:])
    yield name, module


def _with_weights(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, child) for name, child in module.named_children() if next(child.parameters(), None) is not None)

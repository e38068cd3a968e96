"""A trial run of Detectron2's compiled operators: those in a model are tried before it serves."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from detectron2.layers import DeformConv, ModulatedDeformConv, batched_nms_rotated
from detectron2.layers.roi_align_rotated import ROIAlignRotated
from detectron2.modeling.proposal_generator.rrpn import RRPN
from detectron2.modeling.roi_heads.rotated_fast_rcnn import RotatedFastRCNNOutputLayers
from torch import Tensor, nn

from vedette_server.contract.loading import Check, LoadRefusedError

Trial: TypeAlias = Callable[[nn.Module, torch.device], Tensor]


@torch.inference_mode()
def check(model: nn.Module) -> None:
    """Try each kind of operator once, as configured in the model. Raises `LoadRefusedError`: OPERATORS_MISSING."""
    device = next(model.parameters()).device
    tried: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        for kind, attempt in _TRIALS.items():
            if isinstance(module, kind):
                tried.setdefault(kind.__name__, []).append(name)
                if len(tried[kind.__name__]) == 1:
                    _try(attempt, module, device, f"{name} is a {kind.__name__}")


def _try(attempt: Trial, module: nn.Module, device: torch.device, what: str) -> None:
    try:
        attempt(module, device)
    except Exception as error:  # each build reports it differently
        reason = str(error).partition("\n")[0].partition(". ")[0]
        msg = f"{what}, which does not run on {device}: {type(error).__name__}: {reason}"
        raise LoadRefusedError(Check.OPERATORS_MISSING, msg) from error


def _deform(module: nn.Module, device: torch.device) -> Tensor:
    """Run a deformable convolution on a picture just large enough for one output pixel."""
    assert isinstance(module, DeformConv | ModulatedDeformConv)  # noqa: S101  guaranteed by the table
    kernel, dilation = module.kernel_size, _pair(module.dilation)
    edges = [spread * (edge - 1) + 1 for edge, spread in zip(kernel, dilation, strict=True)]
    padding, stride = _pair(module.padding), _pair(module.stride)
    sizes = [(edge + 2 * pad - edge) // step + 1 for edge, pad, step in zip(edges, padding, stride, strict=True)]
    image = torch.zeros(1, module.in_channels, *edges, device=device)
    count = kernel[0] * kernel[1] * module.deformable_groups
    offset = torch.zeros(1, 2 * count, *sizes, device=device)
    masks = (torch.ones(1, count, *sizes, device=device),) if isinstance(module, ModulatedDeformConv) else ()
    given: Tensor = module(image, offset, *masks)
    return given


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _align(module: nn.Module, device: torch.device) -> Tensor:
    given: Tensor = module(torch.zeros(1, 1, 4, 4, device=device), torch.tensor([[0.0, 2, 2, 2, 2, 0]], device=device))
    return given


def _suppress(_module: nn.Module, device: torch.device) -> Tensor:
    boxes = torch.tensor([[2.0, 2, 2, 2, 0], [9.0, 9, 2, 2, 30]], device=device)
    kept: Tensor = batched_nms_rotated(boxes, torch.tensor([0.5, 0.4], device=device), torch.zeros(2).to(boxes), 0.5)
    return kept


_TRIALS: dict[type[nn.Module], Trial] = {
    DeformConv: _deform,
    ModulatedDeformConv: _deform,
    ROIAlignRotated: _align,
    RRPN: _suppress,
    RotatedFastRCNNOutputLayers: _suppress,
}

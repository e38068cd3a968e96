"""Modulated deformable convolution on a CPU: torchvision's, where Detectron2's own needs a GPU and a compiler."""

from typing import Any

from detectron2.layers import ModulatedDeformConv
from torch import Tensor
from torchvision.ops import deform_conv2d


def forward(self: Any, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """The module's output, by another operator."""
    x = deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
    if self.norm is not None:
        x = self.norm(x)
    return x if self.activation is None else self.activation(x)


ModulatedDeformConv.forward = forward

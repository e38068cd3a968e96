"""ViTDet, small: a plain vision transformer, and a feature pyramid made of its last map alone (Li et al., 2022)."""

import functools

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional

PATCH = 16  # pixels


def add_vit_config(config: CfgNode) -> None:
    """The keys that it reads."""
    config.MODEL.VIT = CfgNode({"WIDTH": 32, "DEPTH": 2, "HEADS": 4, "POSITIONS": 14})


class Block(nn.Module):
    """Attention over all patches, then a perceptron, each on top of what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = self.mlp(self.norm2(x))
        return x + out


class SimplePyramid(Backbone):  # type: ignore[misc]  # detectron2 is untyped
    """Maps of strides 4 to 32, each by (de)convolution from the transformer's last, and one more for the RPN."""

    def __init__(self, config: CfgNode) -> None:
        super().__init__()
        keys, out = config.MODEL.VIT, config.MODEL.FPN.OUT_CHANNELS
        width = keys.WIDTH
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn(1, width, keys.POSITIONS, keys.POSITIONS) * 0.02)
        self.blocks = nn.ModuleList(Block(width, keys.HEADS) for _ in range(keys.DEPTH))
        double = functools.partial(nn.ConvTranspose2d, width, width, 2, 2)
        scales: list[list[nn.Module]] = [[double(), nn.GELU(), double()], [double()], [], [nn.MaxPool2d(2)]]
        self.stages = nn.ModuleList(nn.Sequential(*scale, nn.Conv2d(width, out, 1)) for scale in scales)
        self._out = out

    @property
    def size_divisibility(self) -> int:
        return 2 * PATCH

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patches(x)
        height, width = x.shape[2:]
        x = x + functional.interpolate(self.positions, (height, width), mode="bicubic", align_corners=False)
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        x = x.transpose(1, 2).reshape(len(x), -1, height, width)
        maps = [stage(x) for stage in self.stages]
        maps.append(functional.max_pool2d(maps[-1], 1, 2))
        return {f"p{level}": one for level, one in enumerate(maps, start=2)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"p{level}": ShapeSpec(channels=self._out, stride=2**level) for level in range(2, 7)}


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]  # the same
def build_simple_pyramid(config: CfgNode, _shape: ShapeSpec) -> SimplePyramid:
    """The backbone, by its name in a config."""
    return SimplePyramid(config)

"""A Detectron2 project as its users write them: a key of its own, and a box head that reads it."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, FastRCNNConvFCHead


def add_project_config(cfg: CfgNode) -> None:
    cfg.MODEL.SCALED_HEAD = CfgNode({"SCALE": 1.0})


@ROI_BOX_HEAD_REGISTRY.register()
class ScaledHead(FastRCNNConvFCHead):  # type: ignore[misc]  # detectron2 is untyped
    """Detectron2's own head, its features scaled."""

    @configurable  # type: ignore[untyped-decorator]  # the same
    def __init__(self, *args: object, scale: float, **rest: object) -> None:
        super().__init__(*args, **rest)
        self.scale = scale

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: object) -> dict[str, object]:
        return {**super().from_config(cfg, input_shape), "scale": cfg.MODEL.SCALED_HEAD.SCALE}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = super().forward(x)
        return features * self.scale

"""A model that returns what its config tells it to: mostly what cannot be served."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import nn


def add_odd_config(config: CfgNode) -> None:
    """The key that it reads."""
    config.MODEL.ODD = CfgNode({"RETURNS": "", "SCORE_THRESH_TEST": 0.25})


def _instances(size: tuple[int, int], **changes: Any) -> Instances:
    fields = {
        "pred_boxes": Boxes(torch.tensor([[1.0, 2, 30, 40], [5, 5, 60, 50], [7, 8, 9, 10]])),
        "scores": torch.tensor([0.3, 0.9, 0.2]),
        "pred_classes": torch.tensor([1, 0, 1]),
    }
    return Instances(size, **{key: value for key, value in {**fields, **changes}.items() if value is not None})


RETURNS: dict[str, Callable[[tuple[int, int]], Any]] = {
    "objects": lambda size: [{"instances": _instances(size)}],
    "no number": lambda size: [{"instances": _instances(size, scores=torch.tensor([0.3, 0.9, float("nan")]))}],
    "a dictionary": lambda size: {"instances": _instances(size)},
    "other keys": lambda _size: [{"pred_logits": 1, "pred_boxes": 2}],
    "no scores": lambda size: [{"instances": _instances(size, scores=None)}],
    "no classes": lambda size: [{"instances": _instances(size, pred_classes=None)}],
    "no boxes": lambda size: [{"instances": _instances(size, pred_boxes=None)}],
    "the resized size": lambda size: [{"instances": _instances((size[0] + 1, size[1]))}],
    "another class": lambda size: [{"instances": _instances(size, pred_classes=torch.tensor([1, 7, 1]))}],
    "masks of their boxes": lambda size: [{"instances": _instances(size, pred_masks=torch.ones(3, 1, 28, 28))}],
    "a small class map": lambda size: [{"sem_seg": torch.zeros(2, size[0] // 4, size[1] // 4)}],
    "labels alone": lambda size: [{"panoptic_seg": (torch.ones(size, dtype=torch.int32), None)}],
    "nothing at all": lambda _size: 1 / 0,
}


@META_ARCH_REGISTRY.register()
class Odd(nn.Module):
    """Looks at no picture."""

    def __init__(self, config: CfgNode) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.returns = RETURNS[config.MODEL.ODD.RETURNS]

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        (item,) = batch
        return self.returns((item["height"], item["width"]))

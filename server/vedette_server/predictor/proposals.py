"""Observation of a region proposal network: its proposals, and those that reach the box head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn

from vedette_server.predictor.finite import within


@dataclass(frozen=True)
class Proposed:
    """The regions of one image; None if the model has no proposals, or none that are observable."""

    before: int | None = None  # input of non-maximum suppression, over all levels
    after: int | None = None  # input of the box head
    dropped: int = 0  # of those before, with a non-finite score or box


class Proposals:
    """Observer of a proposal generator's results."""

    def __init__(self, generator: Any) -> None:  # noqa: ANN401  detectron2 is untyped
        self._generator = generator
        self.begin()
        generator.register_forward_hook(self._generated)
        if isinstance(generator, RPN):
            self._predict, self._decode = generator.predict_proposals, generator._decode_proposals  # noqa: SLF001
            generator.predict_proposals = self._predicting
            generator._decode_proposals = self._decoding  # noqa: SLF001  the boxes are accessible nowhere else

    def begin(self) -> None:
        """Forget the last batch."""
        self._logits: Sequence[Tensor] = ()  # per level: (N, anchors)
        self._boxes: Sequence[Tensor] = ()  # per level: (N, anchors, 4)
        self._after: list[int] = []

    def of_images(self, count: int) -> list[Proposed]:
        """Return the proposals in each image of the batch."""
        before: int | None = None
        dropped = [0] * count
        if self._logits:
            before = sum(self._considered(logits) for logits in self._logits)
            dropped = [0] * count if within([self._logits, self._boxes]) else self._dropped()
        return [Proposed(before, *item) for item in zip(self._after, dropped, strict=True)]

    def _considered(self, logits: Tensor) -> int:
        """Return the number of considered anchors on a level: the best, up to the config's limit."""
        return min(logits.shape[1], int(self._generator.pre_nms_topk[False]))

    def _dropped(self) -> list[int]:
        """Count the anchors that `find_top_rpn_proposals` drops; it sorts NaN above all numbers."""
        counts = []
        for logits, boxes in zip(self._logits, self._boxes, strict=True):
            considered = logits.sort(descending=True, dim=1).indices[:, : self._considered(logits)]
            broken = ~(torch.isfinite(logits) & torch.isfinite(boxes).all(dim=2))
            counts.append(broken.gather(1, considered).sum(dim=1))
        return [int(count) for count in torch.stack(counts).sum(dim=0).tolist()]

    def _predicting(self, anchors: Any, logits: list[Tensor], *others: Any, **named: Any) -> Any:  # noqa: ANN401  detectron2 is untyped
        self._logits = logits
        return self._predict(anchors, logits, *others, **named)

    def _decoding(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  detectron2 is untyped
        self._boxes = self._decode(*arguments, **named)
        return self._boxes

    def _generated(self, _module: nn.Module, _inputs: object, output: tuple[list[Any], object]) -> None:
        self._after = [len(instances) for instances in output[0]]

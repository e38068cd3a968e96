"""What a region proposal network proposes, and what becomes of it before the box head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn

from vedette_server.predictor.finite import within


@dataclass(frozen=True)
class Proposed:
    """The regions of one image; None: the model proposes none, or not in a way that is known."""

    before: int | None = None  # what non-maximum suppression is given, of all levels
    after: int | None = None  # what the box head is given
    dropped: int = 0  # of those before, the ones whose score or box is not finite


class Proposals:
    """Stands at a proposal generator and remembers what passes."""

    def __init__(self, generator: Any) -> None:  # noqa: ANN401  detectron2 is untyped
        self._generator = generator
        self.begin()
        generator.register_forward_hook(self._generated)
        if isinstance(generator, RPN):
            self._predict, self._decode = generator.predict_proposals, generator._decode_proposals  # noqa: SLF001
            generator.predict_proposals = self._predicting
            generator._decode_proposals = self._decoding  # noqa: SLF001  no other place sees the boxes

    def begin(self) -> None:
        """Forget the last batch."""
        self._logits: Sequence[Tensor] = ()  # of each level: (N, anchors)
        self._boxes: Sequence[Tensor] = ()  # of each level: (N, anchors, 4)
        self._after: list[int] = []

    def of_images(self, count: int) -> list[Proposed]:
        """What was proposed in each image of the batch."""
        before: int | None = None
        dropped = [0] * count
        if self._logits:
            before = sum(self._considered(logits) for logits in self._logits)
            dropped = [0] * count if within([self._logits, self._boxes]) else self._dropped()
        return [Proposed(before, *item) for item in zip(self._after, dropped, strict=True)]

    def _considered(self, logits: Tensor) -> int:
        """How many anchors of a level are considered: the best, as many as the config says."""
        return min(logits.shape[1], int(self._generator.pre_nms_topk[False]))

    def _dropped(self) -> list[int]:
        """How many of those `find_top_rpn_proposals` then drops; to its order a NaN is higher than any number."""
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

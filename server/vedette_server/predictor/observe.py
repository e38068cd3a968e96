"""Set a model's threshold for one request, and see what it scored below that.

Detectron2 drops what does not pass the threshold deep inside the model. An observer stands at that place: it lets the
model select at the request's threshold, which makes the answer, then once more at the floor, which makes the evidence.
The answer is thus Detectron2's own, and does not depend on being observed.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from detectron2.modeling.meta_arch import RetinaNet
from torch import Tensor, nn

from vedette_server.contract.answer import Evidence

_ANY_NUMBER = 1_000_000  # negative numbers, which R-CNN takes to mean that, mean something else to RetinaNet


class Observer(Protocol):
    """What stands at a model's final selection."""

    threshold: float
    evidence: Evidence

    def attach(self) -> None:
        """Take the place in the model."""


def observer(model: nn.Module, floor: float) -> Observer:
    """The observer for a model's family, attached to it."""
    watcher: Observer = RetinaNetObserver(model, floor) if isinstance(model, RetinaNet) else RcnnObserver(model, floor)
    watcher.attach()
    return watcher


def _best(scores: Sequence[Tensor]) -> tuple[float | None, int | None]:
    """The highest finite score and its class, of tensors of shape (any, classes)."""
    best: tuple[float | None, int | None] = (None, None)
    for level in scores:
        if level.numel():
            per_class = torch.nan_to_num(level, nan=-math.inf, posinf=-math.inf).amax(dim=0)
            score, class_id = per_class.max(dim=0)
            if torch.isfinite(score) and (best[0] is None or float(score) > best[0]):
                best = (float(score), int(class_id))
    return best


def _suppressed(scores: Tensor, threshold: float) -> int:
    return int((scores <= threshold).sum())


NOTHING_SCORED = Evidence(best_score=None, best_class_id=None, suppressed=0)


class RcnnObserver:
    """Stands at `FastRCNNOutputLayers.inference`, before the mask and keypoint heads run on what it keeps."""

    def __init__(self, model: nn.Module, floor: float) -> None:
        self.threshold = floor
        self.evidence = NOTHING_SCORED
        self._floor = floor
        self._layers: Any = model.roi_heads.box_predictor  # type: ignore[union-attr]  # detectron2 is untyped

    def attach(self) -> None:
        """Take the place of the layers' own `inference`."""
        self._original = self._layers.inference
        self._layers.inference = self._inference

    def _inference(self, predictions: tuple[Tensor, Tensor], proposals: list[Any]) -> tuple[list[Any], list[Tensor]]:
        self._layers.test_score_thresh = self.threshold
        kept: tuple[list[Any], list[Tensor]] = self._original(predictions, proposals)
        self.evidence = self._observe(predictions, proposals)
        return kept

    def _observe(self, predictions: tuple[Tensor, Tensor], proposals: list[Any]) -> Evidence:
        (scores,) = self._layers.predict_probs(predictions, proposals)  # one image: (R, K + 1), background last
        score, class_id = _best([scores[:, :-1]])
        if score is None or score <= self._floor:
            return Evidence(score, class_id, suppressed=0)
        most = self._layers.test_topk_per_image
        self._layers.test_score_thresh, self._layers.test_topk_per_image = self._floor, _ANY_NUMBER
        (low,), _indices = self._original(predictions, proposals)
        self._layers.test_topk_per_image = most
        return Evidence(score, class_id, _suppressed(low.scores, self.threshold))


class RetinaNetObserver:
    """Stands at `RetinaNet.inference_single_image`."""

    def __init__(self, model: nn.Module, floor: float) -> None:
        self.threshold = floor
        self.evidence = NOTHING_SCORED
        self._floor = floor
        self._model: Any = model

    def attach(self) -> None:
        """Take the place of the model's own `inference_single_image`."""
        self._original = self._model.inference_single_image
        self._model.inference_single_image = self._inference

    def _inference(self, anchors: Any, scores: list[Tensor], deltas: list[Tensor], size: tuple[int, int]) -> Any:  # noqa: ANN401  detectron2 is untyped
        self._model.test_score_thresh = self.threshold
        kept = self._original(anchors, scores, deltas, size)
        score, class_id = _best(scores)
        suppressed = 0
        if score is not None and score > self._floor:
            most = self._model.max_detections_per_image
            self._model.test_score_thresh, self._model.max_detections_per_image = self._floor, _ANY_NUMBER
            suppressed = _suppressed(self._original(anchors, scores, deltas, size).scores, self.threshold)
            self._model.max_detections_per_image = most
        self.evidence = Evidence(score, class_id, suppressed)
        return kept

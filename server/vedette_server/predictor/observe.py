"""Apply a request's options where Detectron2 itself selects, and see what it scored below the threshold.

Detectron2 drops what does not pass the threshold deep inside the model. An observer stands at that place: it lets the
model select at the request's threshold, keeps the wanted classes up to the wanted number, and so decides what the
mask and keypoint heads run on. That selection is the answer. Then the model selects once more at the floor, for the
evidence.
The answer is thus Detectron2's own, and does not depend on being observed.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from vedette_server.contract.answer import Evidence
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import Options

_ANY_NUMBER = 1_000_000  # negative numbers, which R-CNN takes to mean that, mean something else to RetinaNet


class Observer(Protocol):
    """What stands at a model's final selection."""

    evidence: list[Evidence]  # of each image of the batch, in order

    def begin(self, options: Sequence[Options]) -> None:
        """Tell what is asked of each image of the batch that the model is given next."""


def observer(model: nn.Module, floor: float, *, observe: bool) -> Observer:
    """The observer for a model's family, in its place; without `observe` it leaves the evidence empty.

    Raises `LoadRefusedError`: CONFIG_UNSERVABLE.
    """
    del observe
    if isinstance(model, RetinaNet):
        return RetinaNetObserver(model, floor)
    if type(model).__name__ == "PanopticDeepLab":  # a project's, which need not be installed
        return DeepLabObserver(model)
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    if not isinstance(predictor, FastRCNNOutputLayers):
        msg = f"the boxes of a {type(model).__name__} are selected by a {type(predictor).__name__}"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, msg)
    return RcnnObserver(model, floor)


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


def _evidence(score: float | None, class_id: int | None, suppressed: int, filtered: int) -> Evidence:
    best = np.zeros(0 if class_id is None else class_id + 1, np.float32)
    if score is not None:
        best[-1] = score
    return Evidence(best, scored=len(best), suppressed=suppressed, filtered=filtered)


def _wanted(instances: Any, options: Options) -> tuple[Tensor, int]:  # noqa: ANN401  detectron2 is untyped
    """Indices of the instances asked for, in the order given, and how many the class filter took."""
    indices = torch.arange(len(instances), device=instances.scores.device)
    if options.class_ids is not None:
        classes = torch.tensor(options.class_ids, device=indices.device)
        indices = indices[torch.isin(instances.pred_classes, classes)]
    filtered = len(instances) - len(indices)
    return indices if options.max_detections is None else indices[: options.max_detections], filtered


class _Selection:
    """A model's final selection, with its threshold and its number of detections as attributes of `owner`."""

    number: str  # the attribute that holds the number of detections

    def __init__(self, owner: Any, floor: float) -> None:  # noqa: ANN401  detectron2 is untyped
        self.evidence: list[Evidence] = []
        self._options: Sequence[Options] = ()
        self._owner = owner
        self._floor = floor

    def begin(self, options: Sequence[Options]) -> None:
        """Tell what is asked of each image of the next batch."""
        self._options, self.evidence = options, []

    def _select(self, select: Callable[[], tuple[Any, Any]], scores: Sequence[Tensor]) -> tuple[Any, Any]:
        """The next image's instances as Detectron2 configured so would give them, and what else `select` gives of each.

        `scores` are what the model scored, of shape (any, classes): they are the evidence.
        """
        options = self._options[len(self.evidence)]
        self._open_to(options.threshold)
        instances, others = select()
        wanted, filtered = _wanted(instances, options)
        score, class_id = _best(scores)
        suppressed = 0
        if score is not None and score > self._floor:
            self._open_to(self._floor)
            suppressed = int((select()[0].scores <= options.threshold).sum())
        self.evidence.append(_evidence(score, class_id, suppressed, filtered))
        return instances[wanted], others[wanted]

    def _open_to(self, threshold: float) -> None:
        """Let the model's next selection be everything above `threshold`, however much that is."""
        self._owner.test_score_thresh = threshold
        setattr(self._owner, self.number, _ANY_NUMBER)


class RcnnObserver(_Selection):
    """Stands at `FastRCNNOutputLayers.inference`, before the mask and keypoint heads run on what it keeps."""

    number = "test_topk_per_image"

    def __init__(self, model: nn.Module, floor: float) -> None:
        layers: Any = model.roi_heads.box_predictor  # type: ignore[union-attr]  # detectron2 is untyped
        super().__init__(layers, floor)
        self._original = layers.inference
        layers.inference = self._inference

    def _inference(self, predictions: tuple[Tensor, Tensor], proposals: list[Any]) -> tuple[list[Any], list[Tensor]]:
        counts = [len(item) for item in proposals]
        every_score = self._owner.predict_probs(predictions, proposals)  # of each image: (R, K + 1), background last
        split = zip(*(torch.split(part, counts) for part in predictions), strict=True)
        selected = [
            self._select(functools.partial(self._one, prediction, proposal), [scores[:, :-1]])
            for prediction, proposal, scores in zip(split, proposals, every_score, strict=True)
        ]
        return [instances for instances, _ in selected], [indices for _, indices in selected]

    def _one(self, prediction: tuple[Tensor, ...], proposal: Any) -> tuple[Any, Tensor]:  # noqa: ANN401  detectron2 is untyped
        (instances,), (indices,) = self._original(prediction, [proposal])
        return instances, indices


class RetinaNetObserver(_Selection):
    """Stands at `RetinaNet.inference_single_image`."""

    number = "max_detections_per_image"

    def __init__(self, model: nn.Module, floor: float) -> None:
        super().__init__(model, floor)
        self._original = self._owner.inference_single_image
        self._owner.inference_single_image = self._inference

    def _inference(self, anchors: Any, scores: list[Tensor], deltas: list[Tensor], size: tuple[int, int]) -> Any:  # noqa: ANN401  detectron2 is untyped
        def select() -> tuple[Any, Any]:
            instances = self._original(anchors, scores, deltas, size)
            return instances, instances

        return self._select(select, scores)[0]


class DeepLabObserver:
    """Stands behind Panoptic-DeepLab, which selects nothing by score; without a threshold nor is it here."""

    def __init__(self, model: nn.Module) -> None:
        self.evidence: list[Evidence] = []
        self._options: Sequence[Options] = ()
        self._meta: Any = model.meta
        self._original = model.forward
        model.forward = self._forward  # which nn.Module calls

    def begin(self, options: Sequence[Options]) -> None:
        """Tell what is asked of each image of the next batch."""
        self._options, self.evidence = options, []

    def _forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outputs = self._original(batched_inputs)
        return [self._one(output, options) for output, options in zip(outputs, self._options, strict=True)]

    def _one(self, output: dict[str, Any], options: Options) -> dict[str, Any]:
        label_map, _ = output["panoptic_seg"]
        found = output.get("instances") or _no_instances(label_map.shape, label_map.device)
        found = found[found.scores.argsort(descending=True, stable=True)]
        above = found[found.scores > options.threshold] if options.threshold else found
        wanted, filtered = _wanted(above, options)
        best_score, best_class = _best([found.scores[:, None]])[0], found.pred_classes[:1].tolist()
        self.evidence.append(
            _evidence(
                best_score, best_class[0] if best_class else None, suppressed=len(found) - len(above), filtered=filtered
            )
        )
        return {**output, "instances": above[wanted], "panoptic_seg": self._segments(label_map)}

    def _segments(self, label_map: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """A map of labels, class * label_divisor + number and -1 for nothing, as ids and what they are."""
        labels, ids = torch.unique(label_map, return_inverse=True)
        void = int(labels[0] < 0)  # the lowest label of all
        things = set(self._meta.thing_dataset_id_to_contiguous_id.values())
        classes = [int(label) // self._meta.label_divisor for label in labels[void:]]
        segments = [
            {"id": number, "category_id": class_id, "isthing": class_id in things}
            for number, class_id in enumerate(classes, start=1)
        ]
        return (ids + 1 - void).to(torch.int32), segments


def _no_instances(size: Sequence[int], device: torch.device) -> Any:  # noqa: ANN401  detectron2 is untyped
    none = torch.zeros(0, device=device)
    return Instances(
        tuple(size),
        scores=none,
        pred_classes=none.long(),
        pred_boxes=Boxes(none.reshape(0, 4)),
        pred_masks=torch.zeros((0, *size), dtype=torch.bool, device=device),
    )

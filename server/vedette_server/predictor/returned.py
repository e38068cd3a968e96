"""Selection from a model's output, if no selector of ours can run inside it.

This serves models of any other meta-architecture, and those of Detectron2's that do not select by score. The output
must be Detectron2's `Instances`, `proposals`, `sem_seg` or `panoptic_seg`. What the model itself dropped is invisible.
A threshold of 0 lets everything pass.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from vedette_server.predictor.select import Selector, choose
from vedette_server.predictor.tally import Tally

_SERVED = ("scores", "pred_classes", "pred_boxes", "pred_masks", "pred_keypoints")


class UnservableError(Exception):
    """A model's output cannot be served; the message says why."""


class ReturnedSelector(Selector):
    """Selector after the model: best score first, equal scores in the model's order."""

    def __init__(self, model: Any, floor: float, classes: int) -> None:  # noqa: ANN401  detectron2 is untyped
        """`classes` is the number of named object classes."""
        super().__init__(floor)
        self._classes = classes
        self._meta = getattr(model, "meta", None) or getattr(model, "metadata", None)
        self._original = model.forward
        model.forward = self._forward  # called by nn.Module

    def _forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outputs = self._original(batched_inputs)
        return [self._one(output, item) for output, item in zip(outputs, batched_inputs, strict=True)]

    def _one(self, output: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        options = self._next
        found = objects(output, (given["height"], given["width"]))
        light = Instances(found.image_size, scores=found.scores, pred_classes=found.pred_classes)
        order = found.scores.argsort(descending=True, stable=True)
        finite = order[_finite(found)[order]]
        passing = finite[found.scores[finite] > options.threshold] if options.threshold else finite
        tally = functools.partial(_tally, light[finite], self._classes, len(passing), len(found) - len(finite))
        wanted, choice = choose(light[passing], options, tally)
        self.choices.append(choice)
        selected = {"instances": found[passing[wanted]]}
        if "panoptic_seg" in output:
            selected["panoptic_seg"] = self._panoptic(output["panoptic_seg"])
        return {**output, **selected}

    def _panoptic(self, given: tuple[Tensor, Sequence[dict[str, Any]] | None]) -> tuple[Tensor, Sequence[Any]]:
        labels, segments = given
        if segments is not None:
            return labels, segments
        if not hasattr(self._meta, "label_divisor"):
            msg = "panoptic_seg has no segments, and the model's metadata has no label_divisor"
            raise UnservableError(msg)
        return _segments(labels, self._meta)


def objects(output: Mapping[str, Any], size: tuple[int, int]) -> Any:  # noqa: ANN401  detectron2 is untyped
    """Return the servable fields of the objects in an image of `size` (height, width).

    For proposals, which have no class, the score is the sigmoid of their objectness. Raises `UnservableError`.
    """
    if "proposals" in output:
        found = output["proposals"]
        scores = found.objectness_logits.sigmoid()
        fields = {"scores": scores, "pred_classes": torch.zeros_like(scores, dtype=torch.long)}
        return Instances(found.image_size, **fields, pred_boxes=found.proposal_boxes)
    found = output.get("instances")
    if found is None:
        none = torch.zeros(0)
        return Instances(size, scores=none, pred_classes=none.long(), pred_boxes=Boxes(none.reshape(0, 4)))
    for name in ("scores", "pred_classes"):
        if not found.has(name):
            msg = f"its instances have no {name}, only {', '.join(found.get_fields()) or 'nothing'}"
            raise UnservableError(msg)
    if not (found.has("pred_boxes") or found.has("pred_masks")):
        msg = "its instances have neither pred_boxes nor pred_masks"
        raise UnservableError(msg)
    if tuple(found.image_size) != size:
        seen, wanted = ("x".join(map(str, edges)) for edges in (found.image_size, size))
        msg = f"its instances are for an image of {seen}, but {wanted} (height x width) was requested"
        raise UnservableError(msg)
    if found.has("pred_masks"):
        shape = tuple(getattr(found.pred_masks, "tensor", found.pred_masks).shape)
        if shape != (len(found), *size):
            msg = f"its pred_masks have the shape {shape}, not {(len(found), *size)}"
            raise UnservableError(msg)
    return Instances(size, **{name: found.get(name) for name in _SERVED if found.has(name)})


def _finite(found: Any) -> Tensor:  # noqa: ANN401  detectron2 is untyped
    """Return a mask of the objects with a finite score and box."""
    finite = torch.isfinite(found.scores)
    if found.has("pred_boxes"):
        boxes = getattr(found.pred_boxes, "tensor", found.pred_boxes)
        finite = finite & torch.isfinite(boxes).all(dim=1)
    return finite


def _segments(labels: Tensor, meta: Any) -> tuple[Tensor, list[dict[str, Any]]]:  # noqa: ANN401  detectron2 is untyped
    """Convert a map of labels (class * label_divisor + number, -1 for none) to ids and their segments."""
    numbers, ids = torch.unique(labels, return_inverse=True)
    void = int(numbers[0] < 0)  # the lowest label
    things = set(meta.thing_dataset_id_to_contiguous_id.values())
    classes = [int(label) // meta.label_divisor for label in numbers[void:]]
    segments = [
        {"id": number, "category_id": class_id, "isthing": class_id in things}
        for number, class_id in enumerate(classes, start=1)
    ]
    return (ids + 1 - void).to(torch.int32), segments


def _tally(found: Any, classes: int, passing: int, dropped: int) -> Tally:  # noqa: ANN401  detectron2 is untyped
    """Tally the returned objects, as rows and as candidates. The score need not be a probability."""
    best = torch.zeros(classes, device=found.scores.device)
    named = found[(found.pred_classes >= 0) & (found.pred_classes < classes)]
    best.scatter_reduce_(0, named.pred_classes.long(), named.scores.to(best.dtype), "amax")
    return Tally(
        best_scores=best.cpu().numpy(),
        scored=len(found),
        candidates=len(found),
        suppressed=len(found) - passing,
        dropped={"model": dropped} if dropped else {},
    )

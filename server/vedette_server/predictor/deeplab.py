"""Apply a request's options behind Panoptic-DeepLab, a project of Detectron2's that need not be installed."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from vedette_server.predictor.select import Selector, choose
from vedette_server.predictor.tally import Tally


class DeepLabSelector(Selector):
    """Stands behind the model, which selects nothing by score; without a threshold nor is it here."""

    def __init__(self, model: Any, floor: float) -> None:  # noqa: ANN401  detectron2 is untyped
        super().__init__(floor)
        self._meta = model.meta
        self._original = model.forward
        model.forward = self._forward  # which nn.Module calls

    def _forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._one(output) for output in self._original(batched_inputs)]

    def _one(self, output: dict[str, Any]) -> dict[str, Any]:
        options = self._next
        label_map, _ = output["panoptic_seg"]
        found = output.get("instances") or _no_instances(label_map.shape, label_map.device)
        found = found[found.scores.argsort(descending=True, stable=True)]
        above = found[found.scores > options.threshold] if options.threshold else found
        tally = functools.partial(_tally, found, len(output["sem_seg"]), len(found) - len(above))
        wanted, choice = choose(above, options, tally)
        self.choices.append(choice)
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


def _tally(found: Any, classes: int, suppressed: int) -> Tally:  # noqa: ANN401  detectron2 is untyped
    """Tally the instances: its candidates and its rows alike. Of a score that is no share, none is the highest."""
    finite = found[torch.isfinite(found.scores)]
    best = torch.zeros(classes, device=found.scores.device)
    best.scatter_reduce_(0, finite.pred_classes, finite.scores, "amax")
    return Tally(best.cpu().numpy(), len(finite), candidates=len(found), suppressed=suppressed)


def _no_instances(size: Sequence[int], device: torch.device) -> Any:  # noqa: ANN401  detectron2 is untyped
    none = torch.zeros(0, device=device)
    return Instances(
        tuple(size),
        scores=none,
        pred_classes=none.long(),
        pred_boxes=Boxes(none.reshape(0, 4)),
        pred_masks=torch.zeros((0, *size), dtype=torch.bool, device=device),
    )

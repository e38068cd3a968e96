"""Application of a request's options at the point where Detectron2 itself selects.

Detectron2 drops candidates below the threshold deep inside the model. A selector replaces that step. It selects at the
request's threshold and keeps the requested classes up to the requested number. The mask and keypoint heads then only
run on those. This selection is the answer: Detectron2's own, observed or not.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.roi_heads import cascade_rcnn
from torch import Tensor, nn

from vedette_server.contract.options import Options
from vedette_server.predictor.tally import Tally, of_anchors, of_regions

_ANY_NUMBER = 1_000_000  # a negative number means any to R-CNN, but not to RetinaNet


@dataclass(frozen=True)
class Choice:
    """The fate of an image's candidates above the threshold."""

    above: int  # left by non-maximum suppression
    filtered: int  # of those, in excluded classes
    capped: int  # of the others, beyond the requested number
    tally: Callable[[], Tally]  # counts the scores, which the answer does not need


def choose(instances: Any, options: Options, tally: Callable[[], Tally]) -> tuple[Tensor, Choice]:  # noqa: ANN401  detectron2 is untyped
    """Return the indices of the requested instances, in order, and the fate of the others."""
    indices = torch.arange(len(instances), device=instances.scores.device)
    if options.class_ids is not None:
        classes = torch.tensor(options.class_ids, device=indices.device)
        indices = indices[torch.isin(instances.pred_classes, classes)]
    wanted = indices if options.max_detections is None else indices[: options.max_detections]
    return wanted, Choice(len(instances), len(instances) - len(indices), len(indices) - len(wanted), tally)


class Selector:
    """The base of all selectors."""

    def __init__(self, floor: float) -> None:
        self.choices: list[Choice] = []  # per image of the batch, in order
        self._options: Sequence[Options] = ()
        self._floor = floor

    def begin(self, options: Sequence[Options]) -> None:
        """Set the options of each image in the next batch."""
        self._options, self.choices = options, []

    @property
    def _next(self) -> Options:
        """The options of the next image."""
        return self._options[len(self.choices)]


class _Regions(Selector):
    """Selector of an R-CNN's regions."""

    def __init__(self, floor: float, layers: nn.Module) -> None:
        super().__init__(floor)
        self._shares = not getattr(layers, "use_sigmoid_ce", False)  # an option of newer Detectron2

    def _choose(
        self, select: Callable[[float], tuple[Any, Tensor]], scored: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Any, Tensor]:
        """Return the next image's instances and their rows; `scored` returns the boxes and scores of its regions."""
        options = self._next
        instances, rows = select(options.threshold)

        def suppressed() -> int:
            return int((select(self._floor)[0].scores <= options.threshold).sum())

        def tally() -> Tally:
            return of_regions(*scored(), (self._floor, options.threshold), suppressed, shares=self._shares)

        wanted, choice = choose(instances, options, tally)
        self.choices.append(choice)
        return instances[wanted], rows[wanted]


class RcnnSelector(_Regions):
    """Selector in `FastRCNNOutputLayers.inference`, before the mask and keypoint heads run."""

    def __init__(self, layers: Any, floor: float) -> None:  # noqa: ANN401  detectron2 is untyped
        super().__init__(floor, layers)
        self._layers = layers
        self._original = layers.inference
        self._given: dict[tuple[str, int], tuple[Any, Any]] = {}
        layers.inference = self._inference
        for name in ("predict_boxes", "predict_probs"):
            setattr(layers, name, functools.partial(self._once, name, getattr(layers, name)))

    def begin(self, options: Sequence[Options]) -> None:
        """Set the options of each image in the next batch."""
        super().begin(options)
        self._given = {}

    def _once(self, name: str, predict: Callable[..., Any], predictions: Any, proposals: Any) -> Any:  # noqa: ANN401  detectron2 is untyped
        """Return a method's cached result: two selections and the tally of an image need it."""
        key = name, id(predictions)
        if key not in self._given:
            self._given[key] = predictions, predict(predictions, proposals)  # kept so that the id is not reused
        return self._given[key][1]

    def _inference(self, predictions: tuple[Tensor, Tensor], proposals: list[Any]) -> tuple[list[Any], list[Tensor]]:
        counts = [len(item) for item in proposals]
        split = zip(*(torch.split(part, counts) for part in predictions), strict=True)
        selected = [
            self._choose(
                functools.partial(self._one, image, proposal), functools.partial(self._scored, image, proposal)
            )
            for image, proposal in zip(split, proposals, strict=True)
        ]
        return [instances for instances, _ in selected], [rows for _, rows in selected]

    def _one(self, prediction: tuple[Tensor, ...], proposal: Any, threshold: float) -> tuple[Any, Tensor]:  # noqa: ANN401  detectron2 is untyped
        self._layers.test_score_thresh, self._layers.test_topk_per_image = threshold, _ANY_NUMBER
        (instances,), (rows,) = self._original(prediction, [proposal])
        return instances, rows

    def _scored(self, prediction: tuple[Tensor, ...], proposal: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401  detectron2 is untyped
        (boxes,) = self._layers.predict_boxes(prediction, [proposal])
        (scores,) = self._layers.predict_probs(prediction, [proposal])
        return boxes, scores


class CascadeSelector(_Regions):
    """Selector in the `fast_rcnn_inference` that `CascadeROIHeads._forward_box` calls with its stages' mean scores.

    That is a module-level function without another handle, so it is swapped while this model's method runs. A worker
    infers in a single thread, so no other model sees the swap.
    """

    def __init__(self, heads: Any, floor: float) -> None:  # noqa: ANN401  detectron2 is untyped
        super().__init__(floor, heads.box_predictor[-1])
        self._forward_box = heads._forward_box  # noqa: SLF001  the method that selects
        self._original = cascade_rcnn.fast_rcnn_inference
        heads._forward_box = self._exchanged  # noqa: SLF001

    def _exchanged(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  detectron2 is untyped
        cascade_rcnn.fast_rcnn_inference = self._inference
        try:
            return self._forward_box(*arguments, **named)
        finally:
            cascade_rcnn.fast_rcnn_inference = self._original

    def _inference(
        self, boxes: list[Tensor], scores: list[Tensor], sizes: list[Any], _threshold: float, overlap: float, _most: int
    ) -> tuple[list[Any], list[Tensor]]:
        selected = []
        for image in zip(boxes, scores, sizes, strict=True):
            select = functools.partial(self._one, *image, overlap)
            selected.append(self._choose(select, functools.partial(tuple[Tensor, Tensor], image[:2])))
        return [instances for instances, _ in selected], [rows for _, rows in selected]

    def _one(self, boxes: Tensor, scores: Tensor, size: Any, overlap: float, threshold: float) -> tuple[Any, Tensor]:  # noqa: ANN401  detectron2 is untyped
        (instances,), (rows,) = self._original([boxes], [scores], [size], threshold, overlap, _ANY_NUMBER)
        return instances, rows


class DenseSelector(Selector):
    """Selector in `inference_single_image` of RetinaNet and FCOS, which score each anchor and class."""

    def __init__(self, model: Any, floor: float) -> None:  # noqa: ANN401  detectron2 is untyped
        super().__init__(floor)
        self._model = model
        self._entered = 0  # candidates of non-maximum suppression in the last selection
        self._original = model.inference_single_image
        self._decode = model._decode_multi_level_predictions  # noqa: SLF001  its input is accessible nowhere else
        model.inference_single_image = self._inference
        model._decode_multi_level_predictions = self._decoded  # noqa: SLF001

    def _decoded(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  detectron2 is untyped
        candidates = self._decode(*arguments, **named)
        self._entered = len(candidates)
        return candidates

    def _inference(self, anchors: Any, scores: list[Tensor], deltas: list[Tensor], size: tuple[int, int]) -> Any:  # noqa: ANN401  detectron2 is untyped
        options = self._next

        def select(threshold: float) -> Any:  # noqa: ANN401
            self._model.test_score_thresh, self._model.max_detections_per_image = threshold, _ANY_NUMBER
            return self._original(anchors, scores, deltas, size)

        def selected() -> tuple[int, int]:
            below = (select(self._floor).scores <= options.threshold).sum()
            return self._entered, int(below)

        def boxes() -> list[Tensor]:
            decode = self._model.box2box_transform.apply_deltas
            return [decode(level, anchor.tensor) for level, anchor in zip(deltas, anchors, strict=True)]

        instances = select(options.threshold)
        tally = functools.partial(of_anchors, scores, deltas, boxes, self._floor, selected)
        wanted, choice = choose(instances, options, tally)
        self.choices.append(choice)
        return instances[wanted]

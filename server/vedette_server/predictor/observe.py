"""Observation of a model's scores, and of their way through the stages, without changing the answer.

A selector makes the answer. All other observations are read once, after the answer exists. If the request's threshold
is above the floor, the model selects again at the floor.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from vedette_server.contract.answer import Evidence
from vedette_server.contract.contract import InputContract
from vedette_server.contract.options import Options
from vedette_server.predictor.finite import Stages
from vedette_server.predictor.proposals import Proposals, Proposed
from vedette_server.predictor.returned import ReturnedSelector
from vedette_server.predictor.select import CascadeSelector, Choice, DenseSelector, RcnnSelector, Selector


def observer(model: nn.Module, contract: InputContract, *, observe: bool) -> "Observer":
    """Install a selector in a model and return its observer; without `observe`, its evidence is empty."""
    put = None if contract.own_threshold else place(model)
    selector = put(contract.floor) if put else ReturnedSelector(model, contract.floor, len(contract.class_names))
    return Observing(selector, model) if observe else Observer(selector)


def place(model: nn.Module) -> Callable[[float], Selector] | None:
    """Return a function that installs a selector inside a known family, given the floor; None if that is impossible."""
    if isinstance(model, RetinaNet | FCOS):
        return functools.partial(DenseSelector, model)
    if not isinstance(model, GeneralizedRCNN):
        return None
    heads: Any = model.roi_heads
    if isinstance(heads, CascadeROIHeads):
        return functools.partial(CascadeSelector, heads)
    predictor = getattr(heads, "box_predictor", None)
    return functools.partial(RcnnSelector, predictor) if isinstance(predictor, FastRCNNOutputLayers) else None


class Observer:
    """Applies a request's options to a model, without observing anything."""

    def __init__(self, selector: Selector) -> None:
        self._selector = selector

    def begin(self, options: Sequence[Options]) -> None:
        """Set the options of each image in the next batch."""
        self._selector.begin(options)

    def evidence(self, detections: Sequence[int]) -> list[Evidence]:
        """Return the evidence of each image of the batch, given its number of detections; call it once."""
        self.begin(())  # releases the model's scores
        return [Evidence(best_scores=np.zeros(0, np.float32)) for _ in detections]

    def not_finite(self) -> str:
        """Return the first stage with non-finite values, even if the model has failed since; empty if there is none."""
        return ""


class Observing(Observer):
    """Observer that also collects evidence."""

    def __init__(self, selector: Selector, model: nn.Module) -> None:
        super().__init__(selector)
        self._stages = Stages(model)
        generator = getattr(model, "proposal_generator", None)
        self._proposals = None if generator is None else Proposals(generator)

    def begin(self, options: Sequence[Options]) -> None:
        """Set the options of each image in the next batch."""
        super().begin(options)
        self._stages.begin()
        if self._proposals:
            self._proposals.begin()

    def evidence(self, detections: Sequence[int]) -> list[Evidence]:
        """Return the evidence of each image of the batch, given its number of detections; call it once."""
        count, stage = len(detections), self.not_finite()
        proposed = self._proposals.of_images(count) if self._proposals else [Proposed()] * count
        each = zip(self._selector.choices, proposed, detections, strict=True)
        evidence = [_evidence(choice, regions, given, stage) for choice, regions, given in each]
        self.begin(())  # releases the model's scores
        return evidence

    def not_finite(self) -> str:
        """Return the first stage with non-finite values, even if the model has failed since; empty if there is none."""
        return self._stages.not_finite()


def _evidence(choice: Choice, proposed: Proposed, detections: int, stage: str) -> Evidence:
    """Combine the observations of an image.

    The selection at the threshold is the answer; what it kept became detections. The selection at the floor may keep a
    box more or less of those, because of the last bit of an overlap. So it only counts candidates at or below the
    threshold, and whatever neither selection kept was overlapped.
    """
    tally = choice.tally()
    dropped = {"proposal_generator": proposed.dropped} if proposed.dropped else {}
    return Evidence(
        best_scores=tally.best_scores,
        proposed=proposed.before,
        proposals=proposed.after,
        scored=tally.scored,
        certainty=tally.certainty,
        candidates=tally.candidates,
        overlapped=tally.candidates - tally.suppressed - choice.above,
        suppressed=tally.suppressed,
        filtered=choice.filtered,
        capped=choice.capped,
        clipped=choice.above - choice.filtered - choice.capped - detections,
        dropped=dropped | tally.dropped,
        not_finite=stage,
    )

"""See what a model scored, and what became of it from stage to stage, without changing its answer.

A selector makes the answer. What else is looked at is read once, when the answer is there: where the request's
threshold is above the floor, the model selects once more at the floor.
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
    """The observer of a model, with its selector in its place; without `observe` the evidence is empty."""
    put = None if contract.own_threshold else place(model)
    selector = put(contract.floor) if put else ReturnedSelector(model, contract.floor, len(contract.class_names))
    return Observing(selector, model) if observe else Observer(selector)


def place(model: nn.Module) -> Callable[[float], Selector] | None:
    """What puts a selector, given the floor, where a model of a known family selects; None: there is no such place."""
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
    """Lets a model select what is asked, and observes nothing."""

    def __init__(self, selector: Selector) -> None:
        self._selector = selector

    def begin(self, options: Sequence[Options]) -> None:
        """Tell what is asked of each image of the batch that the model is given next."""
        self._selector.begin(options)

    def evidence(self, detections: Sequence[int]) -> list[Evidence]:
        """The evidence of each image of the batch, given its number of detections; to be asked for once."""
        self.begin(())  # lets go of what the model scored
        return [Evidence(np.zeros(0, np.float32)) for _ in detections]

    def not_finite(self) -> str:
        """The first stage that gave values that are not finite, even if the model has failed since; empty: none."""
        return ""


class Observing(Observer):
    """Observes as well."""

    def __init__(self, selector: Selector, model: nn.Module) -> None:
        super().__init__(selector)
        self._stages = Stages(model)
        generator = getattr(model, "proposal_generator", None)
        self._proposals = None if generator is None else Proposals(generator)

    def begin(self, options: Sequence[Options]) -> None:
        """Tell what is asked of each image of the batch that the model is given next."""
        super().begin(options)
        self._stages.begin()
        if self._proposals:
            self._proposals.begin()

    def evidence(self, detections: Sequence[int]) -> list[Evidence]:
        """The evidence of each image of the batch, given its number of detections; to be asked for once."""
        count, stage = len(detections), self.not_finite()
        proposed = self._proposals.of_images(count) if self._proposals else [Proposed()] * count
        each = zip(self._selector.choices, proposed, detections, strict=True)
        evidence = [_evidence(choice, regions, given, stage) for choice, regions, given in each]
        self.begin(())  # lets go of what the model scored
        return evidence

    def not_finite(self) -> str:
        """The first stage that gave values that are not finite, even if the model has failed since; empty: none."""
        return self._stages.not_finite()


def _evidence(choice: Choice, proposed: Proposed, detections: int, stage: str) -> Evidence:
    """Put together what was seen of an image.

    The selection at the threshold is the answer's, and what it kept is what became detections. The one at the floor may
    keep a box more or less of those, by the last bit of an overlap: of it only what is not above the threshold counts,
    and whatever neither has kept was overlapped.
    """
    tally = choice.tally()
    dropped = {"proposal_generator": proposed.dropped} if proposed.dropped else {}
    return Evidence(
        tally.best_scores,
        proposed.before,
        proposed.after,
        tally.scored,
        tally.certainty,
        tally.candidates,
        overlapped=tally.candidates - tally.suppressed - choice.above,
        suppressed=tally.suppressed,
        filtered=choice.filtered,
        capped=choice.capped,
        clipped=choice.above - choice.filtered - choice.capped - detections,
        dropped=dropped | tally.dropped,
        not_finite=stage,
    )

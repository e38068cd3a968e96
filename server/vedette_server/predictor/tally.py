"""Count what a model scored of one image, where it selects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vedette_server.contract.types import Float32Array
from vedette_server.predictor.finite import within

_SURELY_DECODED = 1e30  # smaller deltas give finite boxes: they are scaled by anchors of less than a million pixels


@dataclass(frozen=True)
class Tally:
    """What was scored of an image; each number as `Evidence` says."""

    best_scores: Float32Array
    scored: int = 0
    certainty: float = 1.0
    candidates: int = 0
    suppressed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


def of_regions(
    boxes: Tensor, scores: Tensor, limits: tuple[float, float], suppressed: Callable[[], int], *, shares: bool
) -> Tally:
    """Tally an R-CNN's regions: (R, any) boxes and (R, K + 1) scores, the background's last.

    `limits` are the floor and the threshold; `suppressed` selects at the floor and counts what is not above the
    threshold. `shares` tells scores that sum to one from those that each stand alone.
    """
    dropped = {}
    if not within([boxes, scores]):  # `fast_rcnn_inference` drops these rows whole
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
        scores = scores[finite]
        dropped["roi_heads.box_predictor"] = len(finite) - len(scores)
    classes, (floor, threshold) = scores[:, :-1], limits
    if not len(scores):
        return Tally(np.zeros(classes.shape[1], np.float32), dropped=dropped)
    best = classes.amax(dim=0)
    certainty = scores.amax(dim=1).mean() if shares else _contrast(classes.mean(), best.amax())
    counts = torch.stack([(classes > floor).sum(), (classes > threshold).sum()])
    candidates, above = (int(count) for count in counts.tolist())
    below = suppressed() if candidates > above else 0
    return Tally(best.cpu().numpy(), len(scores), float(certainty), candidates, below, dropped)


def of_anchors(
    scores: Sequence[Tensor],
    deltas: Sequence[Tensor],
    decode: Callable[[], list[Tensor]],
    floor: float,
    selected: Callable[[], tuple[int, int]],
) -> Tally:
    """Tally RetinaNet's anchors: of each level, (A, K) scores and (A, 4) deltas, from which `decode` makes boxes.

    `selected` selects at the floor and gives how many candidates that had, and how many are not above the threshold.

    Detectron2 drops here no row, but single scores that are NaN, which exceed no threshold; an infinite logit is a
    score of 1. A box that is not finite it drops only with its score: among the candidates it keeps others from being
    removed by non-maximum suppression, and among the answer's it is an AssertionError of `Boxes.clip`.
    """
    per_level = [level.amax(dim=0) for level in scores]
    dropped = {}
    if not (within([*scores]) and within([*deltas], _SURELY_DECODED)):
        every = torch.cat([*scores])
        finite = torch.isfinite(every).all(dim=1) & torch.isfinite(torch.cat(decode())).all(dim=1)
        per_level, scores = [torch.nan_to_num(every, nan=0.0).amax(dim=0)], [every[finite]]
        if rows := len(every) - len(scores[0]):
            dropped["head"] = rows
    best = torch.stack(per_level).amax(dim=0)
    scored = sum(len(level) for level in scores)
    candidates, suppressed = selected() if float(best.amax()) > floor else (0, 0)
    if not scored:
        return Tally(best.cpu().numpy(), candidates=candidates, suppressed=suppressed, dropped=dropped)
    mean = torch.stack([level.sum() for level in scores]).sum() / (scored * len(best))
    certainty = _contrast(mean, torch.stack([level.amax() for level in scores if len(level)]).amax())
    return Tally(best.cpu().numpy(), scored, float(certainty), candidates, suppressed, dropped)


def _contrast(mean: Tensor, best: Tensor) -> Tensor:
    """How far the best score stands out, 0 to 1: where scores are no shares, a random head gives them all alike."""
    return torch.where(best > 0, 1 - mean / best, torch.zeros_like(best)).clamp(min=0)

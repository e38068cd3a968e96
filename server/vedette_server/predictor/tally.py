"""Counts of a model's scores on one image, taken where it selects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vedette_server.contract.types import Float32Array
from vedette_server.predictor.finite import within

_SURELY_DECODED = 1e30  # smaller deltas give finite boxes: they are scaled by anchors of less than a million pixels


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of an image's scores; each field as in `Evidence`."""

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

    `limits` are the floor and the threshold; `suppressed` selects at the floor and counts candidates at or below the
    threshold. `shares` is True for scores that sum to one, False for independent scores.
    """
    dropped = {}
    if not within([boxes, scores]):  # `fast_rcnn_inference` drops these rows entirely
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
        scores = scores[finite]
        dropped["roi_heads.box_predictor"] = len(finite) - len(scores)
    classes, (floor, threshold) = scores[:, :-1], limits
    if not len(scores):
        return Tally(best_scores=np.zeros(classes.shape[1], np.float32), dropped=dropped)
    best = classes.amax(dim=0)
    certainty = scores.amax(dim=1).mean() if shares else _contrast(classes.mean(), best.amax())
    counts = torch.stack([(classes > floor).sum(), (classes > threshold).sum()])
    candidates, above = (int(count) for count in counts.tolist())
    below = suppressed() if candidates > above else 0
    return Tally(
        best_scores=best.cpu().numpy(),
        scored=len(scores),
        certainty=float(certainty),
        candidates=candidates,
        suppressed=below,
        dropped=dropped,
    )


def of_anchors(
    scores: Sequence[Tensor],
    deltas: Sequence[Tensor],
    decode: Callable[[], list[Tensor]],
    floor: float,
    selected: Callable[[], tuple[int, int]],
) -> Tally:
    """Tally RetinaNet's anchors: per level, (A, K) scores and (A, 4) deltas, which `decode` turns into boxes.

    `selected` selects at the floor and returns the number of candidates, and of those at or below the threshold. Here
    Detectron2 drops no rows, but single NaN scores, which exceed no threshold; an infinite logit is a score of 1. It
    drops a non-finite box only with its score. Among the candidates, such a box protects others from non-maximum
    suppression; among the detections, it causes an AssertionError in `Boxes.clip`.
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
        return Tally(best_scores=best.cpu().numpy(), candidates=candidates, suppressed=suppressed, dropped=dropped)
    mean = torch.stack([level.sum() for level in scores]).sum() / (scored * len(best))
    certainty = _contrast(mean, torch.stack([level.amax() for level in scores if len(level)]).amax())
    return Tally(
        best_scores=best.cpu().numpy(),
        scored=scored,
        certainty=float(certainty),
        candidates=candidates,
        suppressed=suppressed,
        dropped=dropped,
    )


def _contrast(mean: Tensor, best: Tensor) -> Tensor:
    """Return the contrast of the best score, 0 to 1: scores that are not shares are all alike in a random head."""
    return torch.where(best > 0, 1 - mean / best, torch.zeros_like(best)).clamp(min=0)

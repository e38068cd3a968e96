"""Matching of two lists of detections for one image, object by object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle

from vedette_client.results import Detection

LEAST_IOU = 0.5  # of boxes of the same object: below it, even COCO's most lenient metric sees two objects

# A different processor, thread count or torch version sums in another order. That changes scores by about 1e-5 and
# edges by a few hundredths of a pixel. Another channel order, size, normalisation or weight changes them far more than
# these tolerances.
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.5  # pixels
LEAST_MASK_IOU = 0.97


@dataclass(frozen=True)
class Match:
    """An object that both found."""

    local: Detection
    served: Detection
    mask_iou: float | None  # None: at least one has no mask

    @property
    def score(self) -> float:
        """The absolute difference of the scores."""
        return abs(self.local.score - self.served.score)

    @property
    def box(self) -> float:
        """The largest difference between corresponding edges of the boxes, in pixels."""
        return float(np.abs(np.subtract(self.local.box, self.served.box)).max())

    @property
    def same(self) -> bool:
        """True if they differ by no more than rounding errors."""
        masks = self.mask_iou is None or self.mask_iou >= LEAST_MASK_IOU
        return self.score <= SCORE_TOLERANCE and self.box <= BOX_TOLERANCE and masks


@dataclass(frozen=True)
class Comparison:
    """Local and served detections at the same threshold, compared by boxes, scores, classes and masks only."""

    both: tuple[Match, ...]  # best local score first
    only_local: tuple[Detection, ...]
    only_served: tuple[Detection, ...]
    threshold: float

    @property
    def same(self) -> bool:
        """True if all differences are rounding errors.

        A detection right at the threshold may be missing from one side.
        """
        alone = (*self.only_local, *self.only_served)
        return all(match.same for match in self.both) and not any(self._counts(item) for item in alone)

    def _counts(self, item: Detection) -> bool:
        return item.score > self.threshold + SCORE_TOLERANCE

    @property
    def verdict(self) -> str:
        """A summary in one line."""
        largest = [f"largest difference: {self.largest}"] if self.both else []
        sides = (self.only_local, "local"), (self.only_served, "served")
        alone = [f"{len(items)} only {side}" for items, side in sides if items]
        if self.same:
            told = [*largest, *(f"{one}, right at the threshold" for one in alone)]
            return f"the same ({'; '.join(told) or 'neither found anything'})"
        changed = sum(not match.same for match in self.both)
        apart = [f"{changed} of {len(self.both)} found by both with another score, box or mask"] if changed else []
        return " ".join([f"they differ: {', '.join([*alone, *apart])}", *(f"({one})" for one in largest)])

    @property
    def largest(self) -> str:
        """The largest differences of score, box and mask among the objects that both found."""
        score, box = (max(values) for values in zip(*((one.score, one.box) for one in self.both), strict=True))
        told = [f"score {score:.4f}", f"box {box:.2f} px"]
        masks = [match.mask_iou for match in self.both if match.mask_iou is not None]
        return ", ".join([*told, f"mask IoU {min(masks):.3f}"] if masks else told)


def compare(local: Sequence[Detection], served: Sequence[Detection], threshold: float) -> Comparison:
    """Match detections class by class: best local score first, each with the unmatched one of the largest overlap.

    An overlap below LEAST_IOU means a different object. Equal scores are ordered by box, so that the input order does
    not matter.
    """
    free = sorted(served, key=_order)
    both, alone = [], []
    for item in sorted(local, key=_order):
        near = [(_iou(item, other), other) for other in free if other.class_id == item.class_id]
        overlap, best = max(near, key=lambda pair: pair[0], default=(0.0, None))
        if best is None or overlap < LEAST_IOU:
            alone.append(item)
        else:
            both.append(Match(item, best, _mask_iou(item, best)))
            free = [other for other in free if other is not best]
    return Comparison(tuple(both), tuple(alone), tuple(free), threshold)


def _order(item: Detection) -> tuple[float, int, tuple[float, ...]]:
    return -item.score, item.class_id, item.box


def _iou(one: Detection, other: Detection) -> float:
    """Return the intersection over union of two boxes; 0 if neither has an area."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = one.box, other.box
    common = max(min(x1, u1) - max(x0, u0), 0.0) * max(min(y1, v1) - max(y0, v0), 0.0)
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - common
    return common / union if union > 0 else 0.0


def _mask_iou(one: Detection, other: Detection) -> float | None:
    """Return the intersection over union of two masks; 1 if both are empty, None if one is missing."""
    if one.mask is None or other.mask is None:
        return None
    first, second = one.mask.coco(), other.mask.coco()
    if not rle.area([first]).any() and not rle.area([second]).any():
        return 1.0
    iou: Any = rle.iou([first], [second], [0])
    return float(iou[0][0])

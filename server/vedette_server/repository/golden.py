"""Golden images: pictures with known answers, inferred again to prove that a model still sees what it saw."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as rle

from vedette_server.contract.answer import Answer, Detections

# Another processor sums in another order, which moves a score or an edge far less than this; a wrong colour order or
# a damaged weight moves them far more.
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.5  # pixels
LEAST_MASK_IOU = 0.97


class ExpectedObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object that a golden image must give."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]
    mask: str | None = None  # the `counts` of a COCO RLE


@dataclass(frozen=True)
class Golden:
    """A picture, as a file, and what it must give at the model's default threshold."""

    name: str
    data: bytes
    objects: tuple[ExpectedObject, ...]


def describe(found: Detections) -> tuple[ExpectedObject, ...]:
    """Write down detections as what a picture must give from now on."""
    masks = [None] * len(found) if found.masks is None else [(mask.counts or b"").decode() for mask in found.masks]
    rows = zip(found.class_ids, found.scores, found.boxes, masks, strict=True)
    return tuple(
        ExpectedObject(int(class_id), float(score), tuple(map(float, box)), mask)  # type: ignore[arg-type]  # four of them
        for class_id, score, box, mask in rows
    )


def difference(golden: Golden, answer: Answer) -> str | None:
    """Say how an answer differs from the golden one, or None if it does not."""
    wanted, seen = (sorted(objects, key=_order) for objects in (golden.objects, describe(answer.detections)))
    if [item.class_id for item in wanted] != [item.class_id for item in seen]:
        return f"{golden.name}: classes {[item.class_id for item in seen]}, not {[item.class_id for item in wanted]}"
    for one, other in zip(wanted, seen, strict=True):
        if abs(one.score - other.score) > SCORE_TOLERANCE:
            return f"{golden.name}: class {one.class_id} scores {other.score:.4f}, not {one.score:.4f}"
        if np.abs(np.subtract(one.box, other.box)).max() > BOX_TOLERANCE:
            return f"{golden.name}: class {one.class_id} lies at {other.box}, not {one.box}"
        if _mask_iou(one, other, answer) < LEAST_MASK_IOU:
            return f"{golden.name}: the mask of class {one.class_id} at {one.box} is another"
    return None


def _order(item: ExpectedObject) -> tuple[int, float]:
    """By class, then from left to right: scores that are nearly equal may change places."""
    return item.class_id, round(item.box[0])


def _mask_iou(one: ExpectedObject, other: ExpectedObject, answer: Answer) -> float:
    if one.mask is None or other.mask is None:
        return 1.0 if one.mask == other.mask else 0.0
    size = [answer.height, answer.width]
    first, second = ({"size": size, "counts": item.mask.encode()} for item in (one, other) if item.mask is not None)
    iou: Any = rle.iou([first], [second], [0])
    return float(iou[0][0])

"""Golden images: pictures with known answers, inferred again to prove that a model still sees what it saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from vedette_server.contract.answer import Answer, Detections


@dataclass(frozen=True)
class Tolerance:
    """How far an object may lie from the one that was expected."""

    score: float
    box: float  # pixels, of any edge
    mask_iou: float  # at least


# By the contract's precision. "exact": another processor sums in another order, which moves a score or an edge far less
# than this; a wrong colour order or a damaged weight moves them far more.
_TOLERANCES = {"exact": Tolerance(score=1e-3, box=0.5, mask_iou=0.97)}


def tolerance(precision: str) -> Tolerance:
    """What golden images are held to under a contract's precision. Raises `ValueError` for one that is not known."""
    if precision not in _TOLERANCES:
        msg = f"no tolerance is known for the precision {precision!r}; there is one for {', '.join(_TOLERANCES)}"
        raise ValueError(msg)
    return _TOLERANCES[precision]


_SAME_PLACE = 0.5  # IoU of boxes from which on two versions mean the same object, as in COCO's AP50


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


@dataclass(frozen=True)
class Pair:
    """An expected object and the one that was seen in its place; None for the one that there is not."""

    expected: ExpectedObject | None
    seen: ExpectedObject | None
    mask_iou: float | None = None  # None: neither has a mask

    @property
    def score(self) -> float | None:
        """How far apart the scores lie."""
        return abs(self.expected.score - self.seen.score) if self.expected and self.seen else None

    @property
    def box(self) -> float | None:
        """How far apart the boxes' edges lie at most, in pixels."""
        return _moved(self.expected, self.seen) if self.expected and self.seen else None

    def wrong(self, allowed: Tolerance) -> str | None:
        """Say how the two differ by more than what is allowed, or None."""
        one, other = self.expected, self.seen
        if one is None or other is None:
            found, word = (one, "missing") if one else (other, "not expected")
            assert found is not None  # noqa: S101  a pair has at least one
            return f"class {found.class_id} at {_place(found)} is {word}"
        if abs(one.score - other.score) > allowed.score:
            return f"class {one.class_id} scores {other.score:.4f}, not {one.score:.4f}"
        if _moved(one, other) > allowed.box:
            return f"class {one.class_id} lies at {_place(other)}, not {_place(one)}"
        if self.mask_iou is not None and self.mask_iou < allowed.mask_iou:
            return f"the mask of class {one.class_id} at {_place(one)} is another (IoU {self.mask_iou:.2f})"
        return None


def pairs(golden: Golden, answer: Answer) -> list[Pair]:
    """Pair what a picture must give with what it gave, class by class: what overlaps most first, then what is left.

    What was expected comes first, in its order, then what was not.
    """
    seen = describe(answer.detections)
    taken = _assign(golden.objects, seen)
    both = [(one, seen[taken[index]] if index in taken else None) for index, one in enumerate(golden.objects)]
    new = [Pair(None, other) for index, other in enumerate(seen) if index not in taken.values()]
    return [*(Pair(one, other, _mask_iou(one, other, answer)) for one, other in both), *new]


def difference(golden: Golden, answer: Answer, allowed: Tolerance) -> str | None:
    """Say how an answer differs from the golden one by more than what is allowed, or None if it does not."""
    wrong = next(filter(None, (pair.wrong(allowed) for pair in pairs(golden, answer))), None)
    return wrong and f"{golden.name}: {wrong}"


def agreed(golden: Golden, names: Sequence[str], answer: Answer, its_names: Sequence[str]) -> int:
    """How many of a picture's objects another version's answer has: in the same place, under the same class name."""
    seen = describe(answer.detections)
    if not golden.objects or not seen:
        return 0
    overlap: Any = rle.iou(_xywh(seen), _xywh(golden.objects), [0] * len(golden.objects))
    alike = np.equal.outer([its_names[one.class_id] for one in seen], [names[one.class_id] for one in golden.objects])
    return int(((overlap >= _SAME_PLACE) & alike).any(axis=0).sum())


def _assign(expected: Sequence[ExpectedObject], seen: Sequence[ExpectedObject]) -> dict[int, int]:
    """For each expected object's index that of the seen one; scores play no part, as equal ones may change places."""
    if not expected or not seen:
        return {}
    overlap: Any = rle.iou(_xywh(seen), _xywh(expected), [0] * len(expected))
    alike = [
        (-overlap[second, first], first, second)
        for first, one in enumerate(expected)
        for second, other in enumerate(seen)
        if one.class_id == other.class_id
    ]
    taken: dict[int, int] = {}
    for _, first, second in sorted(alike):
        if first not in taken and second not in taken.values():
            taken[first] = second
    return taken


def _xywh(objects: Sequence[ExpectedObject]) -> NDArray[np.float64]:
    """Boxes as x, y, width and height: shape (N, 4)."""
    return np.array([(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in (item.box for item in objects)], np.float64)


def _moved(one: ExpectedObject, other: ExpectedObject) -> float:
    return float(np.abs(np.subtract(one.box, other.box)).max())


def _place(item: ExpectedObject) -> str:
    return f"({', '.join(f'{edge:.1f}' for edge in item.box)})"


def _mask_iou(one: ExpectedObject, other: ExpectedObject | None, answer: Answer) -> float | None:
    """The IoU of two masks of the picture's size; 0 if one alone has a mask, None if neither has."""
    if other is None or (one.mask is None and other.mask is None):
        return None
    if one.mask is None or other.mask is None:
        return 0.0
    if one.mask == other.mask:
        return 1.0  # also where both are empty, of which pycocotools says 0
    size = [answer.height, answer.width]
    first, second = ({"size": size, "counts": mask.encode()} for mask in (one.mask, other.mask))
    iou: Any = rle.iou([first], [second], [0])
    return float(iou[0][0])

"""Golden images: pictures with known answers, inferred again to prove that a model still sees what it saw."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from vedette_server.contract.answer import Answer, Detections, corners
from vedette_server.contract.contract import named
from vedette_server.repository import runs


@dataclass(frozen=True)
class Tolerance:
    """How far an object may lie from the one that was expected."""

    score: float
    box: float  # pixels, of any edge
    mask_iou: float  # at least
    labels: float  # share of the pixels that may have another class


# By the contract's precision. "exact": another processor sums in another order, which moves a score or an edge far less
# than this; a wrong colour order or a damaged weight moves them far more.
_TOLERANCES = {"exact": Tolerance(score=1e-3, box=0.5, mask_iou=0.97, labels=0.03)}


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
    rotated_box: tuple[float, float, float, float, float] | None = None  # x, y, width, height, degrees


class ExpectedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a golden image must give of a model that gives a class for every pixel as well."""

    objects: tuple[ExpectedObject, ...]
    labels: bytes  # a grey PNG of the classes of the pixels


@dataclass(frozen=True)
class Golden:
    """A picture, as a file, and what it must give at the model's default threshold."""

    name: str
    data: bytes
    objects: tuple[ExpectedObject, ...]
    labels: bytes | None = None  # a grey PNG of its pixels' classes, of a model that gives those

    @property
    def expected(self) -> tuple[ExpectedObject, ...] | ExpectedAnswer:
        """What is written down of it."""
        return self.objects if self.labels is None else ExpectedAnswer(self.objects, self.labels)


def read(name: str, data: bytes, expected: tuple[ExpectedObject, ...] | ExpectedAnswer) -> Golden:
    """A golden image of what was written down."""
    if isinstance(expected, ExpectedAnswer):
        return Golden(name, data, expected.objects, expected.labels)
    return Golden(name, data, expected)


def note(name: str, data: bytes, answer: Answer) -> Golden:
    """Write down what a picture has given as what it must give from now on."""
    return Golden(name, data, describe(answer.detections), labels(answer))


def labels(answer: Answer) -> bytes | None:
    """A grey PNG of the classes of an answer's pixels; None: it has none.

    Of a model that gives segments alone: 0 where there is none, 2 n + 1 for things of class n, 2 n + 2 for stuff.
    """
    if answer.class_map_png is not None or answer.panoptic is None:
        return answer.class_map_png
    ids = _values(answer.panoptic.segment_map_png)
    classes = np.zeros(1 + max((segment.id for segment in answer.panoptic.segments), default=0), np.uint16)
    for segment in answer.panoptic.segments:
        classes[segment.id] = 2 * segment.class_id + (1 if segment.is_thing else 2)
    buffer = io.BytesIO()
    Image.fromarray(classes[ids]).save(buffer, "PNG")
    return buffer.getvalue()


def relabelled(golden: Golden, answer: Answer) -> float | None:
    """The share of a picture's pixels that have another class than they must; None: they need have none."""
    if golden.labels is None:
        return None
    expected, seen = _expected_values(golden.labels, answer), _values(labels(answer) or b"")
    return float((expected != seen).mean()) if expected.size and expected.shape == seen.shape else 1.0


def _expected_values(png: bytes, answer: Answer) -> NDArray[np.integer[Any]]:
    """Those of a PNG that somebody else has made, of the answer's size; none where it is no such PNG."""
    values = np.zeros((0, 0), np.uint8)
    with contextlib.suppress(Exception), Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        if picture.size == (answer.width, answer.height):
            values = np.asarray(picture)
    return values


def _values(png: bytes) -> NDArray[np.integer[Any]]:
    """A grey PNG's values; none where there is no PNG."""
    if not png:
        return np.zeros((0, 0), np.uint8)
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def describe(found: Detections) -> tuple[ExpectedObject, ...]:
    """Write down detections as what a picture must give from now on."""
    masks = None if found.masks is None else [(mask.counts or b"").decode() for mask in found.masks]
    rotated = None if found.rotated is None else [tuple(box) for box in found.rotated.tolist()]
    rows = zip(found.class_ids.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return tuple(
        ExpectedObject(
            class_id, score, tuple(box), masks[index] if masks else None, rotated[index] if rotated else None
        )
        for index, (class_id, score, box) in enumerate(rows)
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
    share = relabelled(golden, answer)
    if wrong is None and share is not None and share > allowed.labels:
        wrong = f"{share:.1%} of the pixels have another class"
    return wrong and f"{golden.name}: {wrong}"


def agreed(golden: Golden, names: Sequence[str], answer: Answer, its_names: Sequence[str]) -> int:
    """How many of a picture's objects another version's answer has: in the same place, under the same class name."""
    seen = describe(answer.detections)
    if not golden.objects or not seen:
        return 0
    overlap: Any = rle.iou(_xywh(seen), _xywh(golden.objects), [0] * len(golden.objects))
    alike = np.equal.outer(
        [named(its_names, one.class_id) for one in seen], [named(names, one.class_id) for one in golden.objects]
    )
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
    """How far the edges lie apart at most, or of rotated boxes the corners, each from its own."""
    if one.rotated_box and other.rotated_box:
        apart = corners(one.rotated_box) - corners(other.rotated_box)
        return float(np.hypot(*apart.T).max())
    if one.rotated_box or other.rotated_box:
        return math.inf
    return float(np.abs(np.subtract(one.box, other.box)).max())


def _place(item: ExpectedObject) -> str:
    return f"({', '.join(f'{edge:.1f}' for edge in item.box)})"


def _mask_iou(one: ExpectedObject, other: ExpectedObject | None, answer: Answer) -> float | None:
    """The IoU of two masks of the picture's size; 0 if one alone is a mask, None if neither is there."""
    if other is None or (one.mask is None and other.mask is None):
        return None
    if one.mask is None or other.mask is None:
        return 0.0
    if one.mask == other.mask:
        return 1.0  # also where both are empty, of which pycocotools says 0
    size = [answer.height, answer.width]
    if not runs.whole(one.mask.encode(), math.prod(size)):
        return 0.0
    first, second = ({"size": size, "counts": mask.encode()} for mask in (one.mask, other.mask))
    iou: Any = rle.iou([first], [second], [0])
    return float(iou[0][0])

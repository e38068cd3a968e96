"""Golden images: pictures with known answers, inferred again to prove that a model still answers as it did."""

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
    """The permitted deviation from an expected object."""

    score: float
    box: float  # pixels, of any edge
    mask_iou: float  # minimum
    labels: float  # maximum share of pixels whose class may differ


# By the contract's precision. "exact": another processor sums in another order, which changes a score or an edge far
# less than this; a wrong colour order or a damaged weight changes them far more.
_TOLERANCES = {"exact": Tolerance(score=1e-3, box=0.5, mask_iou=0.97, labels=0.03)}


def tolerance(precision: str) -> Tolerance:
    """Return the tolerance under a contract's precision. Raises `ValueError` if it is unknown."""
    if precision not in _TOLERANCES:
        msg = f"no tolerance is defined for the precision {precision!r}, only for {', '.join(_TOLERANCES)}"
        raise ValueError(msg)
    return _TOLERANCES[precision]


_SAME_PLACE = 0.5  # IoU of boxes from which two versions mean the same object, as in COCO's AP50


class ExpectedObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object expected in a golden image."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]
    mask: str | None = None  # `counts` of a COCO RLE
    rotated_box: tuple[float, float, float, float, float] | None = None  # x, y, width, height, degrees


class ExpectedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The expected answer of a model that also classifies every pixel."""

    objects: tuple[ExpectedObject, ...]
    labels: bytes  # grey PNG of the pixels' classes


@dataclass(frozen=True)
class Golden:
    """A picture, as a file, with the expected answer at the model's default threshold."""

    name: str
    data: bytes
    objects: tuple[ExpectedObject, ...]
    labels: bytes | None = None  # grey PNG of the pixels' classes, for models that produce them

    @property
    def expected(self) -> tuple[ExpectedObject, ...] | ExpectedAnswer:
        """The expected answer as stored."""
        return self.objects if self.labels is None else ExpectedAnswer(self.objects, self.labels)


def read(name: str, data: bytes, expected: tuple[ExpectedObject, ...] | ExpectedAnswer) -> Golden:
    """Make a golden image from a stored answer."""
    if isinstance(expected, ExpectedAnswer):
        return Golden(name, data, expected.objects, expected.labels)
    return Golden(name, data, expected)


def note(name: str, data: bytes, answer: Answer) -> Golden:
    """Record the answer to a picture as the expected one."""
    return Golden(name, data, describe(answer.detections), labels(answer))


def labels(answer: Answer) -> bytes | None:
    """Return a grey PNG of the pixels' classes, or None if the answer has none.

    For a model that produces only segments: 0 without a segment, 2 n + 1 for things of class n, 2 n + 2 for stuff.
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
    """Return the share of pixels with an unexpected class, or None if no classes are expected."""
    if golden.labels is None:
        return None
    expected, seen = _expected_values(golden.labels, answer), _values(labels(answer) or b"")
    return float((expected != seen).mean()) if expected.size and expected.shape == seen.shape else 1.0


def _expected_values(png: bytes, answer: Answer) -> NDArray[np.integer[Any]]:
    """Return the values of a PNG from others, which must match the answer's size; empty if it is invalid."""
    values = np.zeros((0, 0), np.uint8)
    with contextlib.suppress(Exception), Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        if picture.size == (answer.width, answer.height):
            values = np.asarray(picture)
    return values


def _values(png: bytes) -> NDArray[np.integer[Any]]:
    """Return the values of a grey PNG; empty if there is none."""
    if not png:
        return np.zeros((0, 0), np.uint8)
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def describe(found: Detections) -> tuple[ExpectedObject, ...]:
    """Convert detections to expected objects."""
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
    """An expected object and the detected one matched to it; one of them may be None."""

    expected: ExpectedObject | None
    seen: ExpectedObject | None
    mask_iou: float | None = None  # None: neither has a mask

    @property
    def score(self) -> float | None:
        """The absolute difference of the scores."""
        return abs(self.expected.score - self.seen.score) if self.expected and self.seen else None

    @property
    def box(self) -> float | None:
        """The largest distance between corresponding edges of the boxes, in pixels."""
        return _moved(self.expected, self.seen) if self.expected and self.seen else None

    def wrong(self, allowed: Tolerance) -> str | None:
        """Describe a difference beyond the tolerance, or return None."""
        one, other = self.expected, self.seen
        if one is None or other is None:
            found, word = (one, "missing") if one else (other, "unexpected")
            assert found is not None  # noqa: S101  a pair has at least one
            return f"class {found.class_id} at {_place(found)} is {word}"
        if abs(one.score - other.score) > allowed.score:
            return f"class {one.class_id} scores {other.score:.4f}, not {one.score:.4f}"
        if _moved(one, other) > allowed.box:
            return f"class {one.class_id} lies at {_place(other)}, not {_place(one)}"
        if self.mask_iou is not None and self.mask_iou < allowed.mask_iou:
            return f"the mask of class {one.class_id} at {_place(one)} differs (IoU {self.mask_iou:.2f})"
        return None


def pairs(golden: Golden, answer: Answer) -> list[Pair]:
    """Match expected and detected objects, class by class, by descending overlap.

    Expected objects come first, in their order, then unexpected ones.
    """
    seen = describe(answer.detections)
    taken = _assign(golden.objects, seen)
    both = [(one, seen[taken[index]] if index in taken else None) for index, one in enumerate(golden.objects)]
    new = [Pair(None, other) for index, other in enumerate(seen) if index not in taken.values()]
    return [*(Pair(one, other, _mask_iou(one, other, answer)) for one, other in both), *new]


def difference(golden: Golden, answer: Answer, allowed: Tolerance) -> str | None:
    """Describe a difference between answer and golden image beyond the tolerance, or return None."""
    wrong = next(filter(None, (pair.wrong(allowed) for pair in pairs(golden, answer))), None)
    share = relabelled(golden, answer)
    if wrong is None and share is not None and share > allowed.labels:
        wrong = f"{share:.1%} of the pixels have another class"
    return wrong and f"{golden.name}: {wrong}"


def agreed(golden: Golden, names: Sequence[str], answer: Answer, its_names: Sequence[str]) -> int:
    """Count a picture's objects that another version finds in the same place, under the same class name."""
    seen = describe(answer.detections)
    if not golden.objects or not seen:
        return 0
    overlap: Any = rle.iou(_xywh(seen), _xywh(golden.objects), [0] * len(golden.objects))
    alike = np.equal.outer(
        [named(its_names, one.class_id) for one in seen], [named(names, one.class_id) for one in golden.objects]
    )
    return int(((overlap >= _SAME_PLACE) & alike).any(axis=0).sum())


def _assign(expected: Sequence[ExpectedObject], seen: Sequence[ExpectedObject]) -> dict[int, int]:
    """Map the index of each expected object to that of the detected one. Ignore scores: equal ones may swap places."""
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
    """Return boxes as x, y, width and height: shape (N, 4)."""
    return np.array([(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in (item.box for item in objects)], np.float64)


def _moved(one: ExpectedObject, other: ExpectedObject) -> float:
    """Return the largest distance between corresponding edges, or corners for rotated boxes."""
    if one.rotated_box and other.rotated_box:
        apart = corners(one.rotated_box) - corners(other.rotated_box)
        return float(np.hypot(*apart.T).max())
    if one.rotated_box or other.rotated_box:
        return math.inf
    return float(np.abs(np.subtract(one.box, other.box)).max())


def _place(item: ExpectedObject) -> str:
    return f"({', '.join(f'{edge:.1f}' for edge in item.box)})"


def _mask_iou(one: ExpectedObject, other: ExpectedObject | None, answer: Answer) -> float | None:
    """Return the IoU of two masks of the picture's size; 0 if only one has a mask, None if neither has."""
    if other is None or (one.mask is None and other.mask is None):
        return None
    if one.mask is None or other.mask is None:
        return 0.0
    if one.mask == other.mask:
        return 1.0  # also if both are empty, for which pycocotools returns 0
    size = [answer.height, answer.width]
    if not runs.whole(one.mask.encode(), math.prod(size)):
        return 0.0
    first, second = ({"size": size, "counts": mask.encode()} for mask in (one.mask, other.mask))
    iou: Any = rle.iou([first], [second], [0])
    return float(iou[0][0])

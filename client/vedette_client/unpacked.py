"""What an answer holds in packed form, held to what it says of itself before a library unpacks it.

pycocotools writes beyond its memory, or never ends, at runs that are not those of a mask of its size and at outlines
that lead out of it; and Pillow reads formats that no answer has. A server that is none of ours can send all of that.
"""

import io
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vedette_client.errors import InternalError

_LONGEST_EDGE, _MOST_PIXELS = 2**20, 2**30  # of a mask
_LONGEST_OUTLINE = 2**22  # pixels, of all of a mask's outlines together
_LEAST_POINTS = 3  # of an outline
_FIRST, _MORE, _SIGN, _BITS = 48, 32, 16, 5  # of the characters of COCO's compressed runs: each holds so many bits
_LONGEST_RUN = 7  # characters


def check_size(height: int, width: int) -> None:
    """Refuse a mask of no size, or of one that no image has. Raises `InternalError`."""
    if not 0 < min(height, width) <= max(height, width) <= _LONGEST_EDGE or height * width > _MOST_PIXELS:
        _refuse(f"a mask of {width} x {height} pixels")


def check_runs(counts: bytes, height: int, width: int) -> None:
    """Refuse runs, as COCO compresses them, that are not those of a mask of this size. Raises `InternalError`."""
    check_size(height, width)
    if not _whole(np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST, height * width):
        _refuse(f"runs of {len(counts)} bytes that are no mask of {width} x {height} pixels")


def _whole(codes: NDArray[np.int64], size: int) -> bool:
    """Whether runs add up to so many pixels."""
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        return False
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_RUN:
        return False
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * places), starts)
    runs -= (codes[ends] & _SIGN != 0).astype(np.int64) << (_BITS * lengths)
    for first in (1, 2):  # from the fourth on, a run is told by how it differs from the last but one
        runs[first::2] = np.cumsum(runs[first::2])
    return bool(runs.min() >= 0 and runs.sum() == size)


def check_outlines(outlines: Sequence[Sequence[float]], height: int, width: int) -> None:
    """Refuse outlines that leave the image, or go round it without end. Raises `InternalError`."""
    check_size(height, width)
    length = 0.0
    for line in outlines:
        points = np.array(line, np.float64)
        if len(points) % 2 or len(points) < 2 * _LEAST_POINTS:
            _refuse(f"an outline of {len(points)} coordinates")
        points = points.reshape(-1, 2)
        if not ((points >= -1) & (points <= (width + 1, height + 1))).all():  # which a NaN is not either
            _refuse(f"an outline that is not within {width} x {height} pixels")
        length += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    if length > _LONGEST_OUTLINE:
        _refuse(f"outlines of {length:.0f} pixels' length")


def png(data: bytes) -> NDArray[Any]:
    """The values of a grey or bilevel PNG: shape (height, width). Raises `InternalError`."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            values = np.asarray(picture)
    except Exception as error:  # noqa: BLE001  whatever Pillow makes of what is none
        _refuse(f"a PNG of {len(data)} bytes that cannot be read", error)
    if values.ndim != 2:
        _refuse("a PNG in colours where one of numbers belongs")
    return values


def mask(data: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """A mask of this size that a PNG holds. Raises `InternalError`."""
    values = png(data)
    if values.shape != (height, width):
        _refuse(f"a PNG of {values.shape[1]} x {values.shape[0]} pixels for a mask of {width} x {height}")
    return values.astype(bool)


def _refuse(what: str, error: Exception | None = None) -> NoReturn:
    message = f"the answer holds {what}: what gave it is no Vedette server, or something on the way has changed it"
    raise InternalError(message, grpc.StatusCode.INTERNAL) from error

"""Validation of packed data in an answer before a library decodes it.

pycocotools writes beyond its memory, or never returns, if runs do not match the mask's size or outlines leave it.
Pillow reads formats that answers never contain. A foreign server can send all of that.
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
_LONGEST_OUTLINE = 2**22  # pixels, of all outlines of a mask
_LEAST_POINTS = 3  # per outline
_FIRST, _MORE, _SIGN, _BITS = 48, 32, 16, 5  # characters of COCO's compressed runs: each holds five bits
_LONGEST_RUN = 7  # characters


def check_size(height: int, width: int) -> None:
    """Refuse a mask without a size, or larger than any image. Raises `InternalError`."""
    if not 0 < min(height, width) <= max(height, width) <= _LONGEST_EDGE or height * width > _MOST_PIXELS:
        _refuse(f"a mask of {width} x {height} pixels")


def check_runs(counts: bytes, height: int, width: int) -> None:
    """Refuse COCO compressed runs that are not a mask of this size. Raises `InternalError`."""
    check_size(height, width)
    if not _whole(np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST, height * width):
        _refuse(f"runs of {len(counts)} bytes that are not a mask of {width} x {height} pixels")


def _whole(codes: NDArray[np.int64], size: int) -> bool:
    """Return whether runs add up to `size` pixels."""
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
    for first in (1, 2):  # from the fourth on, a run is encoded as its difference from the last but one
        runs[first::2] = np.cumsum(runs[first::2])
    return bool(runs.min() >= 0 and runs.sum() == size)


def check_outlines(outlines: Sequence[Sequence[float]], height: int, width: int) -> None:
    """Refuse outlines that leave the image, or are excessively long. Raises `InternalError`."""
    check_size(height, width)
    length = 0.0
    for line in outlines:
        points = np.array(line, np.float64)
        if len(points) % 2 or len(points) < 2 * _LEAST_POINTS:
            _refuse(f"an outline of {len(points)} coordinates")
        points = points.reshape(-1, 2)
        if not ((points >= -1) & (points <= (width + 1, height + 1))).all():  # false for NaN, too
            _refuse(f"an outline outside {width} x {height} pixels")
        length += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    if length > _LONGEST_OUTLINE:
        _refuse(f"outlines with a length of {length:.0f} pixels")


def png(data: bytes) -> NDArray[Any]:
    """Decode a grey or bilevel PNG: shape (height, width). Raises `InternalError`."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            values = np.asarray(picture)
    except Exception as error:  # noqa: BLE001  Pillow may raise anything for invalid data
        _refuse(f"a PNG of {len(data)} bytes that cannot be read", error)
    if values.ndim != 2:
        _refuse("a PNG in colour instead of one of numbers")
    return values


def mask(data: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Decode a PNG as a mask of this size. Raises `InternalError`."""
    values = png(data)
    if values.shape != (height, width):
        _refuse(f"a PNG of {values.shape[1]} x {values.shape[0]} pixels for a mask of {width} x {height}")
    return values.astype(bool)


def _refuse(what: str, error: Exception | None = None) -> NoReturn:
    message = f"the answer contains {what}: the server is not a Vedette server, or an intermediary changed it"
    raise InternalError(message, grpc.StatusCode.INTERNAL) from error

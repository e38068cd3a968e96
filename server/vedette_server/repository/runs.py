"""Validation of COCO compressed masks from others, before a library decodes them.

If the runs do not match the mask's size, pycocotools writes beyond its memory, or never returns.
"""

import numpy as np
from numpy.typing import NDArray

_FIRST, _MORE, _SIGN, _BITS = 48, 32, 16, 5  # of the characters: each holds five bits
_LONGEST_RUN = 7  # characters


def whole(counts: bytes, size: int) -> bool:
    """Return whether the runs are those of a mask with `size` pixels."""
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        return False
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    return bool(lengths.max() <= _LONGEST_RUN) and _add_up(_runs(codes, starts, ends, lengths), size)


def _runs(
    codes: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the lengths of the runs: from the fourth on, each is encoded as its difference from the last but one."""
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs: NDArray[np.int64] = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * places), starts)
    runs -= (codes[ends] & _SIGN != 0).astype(np.int64) << (_BITS * lengths)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _add_up(runs: NDArray[np.int64], size: int) -> bool:
    return bool(runs.min() >= 0 and runs.sum() == size)

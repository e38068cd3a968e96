"""Detection of interleaved (HWC) and planar (CHW) samples by their values.

In a picture, neighbours resemble each other. In planar samples, the next sample is the next pixel, and the third next
is three pixels away. In interleaved samples, the next sample is another colour of the same pixel, and the third next is
the next pixel. The same holds one row further down.

A picture with more noise than content stays undecided, and its declaration is trusted.
"""

import numpy as np

from vedette_server.contract.types import Float32Array, UInt8Array

_LEAST_EDGE = 16  # pixels; smaller pictures have too few neighbours
_SAMPLES = 200_000
_MARGIN = 0.9  # noise and flat pictures lie at 1
_GREY = 0.9  # share of pixels with three equal samples above which a picture is grey, and so interleaved


def _step(samples: UInt8Array | Float32Array, distance: int) -> float:
    """Return the mean absolute difference of samples `distance` apart, over a part of the picture."""
    start = len(samples) // 4
    part = samples[start : start + _SAMPLES + distance].astype(np.float32)
    return float(np.abs(part[distance:] - part[:-distance]).mean())


def _steps(samples: UInt8Array | Float32Array, width: int) -> tuple[float, float, float, float]:
    return _step(samples, 1), _step(samples, 3), _step(samples, width), _step(samples, 3 * width)


def look_planar(samples: UInt8Array | Float32Array, height: int, width: int) -> bool:
    """Return whether samples declared as interleaved are planar. `samples` are flat and packed."""
    if min(height, width) < _LEAST_EDGE:
        return False
    pixels = samples[: _SAMPLES * 3].reshape(-1, 3)
    if (pixels == pixels[:, :1]).all(axis=1).mean() > _GREY:
        return False
    next_one, next_third, row, third_row = _steps(samples, width)
    return next_one < _MARGIN * next_third and row < _MARGIN * third_row


def look_interleaved(samples: UInt8Array | Float32Array, height: int, width: int) -> bool:
    """Return whether samples declared as planar are interleaved. `samples` are flat and packed."""
    if min(height, width) < _LEAST_EDGE:
        return False
    planes = samples.reshape(3, -1)[:, : _SAMPLES * 3]
    if (planes == planes[:1]).all(axis=0).mean() > _GREY:  # as in grey planes, dithered or not
        return False
    next_one, next_third, row, third_row = _steps(samples, width)
    return next_third < _MARGIN * next_one and third_row < _MARGIN * row

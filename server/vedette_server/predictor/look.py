"""Statistics of an image, as received and as the model sees it, that reveal mistakes."""

import math
import zlib
from typing import Any

import cv2
import numpy as np

from vedette_server.contract.answer import FLAT, NEARLY_ALL, NO_MIDDLE, ModelInput, PixelStatistics
from vedette_server.contract.types import Float32Array, UInt8Array

_SAMPLES = 64  # along the shorter edge, approximately
_DARK, _SATURATED = 12, 250  # levels from which a sample counts as dark or saturated
_LOW, _HIGH = 3, 253  # bounds of normalised values once they are cast to 8 bits, clipped or wrapped
_TONE = 0.001  # share of samples with the same level from which it counts as a tone of the picture
_TWO_TONES = 2  # of a black and white picture, which makes as much sense in signed numbers
_ALIKE, _LESS = 0.3, 0.05  # a picture's correlation of neighbours, and its loss under a wrong sign
# If a sample shows nothing, the whole image is examined before that is believed. Noise is normally distributed, so
# nothing of it lies beyond six standard deviations plus codec errors, and neighbouring cells share nothing of it.
_ONE_SIDED = 0.95  # quantile 1.645 standard deviations from the mean
_SIGMAS, _ADDED = 6.0, 4.0
_DEFECTS = 1e-5  # share of a sensor's pixels that may be hot or dead
_BLOCK = 8  # pixels over which codecs spread the noise of a grey picture
_RELIEF, _SHARED = 0.15, 0.3  # standard deviation, in levels, of what neighbouring cells share; their correlation


def look(pixels: UInt8Array, resized: UInt8Array) -> PixelStatistics:
    """Measure an image, shape (height, width, channels), 0 to 255; `resized` is the model's input.

    Three channels are BGR. With any other number, brightness is their average.
    """
    sample = _sample(pixels)
    levels = np.bincount(sample.ravel(), minlength=256)
    share = levels / levels.sum()
    mean, spread = cv2.meanStdDev(sample)
    grey = brightness(sample)
    dark, saturated = float(share[: _DARK + 1].sum()), float(share[_SATURATED:].sum())
    extreme = max(dark, saturated) >= NEARLY_ALL or float(spread.max()) < FLAT
    lowest, highest = _extremes(pixels)
    middle = _middle(pixels, float(share[_LOW + 1 : _HIGH].sum()))
    return PixelStatistics(
        mean=tuple(mean.ravel().tolist()),
        spread=tuple(spread.ravel().tolist()),
        lowest=lowest,
        highest=highest,
        dark=dark,
        saturated=saturated,
        middle=middle,
        flat=_flat(sample),
        coherence=_coherence(grey),
        colour=_colour(sample),
        sharpness=_sharpness(resized),
        hash=_hash(grey),
        checksum=zlib.crc32(sample.tobytes()),
        upper=_upper(grey),
        wrapped=not middle and int(np.count_nonzero(share >= _TONE)) > _TWO_TONES and _signed(pixels),
        featureless=extreme and _featureless(pixels),
        one_colour=extreme and bool((pixels == pixels[0, 0]).all()),
    )


def _extremes(pixels: UInt8Array) -> tuple[int, int]:
    """Return the lowest and the highest level of the whole image."""
    lowest, highest, *_ = cv2.minMaxLoc(np.ascontiguousarray(pixels).reshape(len(pixels), -1))
    return int(lowest), int(highest)


def _middle(pixels: UInt8Array, share: float) -> float:
    """Return the share of levels between the extremes; over the whole image if the sample has hardly any."""
    if share >= NO_MIDDLE:
        return share
    return cv2.countNonZero(cv2.inRange(pixels.reshape(-1, 1), _LOW + 1, _HIGH - 1)) / pixels.size


def _signed(pixels: UInt8Array) -> bool:
    """Return whether neighbours correlate no less if levels are read as signed numbers.

    Noise at both ends of the range, as in a JPEG of black and white, correlates less when read as signed.
    """
    plane = np.ascontiguousarray(pixels[:, :, pixels.shape[2] // 2])
    return _coherence(plane.view(np.int8)) >= max(_ALIKE, _coherence(plane) - _LESS)


def _featureless(pixels: UInt8Array) -> bool:
    """Return whether the whole image shows nothing beyond sensor noise."""
    if any(_outstanding(plane) > _DEFECTS for plane in cv2.split(pixels)):
        return False
    return _relief(brightness(pixels)) < _RELIEF


def _outstanding(plane: Any) -> float:  # noqa: ANN401  OpenCV's types are wide
    """Return the share of a channel's levels out of the reach of noise."""
    levels = cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    below = np.cumsum(levels) / levels.sum()
    low, middle, high = np.searchsorted(below, (1 - _ONE_SIDED, 0.5, _ONE_SIDED)).tolist()
    sigma = max(high - middle, middle - low) / 1.645
    beyond = np.abs(np.arange(256) - middle) > _SIGMAS * sigma + _ADDED
    return float(levels[beyond].sum() / levels.sum())


def _relief(grey: Any) -> float:  # noqa: ANN401  the same
    """Return the standard deviation of what neighbouring cells share in their means; 0 for pure noise."""
    height, width = grey.shape
    step = max(1, min(height, width) // _SAMPLES // _BLOCK) * _BLOCK
    rows, columns = height // step, width // step
    if min(rows, columns) < 2:
        return math.inf  # too small to judge
    whole = np.ascontiguousarray(grey[: rows * step, : columns * step], np.float32)
    fields = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    fields -= fields.mean()
    pairs = ((fields[:, 1:], fields[:, :-1]), (fields[1:], fields[:-1]))
    shared = max(float(np.vdot(one, other)) / one.size for one, other in pairs)
    return shared**0.5 if shared > _SHARED * float(fields.var()) else 0.0


def _sample(pixels: Any) -> Any:  # noqa: ANN401  of the same type
    step = max(1, min(pixels.shape[:2]) // _SAMPLES)
    return np.ascontiguousarray(pixels[::step, ::step])


def brightness(pixels: UInt8Array) -> UInt8Array:
    """Return one level per pixel: luminance for BGR, otherwise the average of the channels."""
    channels = pixels.shape[2]
    if channels == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    return pixels[:, :, 0] if channels == 1 else np.rint(pixels.mean(axis=2, dtype=np.float32)).astype(np.uint8)


def _colour(sample: UInt8Array) -> float:
    if sample.shape[2] != 3:
        return 0.0
    blue, green, red = cv2.split(sample)
    colour = cv2.subtract(cv2.max(cv2.max(blue, green), red), cv2.min(cv2.min(blue, green), red))
    return float(cv2.mean(colour)[0])


def _flat(sample: UInt8Array) -> float:
    if sample.shape[1] < 2:
        return 1.0
    steps = cv2.absdiff(sample[:, 1:], sample[:, :-1])
    return float(np.count_nonzero(steps <= 1) / steps.size)


def _sharpness(resized: UInt8Array) -> float:
    """Return the variance of the Laplacian, a measure of focus (Pech-Pacheco et al., ICPR 2000)."""
    height, width = resized.shape[:2]
    middle = np.ascontiguousarray(resized[height // 4 : height - height // 4, width // 4 : width - width // 4])
    edges = cv2.Laplacian(brightness(middle), cv2.CV_32F).ravel()
    return float(np.dot(edges, edges)) / edges.size - float(edges.mean()) ** 2


def _coherence(grey: Any) -> float:  # noqa: ANN401  the same
    """Return the correlation of samples with their right neighbours; 0 if there is nothing to correlate."""
    if grey.shape[1] < 2:
        return 0.0
    levels = grey.astype(np.float32) - grey.mean(dtype=np.float32)
    left, right = levels[:, :-1].ravel(), levels[:, 1:].ravel()
    both = float(np.sqrt(np.dot(left, left) * np.dot(right, right)))
    return float(np.dot(left, right)) / both if both else 0.0


def _upper(grey: Any) -> float:  # noqa: ANN401  the same
    half = grey.shape[0] // 2
    if not half:
        return 0.5
    upper, lower = cv2.mean(grey[:half])[0], cv2.mean(grey[-half:])[0]
    return float((upper + 1) / (upper + lower + 2))  # 1 level each, so that black is even


def _hash(grey: Any) -> int:  # noqa: ANN401  the same
    """Return the difference hash: a bit per pair of neighbours in 9 x 8 cells, set if brightness grows, row by row."""
    fields = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(fields[:, 1:] > fields[:, :-1]).tobytes(), "big")


def entered(resized: UInt8Array | Float32Array, mean: tuple[float, ...], std: tuple[float, ...]) -> ModelInput:
    """Return statistics of the model's input, shape (height, width, channels), 0 to 255, in its own channel order."""
    height, width = resized.shape[:2]
    levels, spread = (values.ravel() for values in cv2.meanStdDev(_sample(resized)))
    return ModelInput(height, width, tuple(((levels - mean) / std).tolist()), tuple((spread / std).tolist()))

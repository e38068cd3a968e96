"""What an image looks like, as it arrived and as the model sees it: statistics from which mistakes can be told."""

import zlib
from typing import Any

import cv2
import numpy as np

from vedette_server.contract.answer import ModelInput, PixelStatistics
from vedette_server.contract.types import Float32Array, UInt8Array

_SAMPLES = 64  # along the shorter edge, about
_DARK, _SATURATED = 12, 250  # levels at and beyond which a sample counts as dark or as saturated
_LOW, _HIGH = 3, 253  # levels at and beyond which normalised values lie once they are 8 bits, cut or wrapped


def look(pixels: UInt8Array, resized: UInt8Array) -> PixelStatistics:
    """Look at an image, shape (height, width, channels), 0 to 255; `resized` is the same as the model is given it.

    Three channels are BGR. Of any other number, brightness is their average.
    """
    sample = _sample(pixels)
    levels = np.bincount(sample.ravel(), minlength=256)
    share = levels / levels.sum()
    present = np.flatnonzero(levels)
    mean, spread = cv2.meanStdDev(sample)
    grey = brightness(sample)
    return PixelStatistics(
        mean=tuple(mean.ravel().tolist()),
        spread=tuple(spread.ravel().tolist()),
        lowest=int(present[0]),
        highest=int(present[-1]),
        dark=float(share[: _DARK + 1].sum()),
        saturated=float(share[_SATURATED:].sum()),
        middle=float(share[_LOW + 1 : _HIGH].sum()),
        flat=_flat(sample),
        coherence=_coherence(grey),
        colour=_colour(sample),
        sharpness=_sharpness(resized),
        hash=_hash(grey),
        checksum=zlib.crc32(sample.tobytes()),
        upper=_upper(grey),
    )


def _sample(pixels: Any) -> Any:  # noqa: ANN401  of the same type
    step = max(1, min(pixels.shape[:2]) // _SAMPLES)
    return np.ascontiguousarray(pixels[::step, ::step])


def brightness(pixels: UInt8Array) -> UInt8Array:
    """One level for each pixel: the luminance of colours, BGR, else the average of the channels."""
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
    """The variance of the Laplacian, a measure of focus (Pech-Pacheco et al., ICPR 2000)."""
    height, width = resized.shape[:2]
    middle = np.ascontiguousarray(resized[height // 4 : height - height // 4, width // 4 : width - width // 4])
    edges = cv2.Laplacian(brightness(middle), cv2.CV_32F).ravel()
    return float(np.dot(edges, edges)) / edges.size - float(edges.mean()) ** 2


def _coherence(grey: Any) -> float:  # noqa: ANN401  the same
    """The correlation of each sample with its right neighbour; 0 where there is nothing to correlate."""
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
    """The difference hash: whether brightness grows from each of 9 x 8 fields to the next, row by row."""
    fields = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(fields[:, 1:] > fields[:, :-1]).tobytes(), "big")


def entered(resized: UInt8Array | Float32Array, mean: tuple[float, ...], std: tuple[float, ...]) -> ModelInput:
    """What the model makes of an image in its own channel order, shape (height, width, channels), 0 to 255."""
    height, width = resized.shape[:2]
    levels, spread = (values.ravel() for values in cv2.meanStdDev(_sample(resized)))
    return ModelInput(height, width, tuple(((levels - mean) / std).tolist()), tuple((spread / std).tolist()))

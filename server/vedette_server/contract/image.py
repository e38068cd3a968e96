"""Images as callers send them: what is declared about them, how that is checked, how they become pixels.

`check` looks at sizes and headers alone and is cheap enough for the gateway; `decode` makes the pixels, in a worker.
Every image becomes BGR, HWC, uint8: what Detectron2's `DefaultPredictor` takes, whatever the model's own order.
"""

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vedette_server.contract.contract import Limits
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.types import UInt8Array

# Pillow's own guard warns or raises at a fixed size; ours refuses at the contract's, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

CODECS = ("JPEG", "PNG", "WEBP", "BMP")
_CHANNELS = 3
_MODES_OF_MORE_THAN_8_BITS = ("I", "F")


class PixelFormat(StrEnum):
    """The order of raw samples, 8 bits each."""

    BGR8 = "BGR8"
    RGB8 = "RGB8"


@dataclass(frozen=True)
class EncodedImage:
    """A compressed file; its format is told by its content, its orientation by its EXIF data."""


@dataclass(frozen=True)
class RawImage:
    """Raw samples: HWC, uint8, `row_stride` bytes from row to row (None: packed)."""

    pixel_format: PixelFormat
    height: int
    width: int
    row_stride: int | None = None

    @property
    def stride(self) -> int:
        """Bytes from the start of one row to the start of the next."""
        return self.width * _CHANNELS if self.row_stride is None else self.row_stride


ImageSpec: TypeAlias = EncodedImage | RawImage
Buffer: TypeAlias = bytes | memoryview


def check(spec: ImageSpec, data: Buffer, limits: Limits) -> None:
    """Refuse what the header or the declared size already shows to be wrong.

    Raises `Refused` with one of the IMAGE_*, RAW_* or ROW_STRIDE_INVALID reasons.
    """
    if not len(data):
        raise Refused(Reason.IMAGE_MISSING)
    if len(data) > limits.max_bytes:
        raise Refused(Reason.IMAGE_TOO_MANY_BYTES, bytes=len(data), max_bytes=limits.max_bytes)
    match spec:
        case EncodedImage():
            width, height = _open(data).size
            _check_size(height, width, limits)
        case RawImage():
            _check_raw(spec, data, limits)


def _check_size(height: int, width: int, limits: Limits) -> None:
    if height * width > limits.max_pixels or max(height, width) > limits.max_edge:
        raise Refused(
            Reason.IMAGE_TOO_LARGE,
            height=height,
            width=width,
            max_pixels=limits.max_pixels,
            max_edge=limits.max_edge,
        )


def _check_raw(spec: RawImage, data: Buffer, limits: Limits) -> None:
    if spec.height <= 0 or spec.width <= 0:
        raise Refused(Reason.RAW_SIZE_INVALID, height=spec.height, width=spec.width)
    _check_size(spec.height, spec.width, limits)
    packed = spec.width * _CHANNELS
    if spec.stride < packed:
        raise Refused(Reason.ROW_STRIDE_INVALID, row_stride=spec.stride, least=packed, width=spec.width)
    # The padding after the last row may be there or not.
    lengths = (spec.stride * spec.height, spec.stride * (spec.height - 1) + packed)
    if len(data) not in lengths:
        raise Refused(
            Reason.RAW_LENGTH_MISMATCH,
            bytes=len(data),
            expected=lengths[0],
            height=spec.height,
            width=spec.width,
            pixel_format=spec.pixel_format,
            row_stride=spec.stride,
        )


def _open(data: Buffer) -> Image.Image:
    """Read a file's header; nothing is decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=CODECS)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Refused(
            Reason.IMAGE_UNREADABLE, codecs=", ".join(CODECS), first_bytes=bytes(data[:8]).hex(" ")
        ) from error
    if image.mode.startswith(_MODES_OF_MORE_THAN_8_BITS):
        raise Refused(Reason.IMAGE_MODE_UNSUPPORTED, mode=image.mode)
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise Refused(Reason.IMAGE_ANIMATED, frames=getattr(image, "n_frames", 0))
    return image


def decode(spec: ImageSpec, data: Buffer) -> UInt8Array:
    """Make the pixels of an image that `check` has passed: BGR, uint8, shape (height, width, 3).

    Files are read as Detectron2's `read_image` reads them: upright by their EXIF data, then converted to RGB by
    Pillow. Raises `Refused` (IMAGE_TRUNCATED, IMAGE_UNREADABLE) for data that only decoding shows to be broken.
    """
    match spec:
        case EncodedImage():
            return _decode_file(data)
        case RawImage():
            return _decode_raw(spec, data)


def _decode_file(data: Buffer) -> UInt8Array:
    image = _open(data)
    try:
        image.load()
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, IndexError) as error:
        raise Refused(Reason.IMAGE_TRUNCATED, bytes=len(data), codec=image.format) from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _decode_raw(spec: RawImage, data: Buffer) -> UInt8Array:
    samples = np.frombuffer(data, np.uint8)
    shape, strides = (spec.height, spec.width, _CHANNELS), (spec.stride, _CHANNELS, 1)
    pixels = np.lib.stride_tricks.as_strided(samples, shape, strides, writeable=False)
    if spec.pixel_format is PixelFormat.RGB8:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)

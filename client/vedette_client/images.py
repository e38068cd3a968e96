"""From what callers have in hand to an image message; nothing about pixels is guessed."""

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import image_pb2

from vedette_client.errors import LocalError

PixelFormat: TypeAlias = Literal["BGR8", "RGB8"]
ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

_FORMATS = {"BGR8": image_pb2.PIXEL_FORMAT_BGR8, "RGB8": image_pb2.PIXEL_FORMAT_RGB8}


def message(image: ImageLike, pixel_format: PixelFormat | None) -> image_pb2.Image:
    """Make the message of a path, a file's bytes, a PIL image, or an array with its pixel format.

    Arrays must be uint8 of shape (height, width, 3); rows may be padded. Raises `LocalError` for what cannot be sent.
    """
    if isinstance(image, np.ndarray):
        return _array(image, pixel_format)
    if pixel_format is not None:
        msg = f"pixel_format={pixel_format!r} was given with a {type(image).__name__}, which says itself what it is"
        raise LocalError(msg)
    match image:
        case bytes():
            return image_pb2.Image(encoded=image_pb2.EncodedImage(data=image))
        case Image.Image():
            return _array(np.asarray(image.convert("RGB")), "RGB8")
        case _:
            return image_pb2.Image(encoded=image_pb2.EncodedImage(data=_read(image)))


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except TypeError as error:
        msg = f"cannot send a {type(path).__name__}: give a path, bytes, a PIL image or a NumPy array"
        raise LocalError(msg) from error
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise LocalError(msg) from error


def _array(pixels: NDArray[Any], pixel_format: PixelFormat | None) -> image_pb2.Image:
    if pixel_format not in _FORMATS:
        msg = (
            f"an array was given with pixel_format={pixel_format!r}: say 'BGR8' (what OpenCV reads) or 'RGB8' (what "
            "Pillow reads); exchanged, they leave a model half blind without an error"
        )
        raise LocalError(msg)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        msg = (
            f"an array of dtype {pixels.dtype} and shape {pixels.shape} was given: send uint8, 0 to 255, not "
            "normalised, of shape (height, width, 3)"
        )
        raise LocalError(msg)
    packed = np.ascontiguousarray(pixels)
    height, width = packed.shape[:2]
    return image_pb2.Image(
        raw=image_pb2.RawImage(data=packed.tobytes(), pixel_format=_FORMATS[pixel_format], height=height, width=width)
    )

"""From what callers have in hand to an image message; nothing about pixels is guessed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import image_pb2

from vedette_client.errors import LocalError

PixelFormat: TypeAlias = Literal["BGR8", "RGB8", "GRAY8", "BGRA8", "RGBA8", "NV12", "I420"]


@dataclass(frozen=True)
class File:
    """An image file, as a path or its bytes, with what is to be done about its orientation and its alpha channel."""

    source: str | os.PathLike[str] | bytes
    orientation: Literal["APPLY", "REFUSE", "IGNORE"] = "APPLY"
    drop_alpha: bool = False


@dataclass(frozen=True)
class Raw:
    """Raw 8-bit samples, row by row; NV12 and I420 need `yuv_matrix` and `yuv_range`, alpha needs `drop_alpha`."""

    data: bytes | memoryview
    pixel_format: PixelFormat
    height: int
    width: int
    row_stride: int | None = None  # bytes from row to row; None: packed
    yuv_matrix: Literal["BT601", "BT709"] | None = None
    yuv_range: Literal["LIMITED", "FULL"] | None = None
    drop_alpha: bool = False


@dataclass(frozen=True)
class Tensor:
    """Floating-point pixels, not normalised: normalisation is done inside the model."""

    values: NDArray[Any]  # (height, width, 3) or (3, height, width), by the layout
    channel_order: Literal["BGR", "RGB"]
    layout: Literal["HWC", "CHW"]
    value_range: Literal["0-255", "0-1"]


ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | File | Raw | Tensor

Buffer: TypeAlias = bytes | memoryview

_CHANNELS = {"BGR8": 3, "RGB8": 3, "GRAY8": 1}


def message(image: ImageLike, pixel_format: PixelFormat | None) -> tuple[image_pb2.Image, Buffer]:
    """Make the message of whatever a caller has, without its data, and the data.

    Arrays must be uint8 of shape (height, width, 3), or (height, width) for GRAY8, and come with their pixel format.
    Raises `LocalError` for what cannot be sent.
    """
    if isinstance(image, np.ndarray):
        return _raw(_from_array(image, pixel_format))
    if pixel_format is not None:
        msg = f"pixel_format={pixel_format!r} was given with a {type(image).__name__}, which says itself what it is"
        raise LocalError(msg)
    match image:
        case Raw():
            return _raw(image)
        case Tensor():
            return _tensor(image)
        case File():
            return _file(image)
        case Image.Image():
            return _raw(_from_array(np.asarray(image.convert("RGB")), "RGB8"))
        case _:
            return _file(File(image))


def _file(image: File) -> tuple[image_pb2.Image, Buffer]:
    declared = image_pb2.EncodedImage(
        orientation=image_pb2.Orientation.Value(f"ORIENTATION_{image.orientation}"), drop_alpha=image.drop_alpha
    )
    data = image.source if isinstance(image.source, bytes) else _read(image.source)
    return image_pb2.Image(encoded=declared), data


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except TypeError as error:
        msg = f"cannot send a {type(path).__name__}: give a path, bytes, a PIL image, an array, File, Raw or Tensor"
        raise LocalError(msg) from error
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise LocalError(msg) from error


def _from_array(pixels: NDArray[Any], pixel_format: PixelFormat | None) -> Raw:
    channels = _CHANNELS.get(pixel_format or "")
    if channels is None or pixel_format is None:
        msg = (
            f"an array was given with pixel_format={pixel_format!r}: say 'BGR8' (what OpenCV reads), 'RGB8' (what "
            "Pillow reads) or 'GRAY8', or use Raw; exchanged, they leave a model half blind without an error"
        )
        raise LocalError(msg)
    wanted = 2 if channels == 1 else 3
    if pixels.dtype != np.uint8 or pixels.ndim != wanted or (channels > 1 and pixels.shape[2] != channels):
        msg = (
            f"an array of dtype {pixels.dtype} and shape {pixels.shape} was given as {pixel_format}: send uint8, 0 to "
            "255, not normalised, of shape (height, width, 3), or (height, width) for GRAY8; floats go into Tensor"
        )
        raise LocalError(msg)
    return Raw(_bytes(pixels), pixel_format, pixels.shape[0], pixels.shape[1])


def _bytes(values: NDArray[Any]) -> memoryview:
    """An array's bytes, row by row; copied only if they do not lie so."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _raw(image: Raw) -> tuple[image_pb2.Image, Buffer]:
    matrix, span = image.yuv_matrix or "UNSPECIFIED", image.yuv_range or "UNSPECIFIED"
    declared = image_pb2.RawImage(
        pixel_format=image_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{image.pixel_format}"),
        height=image.height,
        width=image.width,
        row_stride=image.row_stride,
        yuv_matrix=image_pb2.YuvMatrix.Value(f"YUV_MATRIX_{matrix}"),
        yuv_range=image_pb2.YuvRange.Value(f"YUV_RANGE_{span}"),
        drop_alpha=image.drop_alpha,
    )
    return image_pb2.Image(raw=declared), image.data


def _tensor(image: Tensor) -> tuple[image_pb2.Image, Buffer]:
    shape = image.values.shape
    channel_axis = 2 if image.layout == "HWC" else 0
    if not np.issubdtype(image.values.dtype, np.floating) or len(shape) != 3 or shape[channel_axis] != 3:
        seen = f"dtype {image.values.dtype} and shape {shape}"
        msg = f"a tensor of {seen} was given as {image.layout}: send three channels of floats"
        raise LocalError(msg)
    height, width = (size for axis, size in enumerate(shape) if axis != channel_axis)
    declared = image_pb2.TensorImage(
        channel_order=image_pb2.ChannelOrder.Value(f"CHANNEL_ORDER_{image.channel_order}"),
        layout=image_pb2.TensorLayout.Value(f"TENSOR_LAYOUT_{image.layout}"),
        value_range=image_pb2.ValueRange.Value(f"VALUE_RANGE_{image.value_range.replace('-', '_')}"),
        height=height,
        width=width,
    )
    return image_pb2.Image(tensor=declared), _bytes(image.values.astype("<f4", copy=False))

"""Conversion of callers' images to messages, without guessing anything about pixels.

Faults in the declaration or the length, which the server would refuse, are refused here, with its reason.
"""

import os
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import image_pb2

from vedette_client import arguments, arrays, limits, pillow
from vedette_client.errors import LocalError
from vedette_client.limits import Buffer, Limits

PixelFormat: TypeAlias = Literal["BGR8", "RGB8", "GRAY8", "BGRA8", "RGBA8", "NV12", "I420", "8UCN"]
Orientation: TypeAlias = Literal["APPLY", "REFUSE", "IGNORE"]
YuvMatrix: TypeAlias = Literal["BT601", "BT709"]
YuvRange: TypeAlias = Literal["LIMITED", "FULL"]
ChannelOrder: TypeAlias = Literal["BGR", "RGB", "GRAY", "MODEL"]
TensorLayout: TypeAlias = Literal["HWC", "CHW"]
ValueRange: TypeAlias = Literal["0-255", "0-1"]


class Array(Protocol):
    """An object that NumPy accepts as an array, such as a torch tensor in host memory."""

    def __array__(self) -> NDArray[Any]:
        """Return the values."""


@arguments.named_fields
@dataclass(frozen=True)
class File:
    """An image file, as a path or bytes, with the handling of its orientation and alpha channel."""

    source: str | os.PathLike[str] | bytes | bytearray | memoryview
    orientation: Orientation = "APPLY"
    drop_alpha: bool = False


@arguments.named_fields
@dataclass(frozen=True)
class Raw:
    """Raw 8-bit samples, row by row; NV12 and I420 require `yuv_matrix` and `yuv_range`, alpha requires `drop_alpha`.

    8UCN is for models with channels other than colours or grey: as many as the model has, in its own order. Any buffer
    may hold the samples, whatever its item type and shape, such as bytes, an array or an mmap.
    """

    data: bytes | bytearray | memoryview | NDArray[Any]
    _: KW_ONLY
    pixel_format: PixelFormat
    height: int
    width: int
    row_stride: int | None = None  # bytes from row to row; None: packed
    yuv_matrix: YuvMatrix | None = None
    yuv_range: YuvRange | None = None
    drop_alpha: bool = False


@arguments.named_fields
@dataclass(frozen=True)
class Tensor:
    """Floating-point pixels, not normalised, because the model normalises them itself. They are sent with 32 bits.

    Integers are accepted for the range 0-255. The order MODEL is for models with channels other than colours or grey.
    """

    values: NDArray[Any] | Array | list[Any]  # (height, width, channels) or (channels, height, width)
    channel_order: ChannelOrder
    layout: TensorLayout
    value_range: ValueRange


ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | Array | File | Raw | Tensor
)

_CHANNELS = {"BGR8": 3, "RGB8": 3, "GRAY8": 1, "BGRA8": 4, "RGBA8": 4, "8UCN": 0}
_MODELS_OWN = "8UCN"  # its number of channels is in the model's contract
_TENSOR_CHANNELS = {"BGR": 3, "RGB": 3, "GRAY": 1}
_WITH_ALPHA = ("BGRA8", "RGBA8")
_KINDS = "a path, a file's bytes, a PIL image, an array with its pixel_format, File, Raw or Tensor"


@dataclass(frozen=True)
class Beside:
    """Unchecked options that apply to images without their own."""

    pixel_format: object = None
    orientation: object = None
    drop_alpha: object = False


def message(image: object, beside: Beside, known: Limits = limits.none) -> tuple[image_pb2.Image, Buffer]:
    """Build a message without its data from any supported image, and return it with the data.

    Arrays must be uint8 of shape (height, width, channels), with their pixel format. For large images, `known` is
    called for the model's limits; pixels that exceed its bytes are sent as PNG, which is lossless. Raises `LocalError`
    for an image that cannot be sent.
    """
    check_beside(image, beside)
    match image:
        case Raw():
            return _raw(image, known)
        case Tensor():
            return _tensor(image, known)
        case File():
            return _file(image, known)
        case Image.Image():
            return _from_pillow(image, beside, known)
        case _ if arrays.is_array(image):
            return _raw(_from_array(image, beside, known), known)
        case _:
            return _file(File(cast("bytes", image), _orientation(beside), bool(beside.drop_alpha)), known, "image")


def check_beside(image: object, beside: Beside) -> None:
    """Refuse options that make no sense for this kind of image. Raises `LocalError`."""
    arguments.flag(beside.drop_alpha, "drop_alpha")
    arguments.optional(beside.orientation, "orientation", get_args(Orientation))
    refused = {"pixel_format": beside.pixel_format, "orientation": beside.orientation}
    if image is None:
        kind = "no image"
    elif arrays.is_array(image):
        kind = "an array, which has none"
        del refused["pixel_format"]
    else:
        kind = f"a {type(image).__name__}, which has its own declaration"
        if isinstance(image, File | Raw | Tensor):
            refused["drop_alpha"] = beside.drop_alpha or None
        else:
            del refused["orientation"]
    for name, value in refused.items():
        if value is not None:
            msg = f"{name}={arguments.shown(value)} was given with {kind}"
            raise LocalError(msg)


def _orientation(beside: Beside) -> Orientation:
    return cast("Orientation", beside.orientation or "APPLY")


def _from_pillow(image: Image.Image, beside: Beside, known: Limits) -> tuple[image_pb2.Image, Buffer]:
    """Build a message from a PIL image, refusing visible faults whether the pixels or the file are sent."""
    orientation, drop_alpha = _orientation(beside), bool(beside.drop_alpha)
    data = pillow.file(image)
    pixels = pillow.pixels(image, orientation, known, drop_alpha=drop_alpha)
    if data is not None and limits.fits(data, known):
        return _file(File(data, orientation, drop_alpha), known)
    return _raw(Raw(arrays.packed(pixels), pixel_format="RGB8", height=pixels.shape[0], width=pixels.shape[1]), known)


def _file(image: File, known: Limits, name: str = "source") -> tuple[image_pb2.Image, Buffer]:
    orientation = arguments.one_of(image.orientation, "orientation", get_args(Orientation))
    declared = image_pb2.EncodedImage(
        orientation=image_pb2.Orientation.Value(f"ORIENTATION_{orientation}"),
        drop_alpha=arguments.flag(image.drop_alpha, "drop_alpha"),
    )
    return limits.fit(image_pb2.Image(encoded=declared), _content(image.source, name), known)


def _content(source: object, name: str) -> Buffer:
    """Return a file's bytes."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        view = memoryview(source)
        if view.ndim != 1 or view.itemsize != 1:
            msg = f"{name} is a buffer of shape {view.shape}: a file's bytes have one dimension; use Raw for pixels"
            raise LocalError(msg)
        return arrays.octets(view, name)
    if not isinstance(source, str | os.PathLike):
        kinds = "a path or a file's bytes" if name == "source" else _KINDS
        msg = f"cannot send a {type(source).__name__} as {name}: give {kinds}"
        raise LocalError(msg)
    if not (path := os.fsdecode(source)):
        raise arguments.wrong(name, source, "a non-empty path")
    return _read(path, name)


def _read(path: str, name: str) -> bytes:
    seen = path.encode(errors="backslashreplace").decode()
    try:
        with open(path, "rb") as file:  # noqa: PTH123  the path need not be a Path
            if (size := os.fstat(file.fileno()).st_size) > limits.MOST_BYTES:
                msg = f"the {name} {seen} has {size} bytes, too many for a message"
                raise LocalError(msg, "IMAGE_TOO_MANY_BYTES")
            return file.read()
    except (OSError, ValueError) as error:
        msg = f"cannot read the {name} {seen}: {getattr(error, 'strerror', None) or error}"
        raise LocalError(msg) from error


def _from_array(image: object, beside: Beside, known: Limits) -> Raw:
    pixel_format = beside.pixel_format
    channels = _CHANNELS.get(pixel_format) if isinstance(pixel_format, str) else None
    if channels is None:
        near = arguments.nearest(pixel_format, _CHANNELS) if isinstance(pixel_format, str) else None
        msg = (
            f"image is an array, given with pixel_format={arguments.shown(pixel_format)}: give 'BGR8' (OpenCV's "
            "order), 'RGB8' (Pillow's order), 'GRAY8', 'BGRA8' or 'RGBA8', or use Raw; the wrong order silently "
            "leaves a model half blind" + (f"; did you mean {near!r}?" if near else "")
        )
        raise LocalError(msg)
    pixels = arrays.array(image, "image")
    shape = pixels.shape
    channels = channels or (shape[2] if len(shape) == 3 else 0)
    if channels == 1 and pixel_format != _MODELS_OWN and len(shape) == 3 and shape[2] == 1:
        shape = shape[:2]
    if (
        pixels.dtype != np.uint8
        or len(shape) != (2 if pixel_format == "GRAY8" else 3)
        or shape[2:] not in ((), (channels,))
    ):
        size = "" if pixel_format == "GRAY8" else f", {channels or 'channels'}"
        msg = (
            f"image is an array of dtype {pixels.dtype} and shape {pixels.shape}, given as {pixel_format}: send uint8, "
            f"0 to 255, not normalised, of shape (height, width{size}){_hint(pixels)}"
        )
        raise LocalError(msg)
    limits.check_size(shape[0], shape[1], pixels.size, known)  # before it is copied
    alpha = bool(beside.drop_alpha) and pixel_format in _WITH_ALPHA  # other formats have no alpha to drop
    return Raw(
        arrays.packed(pixels),
        pixel_format=cast("PixelFormat", pixel_format),
        height=shape[0],
        width=shape[1],
        drop_alpha=alpha,
    )


def _hint(pixels: NDArray[Any]) -> str:
    """Return a guess at the intention behind an invalid array."""
    kind, shape = pixels.dtype.kind, pixels.shape
    eight, last = pixels.dtype == np.uint8, shape[-1] if len(shape) == 3 else 0
    meant = {
        "; use Tensor for floats": kind == "f",
        "; for a mask, use array * np.uint8(255)": kind == "b",
        "; reduce it to 8 bits the way the model's training images were": kind in "iu" and not eight,
        "; send a file's bytes as array.tobytes()": len(shape) == 1,
        "; for a batch, send one image at a time": len(shape) == 4,
        "; one channel is 'GRAY8'": len(shape) == 2 or last == 1,
        "; four channels are 'BGRA8' or 'RGBA8', with drop_alpha=True": last == 4,
        "; this looks like (channels, height, width): use array.transpose(1, 2, 0)": last and shape[0] in (1, 3, 4),
    }
    return next((hint for hint, holds in meant.items() if holds), "")


def _raw(image: Raw, known: Limits) -> tuple[image_pb2.Image, Buffer]:
    pixel_format = arguments.one_of(image.pixel_format, "pixel_format", get_args(PixelFormat))
    matrix = arguments.optional(image.yuv_matrix, "yuv_matrix", get_args(YuvMatrix)) or "UNSPECIFIED"
    span = arguments.optional(image.yuv_range, "yuv_range", get_args(YuvRange)) or "UNSPECIFIED"
    height, width = (limits.edge(value, name) for name, value in (("height", image.height), ("width", image.width)))
    declared = image_pb2.RawImage(
        pixel_format=image_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{pixel_format}"),
        height=height,
        width=width,
        row_stride=None if image.row_stride is None else arguments.whole(image.row_stride, "row_stride", 1),
        yuv_matrix=image_pb2.YuvMatrix.Value(f"YUV_MATRIX_{matrix}"),
        yuv_range=image_pb2.YuvRange.Value(f"YUV_RANGE_{span}"),
        drop_alpha=arguments.flag(image.drop_alpha, "drop_alpha"),
    )
    data = arrays.octets(image.data, "data")
    if pixel_format != _MODELS_OWN:
        _check_length(declared, pixel_format, data.nbytes)
    if (matrix == "UNSPECIFIED") != (pixel_format in _CHANNELS) or (matrix == "UNSPECIFIED") != (span == "UNSPECIFIED"):
        msg = f"pixel_format is {pixel_format!r}: only NV12 and I420 have yuv_matrix and yuv_range, and require both"
        raise LocalError(msg, "YUV_UNDECLARED")
    if pixel_format in _WITH_ALPHA and not declared.drop_alpha:
        msg = f"pixel_format is {pixel_format!r}, but models cannot use alpha: give drop_alpha=True to ignore it"
        raise LocalError(msg, "ALPHA_NOT_DROPPED")
    return limits.fit(image_pb2.Image(raw=declared), data, known)


def _check_length(declared: image_pb2.RawImage, pixel_format: str, given: int) -> None:
    """Refuse data whose length contradicts its declaration; padding after the last row is optional."""
    height, width = declared.height, declared.width
    packed = width * _CHANNELS.get(pixel_format, 1)
    stride = declared.row_stride if declared.HasField("row_stride") else packed
    if stride < packed:
        msg = f"row_stride is {stride} bytes; a row of {width} pixels of {pixel_format} needs at least {packed}"
        raise LocalError(msg, "ROW_STRIDE_INVALID")
    rows = -(-height // 2)
    chroma = {"NV12": rows * (stride + stride % 2), "I420": 2 * rows * -(-stride // 2)}.get(pixel_format, 0)
    expected = stride * height + chroma
    if given not in (expected, expected if chroma else expected - stride + packed):
        msg = (
            f"data has {given} bytes; {width} x {height} pixels of {pixel_format}, {stride} bytes per row, need "
            f"{expected}: check width and height (are they swapped?), the format, and the dtype, which must be 8-bit"
        )
        raise LocalError(msg, "RAW_LENGTH_MISMATCH")


def _tensor(image: Tensor, known: Limits) -> tuple[image_pb2.Image, Buffer]:
    order = arguments.one_of(image.channel_order, "channel_order", get_args(ChannelOrder))
    layout = arguments.one_of(image.layout, "layout", get_args(TensorLayout))
    span = arguments.one_of(image.value_range, "value_range", get_args(ValueRange))
    values = _values(image.values, span)
    shape = values.shape
    channel_axis = 2 if layout == "HWC" else 0
    wanted = _TENSOR_CHANNELS.get(order)
    if len(shape) != 3 or (wanted and shape[channel_axis] != wanted):
        hint = "; for a batch, send one image at a time" if len(shape) == 4 else ""
        channels = f"{wanted or 'all'} channels"
        msg = f"values of dtype {values.dtype} and shape {shape} were given as {order} {layout}: send {channels}{hint}"
        raise LocalError(msg)
    height, width = (size for axis, size in enumerate(shape) if axis != channel_axis)
    declared = image_pb2.TensorImage(
        channel_order=image_pb2.ChannelOrder.Value(f"CHANNEL_ORDER_{order}"),
        layout=image_pb2.TensorLayout.Value(f"TENSOR_LAYOUT_{layout}"),
        value_range=image_pb2.ValueRange.Value(f"VALUE_RANGE_{span.replace('-', '_')}"),
        height=limits.edge(height, "height"),
        width=limits.edge(width, "width"),
    )
    with np.errstate(over="ignore"):  # values beyond 32 bits are out of any range, and refused for that
        return limits.fit(image_pb2.Image(tensor=declared), arrays.packed(values.astype("<f4", copy=False)), known)


def _values(given: object, span: str) -> NDArray[Any]:
    if not (arrays.is_array(given) or isinstance(given, list | tuple)):
        raise arguments.wrong("values", given, "an array of floats")
    values = arrays.array(given, "values")
    if values.dtype.kind == "f" or (values.dtype.kind in "iu" and span == "0-255"):
        return values
    msg = (
        f"values of dtype {values.dtype} were given as {span}: send floats, or integers as '0-255'; uint8 needs "
        "no Tensor: give the array with its pixel_format"
    )
    raise LocalError(msg)

"""Images of all shapes and kinds from 1 x 1 to the limits, right and wrong, each with what a server may say about it.

The same seed and number give the same image. Most are small, so that thousands cost little; some lie at the limits.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import image_pb2
from vedette_server.contract.contract import ImageLimits, ResizeRule
from vedette_server.contract.refusal import Reason
from vedette_server.contract.resize import output_shape

_COLOURS = {"BGR8": 3, "RGB8": 3, "GRAY8": 1, "BGRA8": 4, "RGBA8": 4}
_ORIENTATION = 0x0112
_LARGE = 300_000  # pixels, from which on an image is all one colour: it is the size that matters
# What each codec can hold, with what else it can be told, and the longest edge that costs no minutes.
_FILES: tuple[tuple[str, tuple[str, ...], dict[str, tuple[Any, ...]], int], ...] = (
    ("JPEG", ("L", "RGB", "CMYK"), {"progressive": (False, True), "quality": (30, 95)}, 16_384),
    ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), {"compress_level": (1,)}, 16_384),
    ("WEBP", ("RGB", "RGBA"), {"lossless": (False, True), "method": (0,)}, 4_000),
    ("BMP", ("1", "L", "P", "RGB"), {}, 16_384),
    ("GIF", ("L", "P"), {"interlace": (0, 1)}, 16_384),
    ("AVIF", ("L", "RGB", "RGBA"), {"speed": (10,)}, 600),
    (
        "TIFF",
        ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"),
        {"compression": ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate")},
        16_384,
    ),
)
_DEEP, _WITH_ALPHA = ("I;16", "F"), ("LA", "RGBA")
_ANIMATED = ("PNG", "WEBP", "GIF", "TIFF")  # libavif's encoder ends the process for some small animations
_BAD_VALUES = {
    "nan": (np.nan, Reason.VALUES_NOT_FINITE),
    "infinity": (-np.inf, Reason.VALUES_NOT_FINITE),
    "negative": (-3, Reason.VALUES_NORMALISED),
    "beyond": (400, Reason.VALUES_OUT_OF_RANGE),
}
_STRANGERS = ("JPEG2000", "PPM", "DDS", "PDF", "TGA", "EPS")


@dataclass(frozen=True)
class Target:
    """The model that images are for."""

    name: str
    channels: int
    resize: ResizeRule
    limits: ImageLimits = field(default_factory=ImageLimits)


@dataclass(frozen=True)
class Generated:
    """An image as a request carries it."""

    kind: str
    message: image_pb2.Image
    size: tuple[int, int]  # height and width, as declared or stored
    faults: frozenset[str]  # reasons for any of which it is to be refused; empty: it is to be answered


class _Draw:
    """Choices of one image's own."""

    def __init__(self, seed: int, number: int) -> None:
        self.rng = np.random.default_rng((seed, number))

    def one(self, *items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def edge(self, most: int) -> int:
        """From 1 to `most`, small ones as often as large ones."""
        return int(np.exp(self.rng.uniform(0, np.log(most + 1))))

    def size(self) -> tuple[int, int]:
        """A height and a width; nine in ten have few pixels."""
        kind = self.rng.random()
        if kind < 0.62:
            size = self.edge(64), self.edge(64)
        elif kind < 0.80:
            size = self.edge(48), self.edge(1_000)
        elif kind < 0.90:  # strips, those among them that resizing leaves half a pixel of
            short = self.edge(8)
            times = self.one(1_023, 1_024, 1_025, 479, 480, 481, int(self.rng.integers(1, 2_048)))
            size = short, max(1, min(short * times, 16_384))
        elif kind < 0.992:
            size = self.edge(900), self.edge(900)
        else:
            size = self.one((1, 16_384), (2_441, 16_384), (6_324, 6_324), (16_385, 1), (6_325, 6_325), (300, 16_384))
        return size[::-1] if self.chance(0.5) else size

    def pixels(self, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Noise, one colour, or a ramp."""
        shape = height, width, channels
        if height * width > _LARGE or self.chance(0.1):
            return np.broadcast_to(self.rng.integers(0, 256, channels, np.uint8), shape)
        if self.chance(0.2):
            ramp = np.arange(width)[None, :, None] * 255 // max(1, width - 1) + 40 * np.arange(channels)
            return np.broadcast_to(ramp % 256, shape).astype(np.uint8)
        return self.rng.integers(0, 256, shape, np.uint8)


def generate(seed: int, number: int, target: Target) -> Generated:
    """The image of that number."""
    draw = _Draw(seed, number)
    kinds: tuple[Callable[[_Draw, Target], Generated], ...] = (_raw, _raw, _tensor, _file, _file)
    return draw.one(*kinds)(draw, target)  # type: ignore[no-any-return]


def _of_size(size: tuple[int, int], target: Target) -> set[str]:
    """Reasons to refuse an image for its size."""
    height, width = size
    if min(size) < 1:
        return {Reason.SIZE_INVALID}
    limits = target.limits
    if height * width > limits.max_pixels or max(size) > limits.max_edge:
        return {Reason.IMAGE_TOO_LARGE}
    return set() if min(output_shape(size, target.resize)) else {Reason.IMAGE_TOO_NARROW}


def _generated(
    kind: str, message: image_pb2.Image, data: bytes, target: Target, faults: Iterable[str], size: Any
) -> Generated:
    """Put the data in and collect what is wrong with it."""
    getattr(message, message.WhichOneof("content") or "").data = data
    found = {*faults, *_of_size(size, target)}
    if not data:
        found.add(Reason.IMAGE_MISSING)
    if len(data) > target.limits.max_bytes:
        found.add(Reason.IMAGE_TOO_MANY_BYTES)
    return Generated(kind, message, size, frozenset(map(str, found)))


def _raw(draw: _Draw, target: Target) -> Generated:
    own = {1: "GRAY8", 3: "BGR8"}.get(target.channels, "8UCN")
    name = draw.one(own, own, own, *_COLOURS, "NV12", "I420", "8UCN")
    channels = target.channels if name == "8UCN" else _COLOURS.get(name, 0)
    height, width = draw.size()
    while height * width * max(channels, 1.5) > 32 * 2**20:  # which no message carries
        height, width = draw.size()
    faults: set[str] = set()
    taken = {1: (*_COLOURS, "NV12", "I420"), 3: ("BGR8", "RGB8", "BGRA8", "RGBA8", "NV12", "I420")}
    if name not in taken.get(target.channels, ("8UCN",)):
        faults.add(Reason.INPUT_NOT_ALLOWED)
    packed = width * (channels or 1)
    stride = packed + draw.one(0, 0, 0, 1, 3, int(draw.rng.integers(1, 70)))
    declared: dict[str, Any] = {"height": height, "width": width}
    if stride != packed or draw.chance(0.2):
        declared["row_stride"] = stride
    samples = draw.pixels(height, stride, 1)[:, :, 0]
    data = samples.tobytes()
    rows = -(-height // 2)
    if name == "NV12":
        data += draw.pixels(rows, stride + stride % 2, 1).tobytes()
    elif name == "I420":
        data += draw.pixels(2 * rows, -(-stride // 2), 1).tobytes()
    elif draw.chance(0.3):
        data = data[: len(data) - stride + packed]  # the last row needs no padding
    if not channels:
        declared |= {"yuv_matrix": draw.one(1, 2), "yuv_range": draw.one(1, 2)}
    if channels == 4 and name != "8UCN":
        declared["drop_alpha"] = True
    kind, data = _spoilt_raw(draw, name, declared, data, packed, faults)
    pixel_format = image_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{name}")
    message = image_pb2.Image(raw=image_pb2.RawImage(pixel_format=pixel_format, **declared))
    return _generated(kind, message, data, target, faults, (declared["height"], declared["width"]))


def _spoilt_raw(
    draw: _Draw, name: str, declared: dict[str, Any], data: bytes, packed: int, faults: set[str]
) -> tuple[str, bytes]:
    """One in five is wrong in one way; returns its kind and its data."""
    fault = draw.one("stride", "longer", "shorter", "empty", "size", "yuv", "alpha") if draw.chance(0.2) else ""
    match fault:
        case "stride":
            declared["row_stride"] = draw.one(packed - 1, 0, -packed)
            faults.add(Reason.ROW_STRIDE_INVALID)
        case "longer":
            data += bytes(declared.get("row_stride", packed) + 1)  # more than the padding that may be left out
            faults.add(Reason.RAW_LENGTH_MISMATCH)
        case "shorter":
            data = data[: -1 - declared.get("row_stride", packed) + packed]
            faults.add(Reason.RAW_LENGTH_MISMATCH)
        case "empty":
            data = b""
        case "size":
            declared[draw.one("height", "width")] = draw.one(0, -1, -(2**31))
        case "yuv":
            if name in ("NV12", "I420"):
                del declared["yuv_range"]
            else:
                declared["yuv_matrix"] = 1
            faults.add(Reason.YUV_UNDECLARED)
        case "alpha" if declared.pop("drop_alpha", False):
            faults.add(Reason.ALPHA_NOT_DROPPED)
        case _:
            fault = ""
    return f"raw {name}{', wrong ' + fault if fault else ''}", data


def _tensor(draw: _Draw, target: Target) -> Generated:
    channels = target.channels
    own = {1: ("GRAY",), 3: ("BGR", "RGB")}.get(channels, ("MODEL",))
    order, layout, span = draw.one(*own), draw.one("HWC", "CHW"), draw.one("0_255", "0_1")
    height, width = draw.size()
    while height * width * channels * 4 > 8 * 2**20:
        height, width = draw.size()
    values = draw.pixels(height, width, channels).astype("<f4")
    if span == "0_1":
        values /= 255
    if layout == "CHW":
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    declared = {"channel_order": f"CHANNEL_ORDER_{order}", "layout": f"TENSOR_LAYOUT_{layout}"}
    faults: set[str] = set()
    fault = draw.one("order", "undeclared", "longer", "unit", *_BAD_VALUES) if draw.chance(0.25) else ""
    match fault:
        case "order":
            declared["channel_order"] = f"CHANNEL_ORDER_{draw.one(*sorted({'BGR', 'GRAY', 'MODEL'} - {*own}))}"
            faults.add(Reason.CHANNELS_NOT_THE_MODELS)
        case "undeclared":
            del declared[draw.one(*declared)]
            faults.add(Reason.TENSOR_UNDECLARED)
        case "longer":
            faults.add(Reason.TENSOR_LENGTH_MISMATCH)
        case "unit":
            values, span = np.full_like(values, 0.5), "0_255"
            faults.add(Reason.VALUES_IN_UNIT_RANGE)
        case _ if fault:
            value, reason = _BAD_VALUES[fault]
            values.flat[0] = value
            faults.add(reason)
    data = values.tobytes() + bytes(draw.one(1, 4) if fault == "longer" else 0)
    spec: Any = {**declared, "value_range": f"VALUE_RANGE_{span}", "height": height, "width": width}
    kind = f"tensor {order}{', wrong ' + fault if fault else ''}"
    message = image_pb2.Image(tensor=image_pb2.TensorImage(**spec))
    return _generated(kind, message, data, target, faults, (height, width))


def _file(draw: _Draw, target: Target) -> Generated:
    codec, modes, options, longest = draw.one(*_FILES)
    mode = draw.one(*modes)
    height, width = draw.size()
    while max(height, width) > longest or (mode in ("F", "I;16", "P") and height * width > _LARGE):
        height, width = draw.size()
    faults: set[str] = set()
    if target.channels not in (1, 3):
        faults.add(Reason.INPUT_NOT_ALLOWED)
    picture = _picture(draw, mode, height, width)
    if mode in _WITH_ALPHA and picture.getchannel("A").getextrema() != (255, 255):
        faults.add(Reason.ALPHA_NOT_DROPPED)
    if mode in _DEEP:
        faults.add(Reason.IMAGE_TOO_DEEP)
    saving = {name: draw.one(*values) for name, values in options.items()}
    if codec == "TIFF" and mode == "F":
        saving = {}
    if draw.chance(0.2) and codec not in ("BMP", "GIF"):
        exif = Image.Exif()
        exif[_ORIENTATION] = draw.one(1, 2, 3, 4, 5, 6, 7, 8)
        saving["exif"] = exif
    fault = draw.one("animated", "cut", "stranger") if height * width < 10_000 and draw.chance(0.2) else ""
    data = _saved(draw, picture, codec, saving, fault, faults)
    spec = image_pb2.EncodedImage(orientation=draw.one(0, 1, 3), drop_alpha=draw.chance(0.5))
    if spec.drop_alpha:
        faults.discard(Reason.ALPHA_NOT_DROPPED)
    kind = f"file {codec} {mode}{', ' + fault if fault else ''}"
    return _generated(kind, image_pb2.Image(encoded=spec), data, target, faults, (height, width))


def _picture(draw: _Draw, mode: str, height: int, width: int) -> Image.Image:
    if mode in ("I;16", "F"):
        deep = draw.rng.integers(0, 2**16, (height, width))
        return Image.fromarray(deep.astype(np.uint16 if mode == "I;16" else np.float32))
    channels = {"L": 1, "LA": 2, "RGBA": 4}.get(mode, 3)
    pixels = draw.pixels(height, width, channels).copy()
    if channels in (2, 4) and draw.chance(0.5):
        pixels[:, :, -1] = 255
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return picture if picture.mode == mode else picture.convert(mode)


def _saved(
    draw: _Draw, picture: Image.Image, codec: str, options: dict[str, Any], fault: str, faults: set[str]
) -> bytes:
    """A picture as a file, spoilt where it is to be."""
    buffer = io.BytesIO()
    if fault == "animated" and codec in _ANIMATED and min(picture.size) > 1:
        further = [
            picture.transpose(method) for method in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180)
        ]
        picture.save(buffer, codec, save_all=True, append_images=further, **options)
        with Image.open(buffer) as back:
            if getattr(back, "is_animated", False):  # equal frames are written as one
                faults.add(Reason.IMAGE_ANIMATED)
        return buffer.getvalue()
    if fault == "stranger":
        picture.convert("RGB").save(buffer, draw.one(*_STRANGERS))
        faults.add(Reason.IMAGE_UNREADABLE)
        return buffer.getvalue()
    picture.save(buffer, codec, **options)
    data = buffer.getvalue()
    if fault == "cut":
        faults |= {Reason.IMAGE_TRUNCATED, Reason.IMAGE_UNREADABLE}  # a dozen bytes are of no codec
        return data[: int(len(data) * draw.rng.uniform(0.05, 0.6))]
    return data

"""Requests as bytes: valid ones, ones whose fields are drawn from the protos, and ones that no writer would write."""

import io
import random
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from PIL import Image
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2

from tests.support import damage

_INTS = (0, 1, 2, 3, 4, 16, 255, -1, -5, 120, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63))
_FLOATS = (0.0, 0.05, 0.5, 1.0, 1.5, -1.0, 1e-45, 3.4e38, float("nan"), float("inf"))
_TEXTS = (b"", b"roadsigns", b"1", b"stop", b"other", b"a\nb", b"\xff\xfe", b"x" * 200, "é\u202e".encode(), b"%s{0}")
_LARGE = 40_000  # bytes, from which on the server itself looks for the image
MESSAGES: dict[str, type[Message]] = {
    "Detect": pb.DetectRequest,
    "StreamDetect": pb.StreamDetectRequest,
    "Diagnose": pb.DiagnoseRequest,
    "GetModel": pb.GetModelRequest,
    "ListModels": pb.ListModelsRequest,
}


@cache
def files() -> tuple[bytes, ...]:
    """Small pictures of several formats, and what is none."""
    made = []
    for codec in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        buffer = io.BytesIO()
        Image.effect_noise((24, 16), 60).convert("RGB").save(buffer, codec)
        made.append(buffer.getvalue())
    return *made, b"", b"nothing", bytes(16 * 24 * 3), bytes(_LARGE), bytes(16 * 24 * 12)


def _images(large: bytes) -> list[image_pb2.Image]:
    """One of each kind that is taken, small, and as large as where the server reads otherwise."""
    encoded = [image_pb2.Image(encoded=image_pb2.EncodedImage(data=data)) for data in files()[:6]]
    raw = [
        image_pb2.RawImage(data=bytes(16 * 24 * 3), pixel_format=image_pb2.PIXEL_FORMAT_BGR8, height=16, width=24),
        image_pb2.RawImage(data=bytes(100 * 140 * 3), pixel_format=image_pb2.PIXEL_FORMAT_RGB8, height=100, width=140),
        image_pb2.RawImage(
            data=bytes(80 * 3 * 16), pixel_format=image_pb2.PIXEL_FORMAT_BGR8, height=16, width=24, row_stride=240
        ),
        image_pb2.RawImage(
            data=bytes(16 * 24 * 3 // 2),
            pixel_format=image_pb2.PIXEL_FORMAT_NV12,
            height=16,
            width=24,
            yuv_matrix=image_pb2.YUV_MATRIX_BT601,
            yuv_range=image_pb2.YUV_RANGE_FULL,
        ),
    ]
    tensor = image_pb2.TensorImage(
        data=bytes(16 * 24 * 12),
        channel_order=image_pb2.CHANNEL_ORDER_BGR,
        layout=image_pb2.TENSOR_LAYOUT_HWC,
        value_range=image_pb2.VALUE_RANGE_0_255,
        height=16,
        width=24,
    )
    return [
        *encoded,
        image_pb2.Image(encoded=image_pb2.EncodedImage(data=files()[0] + large)),
        *(image_pb2.Image(raw=one) for one in raw),
        image_pb2.Image(tensor=tensor),
    ]


@cache
def valid(method: str) -> tuple[bytes, ...]:
    """Requests of a method that are answered, or refused for nothing but what is served."""
    images, options = (
        _images(bytes(_LARGE)),
        [pb.DetectOptions(), pb.DetectOptions(threshold=0.5, class_names=["stop"])],
    )
    made: Sequence[pb.DetectRequest | pb.StreamDetectRequest | pb.DiagnoseRequest | pb.GetModelRequest]
    match method:
        case "Detect":
            made = [pb.DetectRequest(image=one, options=asked) for one in images for asked in options]
        case "StreamDetect":
            made = [pb.StreamDetectRequest(frame=pb.Frame(frame_id=7, image=one)) for one in images]
        case "Diagnose":
            made = [pb.DiagnoseRequest(image=one) for one in images]
        case "GetModel":
            made = [pb.GetModelRequest(model_name="roadsigns"), pb.GetModelRequest()]
        case _:
            made = []
    return *(one.SerializeToString() for one in made), b""


def configuration(rng: random.Random) -> bytes:
    """The first message of a stream, which it is seldom refused for."""
    config = pb.StreamConfig(drop_policy=rng.choice([1, 2]), stream_id=rng.choice(["", "gate"]))  # type: ignore[arg-type]  # its numbers
    if rng.random() < 0.3:
        config.max_in_flight = rng.choice([1, 4, 64])
    return pb.StreamDetectRequest(config=config).SerializeToString()


def varint(value: int) -> bytes:
    """A number as Protobuf writes it."""
    value %= 2**64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class Writer:
    """Writes fields that a message has, with values that are seldom right, and some that it does not have."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def fields(self, of: Any, most: int = 6, depth: int = 0) -> bytes:
        """Up to so many fields of a message, which its descriptor names."""
        return b"".join(self._field(of, depth) for _ in range(self._rng.randrange(most + 1)))

    def _field(self, of: Any, depth: int) -> bytes:
        rng = self._rng
        if not of.fields or rng.random() < 0.03:
            return self._stranger()
        field = rng.choice(of.fields)
        kind, value = self._value(field, depth)
        if rng.random() < 0.02:
            kind = rng.randrange(8)
        if kind == 2:
            length = len(value) if rng.random() < 0.98 else rng.choice([0, len(value) + 1, 2**31, 2**63, 2**64 - 1])
            value = varint(length) + value
        return varint(field.number << 3 | kind) + value

    def _stranger(self) -> bytes:
        """A field that no message has, or none at all."""
        rng = self._rng
        match rng.randrange(6):
            case 0:
                return varint(rng.choice([0, 15, 999, 19_000, 2**29 - 1, 2**29, 2**40]) << 3) + varint(
                    rng.choice(_INTS)
                )
            case 1:
                return varint(2_000 << 3 | 2) + varint(3) + b"abc"
            case 2:  # a group, closed or not
                return varint(2_000 << 3 | 3) + rng.choice([b"", varint(2_000 << 3 | 4)])
            case 3:  # messages within messages, of a field that all images have
                inner = b""
                for _ in range(rng.choice([3, 60, 150])):
                    inner = b"\x0a" + varint(len(inner)) + inner
                return inner
            case 4:
                return b"\x80" * rng.choice([1, 9, 10, 11])
            case _:
                return rng.randbytes(rng.randrange(1, 12))

    def _value(self, field: FieldDescriptor, depth: int) -> tuple[int, bytes]:
        """A value of a field's own wire type."""
        rng = self._rng
        match field.type:
            case FieldDescriptor.TYPE_MESSAGE:
                return 2, self.fields(field.message_type, 4, depth + 1) if depth < 6 else b""
            case FieldDescriptor.TYPE_STRING:
                return 2, rng.choice(_TEXTS)
            case FieldDescriptor.TYPE_BYTES:
                return 2, rng.choice(files())
            case FieldDescriptor.TYPE_FLOAT:
                return 5, struct.pack("<f", rng.choice(_FLOATS))
            case FieldDescriptor.TYPE_DOUBLE:
                return 1, struct.pack("<d", rng.choice(_FLOATS))
            case _:
                numbers = b"".join(varint(rng.choice(_INTS)) for _ in range(rng.randrange(9)))
                packed = field.has_presence is False and rng.random() < 0.1
                return (2, numbers) if packed else (0, varint(rng.choice(_INTS)))


def generated(rng: random.Random, method: str) -> bytes:
    """One request of a method."""
    descriptor, sound = MESSAGES[method].DESCRIPTOR, valid(method)
    writer, base = Writer(rng), rng.choice(sound)
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: base,
        lambda: base + writer.fields(descriptor),
        lambda: writer.fields(descriptor) + base,
        lambda: writer.fields(descriptor, 12),
        lambda: damage.damaged(rng, base) if base else b"\xff",
        lambda: damage.lying(rng, base) if len(base) > 8 else rng.randbytes(20),
        lambda: damage.spliced(rng, base, rng.choice(sound)),
        lambda: base + b"\xf8\x3f\x01" * rng.randrange(1, 12_000),
        lambda: base + writer.fields(descriptor, 40),
    )
    return rng.choice(ways)()

"""Serialisation of requests that appends the image's bytes once, instead of copying them into a message first.

In protobuf's encoding a message may consist of several pieces, which readers merge: here one without the data, and one
with the data only (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2

_LENGTH_DELIMITED = 2
_DATA = image_pb2.RawImage.DESCRIPTOR.fields_by_name["data"].number  # the same for all contents
_DETECT: tuple[int, ...] = (pb.DetectRequest.DESCRIPTOR.fields_by_name["image"].number,)
_FRAME: tuple[int, ...] = (
    pb.StreamDetectRequest.DESCRIPTOR.fields_by_name["frame"].number,
    pb.Frame.DESCRIPTOR.fields_by_name["image"].number,
)


@dataclass(frozen=True)
class Outgoing:
    """A request without its image's data, and the data."""

    message: pb.DetectRequest | pb.StreamDetectRequest
    data: bytes | memoryview = b""


def serialize(request: Outgoing) -> bytes:
    """Serialise a request for gRPC."""
    head = request.message.SerializeToString()
    if not (length := memoryview(request.data).nbytes):  # len() of a view counts its items
        return head
    if isinstance(request.message, pb.DetectRequest):
        path, image = _DETECT, request.message.image
    else:
        path, image = _FRAME, request.message.frame.image
    content = image.DESCRIPTOR.fields_by_name[image.WhichOneof("content") or "encoded"].number
    return b"".join((head, *_headers((*path, content, _DATA), length), request.data))


def _headers(path: Sequence[int], length: int) -> list[bytes]:
    """Return the tags and lengths of nested fields, outermost first, around `length` bytes."""
    headers: list[bytes] = []
    for number in reversed(path):
        headers.insert(0, _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length))
        length += len(headers[0])
    return headers


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

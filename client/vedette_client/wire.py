"""Write a request with its image's bytes appended once, instead of being copied into a protobuf message first.

In protobuf's encoding a message may come in several pieces, which a reader merges: here one with everything but the
data, and one with the data alone (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2

_LENGTH_DELIMITED = 2
_DATA = image_pb2.RawImage.DESCRIPTOR.fields_by_name["data"].number  # the same in every content
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
    """The request as gRPC sends it."""
    head = request.message.SerializeToString()
    if not (length := memoryview(request.data).nbytes):  # a view's own length counts its items
        return head
    if isinstance(request.message, pb.DetectRequest):
        path, image = _DETECT, request.message.image
    else:
        path, image = _FRAME, request.message.frame.image
    content = image.DESCRIPTOR.fields_by_name[image.WhichOneof("content") or "encoded"].number
    return b"".join((head, *_headers((*path, content, _DATA), length), request.data))


def _headers(path: Sequence[int], length: int) -> list[bytes]:
    """The tags and lengths of nested fields, outermost first, around `length` bytes."""
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

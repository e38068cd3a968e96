"""Deserialisation of requests without copying the image, and with refusals of our own for unreadable ones.

A protobuf library copies a bytes field twice before a caller sees it. For a raw frame of 6 MB that dominates a
request's cost apart from inference. This module finds the field in the received message (protobuf's encoding:
https://protobuf.dev/programming-guides/encoding) and removes it before the library parses the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2

from vedette_server.contract.image import Buffer
from vedette_server.contract.refusal import Reason, Refused

_SMALL = 32 * 1024  # bytes, below which copies cost nothing
MOST_BESIDE_IMAGE = 256 * 1024  # bytes of a request; enough for the names of many thousand classes
_MOST_FIELDS = 10_000  # per message; each costs a microsecond that blocks everyone else


@dataclass(frozen=True)
class _Step:
    """One step from a message towards its image data: any of the fields `onward`. Only the last of `oneof` counts."""

    onward: tuple[int, ...]
    oneof: tuple[int, ...] = ()


def _step(message: type[Message], field: str) -> _Step:
    """Return the step through a field, or through any field of a oneof."""
    descriptor = message.DESCRIPTOR
    if field in descriptor.oneofs_by_name:
        members = tuple(one.number for one in descriptor.oneofs_by_name[field].fields)
        return _Step(members, members)
    found = descriptor.fields_by_name[field]
    of = found.containing_oneof
    return _Step((found.number,), tuple(one.number for one in of.fields) if of else ())


_WITHIN = (_step(image_pb2.Image, "content"), _step(image_pb2.RawImage, "data"))
_DETECT = (_step(pb.DetectRequest, "image"), *_WITHIN)
_FRAME = (_step(pb.StreamDetectRequest, "frame"), _step(pb.Frame, "image"), *_WITHIN)

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass
class Sent(Generic[T]):
    """A request as received. If a deserialiser raised, gRPC would answer with Python's text."""

    _value: T | Refused | None

    def read(self) -> T:
        """Return the request. Raises `Refused`: REQUEST_UNREADABLE, REQUEST_TOO_LARGE."""
        if isinstance(self._value, Refused):
            raise self._value
        assert self._value is not None  # noqa: S101  taken only once
        return self._value

    def take(self) -> T:
        """Return the request and drop it here: code that forwards a stream holds each message until the next."""
        value, self._value = self.read(), None
        return value


def sent(read: Callable[[bytes], T]) -> Callable[[bytes], Sent[T]]:
    """Wrap `read` in a deserialiser that never raises."""

    def deserialise(received: bytes) -> Sent[T]:
        try:
            return Sent(read(received))
        except Refused as refusal:
            return Sent(refusal)
        except Exception:  # noqa: BLE001  protobuf may raise anything
            return Sent(Refused(Reason.REQUEST_UNREADABLE, bytes=len(received)))

    return deserialise


@dataclass(frozen=True)
class Received(Generic[M]):
    """A request, and its image data if that was removed from it."""

    message: M
    data: Buffer | None


def detect_request(received: bytes) -> Received[pb.DetectRequest]:
    """Read a DetectRequest. Raises `DecodeError`, and `Refused`: REQUEST_TOO_LARGE."""
    return _read(received, pb.DetectRequest, _DETECT)


def stream_request(received: bytes) -> Received[pb.StreamDetectRequest]:
    """Read a StreamDetectRequest. Raises `DecodeError`, and `Refused`: REQUEST_TOO_LARGE."""
    return _read(received, pb.StreamDetectRequest, _FRAME)


def _read(received: bytes, kind: type[M], path: Sequence[_Step]) -> Received[M]:
    if len(received) < _SMALL:
        return Received(kind.FromString(received), None)
    splitter = _Splitter(path)
    rest = splitter.split(memoryview(received))
    return Received(kind.FromString(rest), splitter.data)


class _Splitter:
    """Splits the field at the end of a path from a message: its last occurrence, as in protobuf."""

    def __init__(self, path: Sequence[_Step]) -> None:
        self._path = path
        self._last: dict[int, int] = {}  # by depth, the last field seen of its oneof
        self.data: memoryview | None = None  # that field's bytes

    def split(self, message: memoryview, depth: int = 0) -> bytes:
        """Return a message without that field."""
        parts: list[bytes | memoryview] = []
        for number, whole, content in _limited(message, self._path[depth].onward):
            if content is not None:
                self._note(number, depth)
            if content is None or number not in self._path[depth].onward:
                parts.append(whole)
            elif depth == len(self._path) - 1:
                self.data = content
            else:
                inner = self.split(content, depth + 1)
                parts += (_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(inner)), inner)
        return b"".join(parts)

    def _note(self, number: int, depth: int) -> None:
        """Forget the data of a oneof's field when another of its fields follows."""
        if number in self._path[depth].oneof and self._last.get(depth) != number:
            self._last[depth] = number
            self.data = None


@dataclass(frozen=True)
class Gathered(Generic[M]):
    """A request, and the contents of its repeated field of bytes, one of which holds the image."""

    message: M
    contents: Sequence[Buffer]


def gathering(kind: type[M], field: str) -> Callable[[bytes], Gathered[M]]:
    """Return a function that reads a message whose bytes are in a repeated field of its own.

    It raises `DecodeError`, and `Refused`: REQUEST_TOO_LARGE.
    """
    onward = (kind.DESCRIPTOR.fields_by_name[field].number,)

    def read(received: bytes) -> Gathered[M]:
        if len(received) < _SMALL:
            message = kind.FromString(received)
            return Gathered(message, getattr(message, field))
        parts: list[memoryview] = []
        contents: list[memoryview] = []
        for number, whole, content in _limited(memoryview(received), onward):
            if content is None or number not in onward:
                parts.append(whole)
            else:
                contents.append(content)
        return Gathered(kind.FromString(b"".join(parts)), contents)

    return read


def without_image(kind: type[M]) -> Callable[[bytes], M]:
    """Return a function that reads a message without an image, and raises `Refused` (REQUEST_TOO_LARGE) as others."""

    def read(received: bytes) -> M:
        if len(received) > MOST_BESIDE_IMAGE:
            raise too_large(len(received))
        return kind.FromString(received)

    return read


def too_large(size: int) -> Refused:
    """Return the refusal of a request that has too much beside its image, or too many fields."""
    return Refused(Reason.REQUEST_TOO_LARGE, bytes=size, most=MOST_BESIDE_IMAGE, fields=_MOST_FIELDS)


def _limited(message: memoryview, onward: Sequence[int]) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Yield each field as `_fields` does, within the limits for all but those that lead `onward` to the image.

    Raises `DecodeError`, and `Refused`: REQUEST_TOO_LARGE.
    """
    beside = 0
    for count, (number, whole, content) in enumerate(_fields(message), 1):
        beside += len(whole) if content is None or number not in onward else 0
        if count > _MOST_FIELDS or beside > MOST_BESIDE_IMAGE:
            raise too_large(len(message))
        yield number, whole, content


_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}  # bytes of a field with these wire types


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Yield each field: its number, all its bytes, and its content if length-delimited. Raises `DecodeError`."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        content = None
        match tag & 7:
            case 0:
                _, at = _read_varint(message, at)
            case 2:
                length, at = _read_varint(message, at)
                content = message[at : at + length]
                at += length
            case kind if kind in _FIXED:
                at += _FIXED[kind]
            case _:
                raise DecodeError
        if at > len(message):
            raise DecodeError
        yield tag >> 3, message[start:at], content


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    raise DecodeError


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

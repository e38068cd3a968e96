"""Check an AVIF's boxes before Pillow opens it: bit depth and frame sizes.

Pillow silently reduces 10 and 12 bits. The decoder allocates whatever the AV1 stream asks for, whatever size the file's
header declares.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vedette_server.contract.image import Buffer
from vedette_server.contract.refusal import Reason, Refused

_HIGH_BITS = 0x40  # in the third byte of av1C
_SEQUENCE_HEADER = 1  # OBU type
_ROOM = 2**20  # pixels by which a frame may exceed the picture: encoders pad


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int  # of the content
    end: int


def is_avif(data: Buffer) -> bool:
    """Return whether any of the brands at the start of `data` is AVIF."""
    length, kind = int.from_bytes(bytes(data[:4]), "big"), bytes(data[4:8])
    brands = bytes(data[8 : min(length, 256)])
    return kind == b"ftyp" and any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4))


def check(data: Buffer, pixels: int) -> None:
    """Refuse deep samples, multiple frames, and frames larger than a picture of `pixels` pixels.

    Raises `Refused`: IMAGE_TRUNCATED, IMAGE_TOO_DEEP, IMAGE_ANIMATED, IMAGE_UNREADABLE.
    """
    view = memoryview(data)
    try:
        top = list(_boxes(view, 0, len(view)))
        if any(box.kind == b"moov" for box in top):
            raise Refused(Reason.IMAGE_ANIMATED, frames="several")
        meta = next(box for box in top if box.kind == b"meta")
        inside = {box.kind: box for box in _boxes(view, meta.start + 4, meta.end)}
        _check_depth(view, inside[b"iprp"])
        for item in _items(view, inside):
            for width, height in _frames(item):
                if width * height > pixels + _ROOM:
                    seen = f"it is an AVIF whose frames are {width} x {height} pixels, and its picture has {pixels}"
                    raise Refused(Reason.IMAGE_UNREADABLE, seen=seen, remedy="save it again, or as PNG or JPEG")
    except (struct.error, StopIteration, KeyError, IndexError) as error:
        raise Refused(Reason.IMAGE_TRUNCATED, bytes=len(data), codec="AVIF") from error


def _boxes(view: memoryview, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", view, start)
        content = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", view, content)
            content += 8
        stop = end if length == 0 else start + length
        if stop < content:
            msg = "a box ends before it begins"
            raise struct.error(msg)
        yield _Box(kind, content, min(stop, end))
        start = stop


def _check_depth(view: memoryview, properties: _Box) -> None:
    for container in _boxes(view, properties.start, properties.end):
        for box in _boxes(view, container.start, container.end) if container.kind == b"ipco" else ():
            if box.kind == b"av1C" and view[box.start + 2] & _HIGH_BITS:
                raise Refused(Reason.IMAGE_TOO_DEEP, codec="AVIF")


def _items(view: memoryview, inside: dict[bytes, _Box]) -> Iterator[bytes]:
    """Yield the AV1 streams of a file."""
    coded = set(_coded(view, inside[b"iinf"]))
    box = inside[b"iloc"]
    version, sizes, more = view[box.start], view[box.start + 4], view[box.start + 5]
    offset_size, length_size, base_size, index_size = sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0
    id_size = 4 if version == 2 else 2
    at = box.start + 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > box.end:
            msg = "an item's place lies beyond its box"
            raise struct.error(msg)
        return int.from_bytes(view[at - size : at], "big")

    for _ in range(number(id_size)):
        item, method = number(id_size), number(2) & 15 if version else 0
        number(2)  # data reference index: this file
        base = number(base_size) + (inside[b"idat"].start if method == 1 else 0)
        parts = []
        for _ in range(number(2)):
            number(index_size)
            start, length = base + number(offset_size), number(length_size)
            if item in coded:
                if start + length > len(view):
                    msg = "an item lies beyond the end of the file"
                    raise struct.error(msg)
                parts.append(bytes(view[start : start + length] if length else view[start:]))
        yield b"".join(parts)


def _coded(view: memoryview, items: _Box) -> Iterator[int]:
    """Yield the ids of the items that are AV1 streams."""
    version = view[items.start]
    for box in _boxes(view, items.start + (6 if version == 0 else 8), items.end):
        layout = ">HH4s" if view[box.start] == 2 else ">IH4s"
        item, _protection, kind = struct.unpack_from(layout, view, box.start + 4)
        if kind == b"av01":
            yield item


def _frames(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yield the maximum width and height in each sequence header of an AV1 stream."""
    at = 0
    while at < len(stream):
        header = stream[at]
        at += 2 if header & 4 else 1
        length = len(stream) - at
        if header & 2:
            length = shift = 0
            while True:
                byte = stream[at]
                at += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            yield _size(_Bits(stream[at : at + length]))
        at += length


class _Bits:
    """Reader of a header's bits, most significant first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data[:256], 0

    def __call__(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - self._at & 7) & 1
            self._at += 1
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    """Return width and height from a sequence header (AV1 specification, 5.5.1)."""
    bits(4)  # profile, still picture
    if bits(1):  # reduced still picture header
        bits(5)
    else:
        _skip_timing(bits)
    across, down = bits(4) + 1, bits(4) + 1
    return bits(across) + 1, bits(down) + 1


def _skip_timing(bits: _Bits) -> None:
    model, delay = False, 0
    if bits(1):
        bits(64)
        if bits(1):
            zeros = 0
            while zeros < 32 and not bits(1):
                zeros += 1
            bits(zeros % 32)
        model = bool(bits(1))
        if model:
            delay = bits(5) + 1
            bits(42)
    display = bits(1)
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:
            bits(1)
        if model and bits(1):
            bits(2 * delay + 1)
        if display and bits(1):
            bits(4)

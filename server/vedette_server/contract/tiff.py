"""Check of a TIFF's tags before Pillow opens it, refusing files that Pillow would decode wrongly or unsafely.

Pillow reduces 16 bits, reads signed samples as unsigned, leaves missing strips black, and allocates whatever a tile's
tags ask for. So a file is accepted only if all of its tags have values known to be decoded correctly.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vedette_server.contract.image import Buffer
from vedette_server.contract.refusal import Reason, Refused

_REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page, such as a map's overview
_MOST_PAGES = 10_000  # maximum counted
_MOST_VALUES = 1_000_000  # per tag: more than the rows of the largest picture
_MOST_TILE = 2**24  # pixels
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # struct codes of the value types read here
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _COLOUR_MAP = 273, 274, 277, 278, 279, 284, 320
_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _EXTRA, _FORMAT, _DNG = 322, 323, 324, 325, 338, 339, 50706
_READ = (
    _SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS,
    _STRIP_BYTES, _PLANAR, _COLOUR_MAP, _TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _EXTRA, _FORMAT, _DNG,
)  # fmt: skip

_PLAIN, _JPEG = 1, 7
# LZW, Deflate under both of its numbers, PackBits.
_COMPRESSIONS = (_PLAIN, 5, _JPEG, 8, 32946, 32773)
_OTHER_COMPRESSIONS = {
    2: "CCITT (fax)", 3: "CCITT (fax)", 4: "CCITT (fax)", 6: "old-style JPEG", 34712: "JPEG 2000", 34925: "LZMA",
    50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}  # channels of each
_OTHER_COLOURS = {4: "a transparency mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "a camera's RAW"}


@dataclass(frozen=True)
class _TiffPage:
    tags: Mapping[int, Sequence[int]]  # those read here
    following: int  # offset of the next page; 0: none

    def one(self, tag: int, default: int) -> int:
        return self.tags[tag][0] if self.tags.get(tag) else default


class _TiffFile:
    """The structure of a file. Reads beyond its end raise `struct.error`."""

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._order = ">" if bytes(self._data[:2]) == b"MM" else "<"
        (version,) = self._unpack("H", 2)
        self._big = version == 43
        self._entry, self._count = ("HHQ", "Q") if self._big else ("HHI", "H")
        self._word = "Q" if self._big else "I"
        (self.first,) = self._unpack(self._word, 8 if self._big else 4)

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack_from(self._order + layout, self._data, offset)
        return values

    def page(self, offset: int, wanted: Sequence[int] = _READ) -> _TiffPage:
        (count,) = self._unpack(self._count, offset)
        at = offset + struct.calcsize(self._order + self._count)
        size = struct.calcsize(self._order + self._entry + self._word)
        (following,) = self._unpack(self._word, at + count * size)
        tags: dict[int, Sequence[int]] = {}
        for entry in range(at, at + count * size, size):
            tag, kind, number = self._unpack(self._entry, entry)
            if tag not in wanted:
                continue
            if tag in tags or kind not in _TYPES:  # Pillow may take the other duplicate, or read other types
                msg = f"that has its tag {tag} twice, or not as integers"
                raise _unreadable(msg)
            tags[tag] = self._values(entry, kind, number)
        return _TiffPage(tags, following)

    def _values(self, entry: int, kind: int, number: int) -> Sequence[int]:
        if number > _MOST_VALUES:
            msg = f"{number} values of a tag"
            raise struct.error(msg)
        at = entry + struct.calcsize(self._order + self._entry)
        if number * _BYTES[kind] > struct.calcsize(self._word):
            (at,) = self._unpack(self._word, at)
        return self._unpack(f"{number}{_TYPES[kind]}", at)

    def pages(self, first: _TiffPage) -> Iterator[_TiffPage]:
        """Yield the pages that are not smaller copies of others, up to the maximum counted."""
        page = first
        for _ in range(_MOST_PAGES):
            if page is first or not page.one(_SUBFILE, 0) & _REDUCED:
                yield page
            if not page.following:
                return
            page = self.page(page.following, (_SUBFILE,))


def size(data: Buffer) -> tuple[int, int]:
    """Return the stored height and width of a file that can be decoded.

    Raises `Refused`: IMAGE_UNREADABLE, IMAGE_TRUNCATED, IMAGE_TOO_DEEP, IMAGE_ANIMATED.
    """
    try:
        file = _TiffFile(data)
        page = file.page(file.first)
        _check_samples(page)
        pages = sum(1 for _ in file.pages(page))
    except (struct.error, OverflowError) as error:
        raise Refused(Reason.IMAGE_TRUNCATED, bytes=len(data), codec="TIFF") from error
    if pages > 1:
        raise Refused(Reason.IMAGE_ANIMATED, frames=pages if pages < _MOST_PAGES else f"{pages} or more")
    _check_layout(page, len(data))
    return page.one(_LENGTH, 0), page.one(_WIDTH, 0)


def orientation(data: Buffer) -> int:
    """Return the EXIF orientation of a file that `size` has passed. Pillow turns a TIFF without recording it."""
    file = _TiffFile(data)
    return file.page(file.first, (_ORIENTATION,)).one(_ORIENTATION, 1)


def _unreadable(seen: str, remedy: str = "save it as a plain RGB TIFF of 8 bits, or as PNG") -> Refused:
    return Refused(Reason.IMAGE_UNREADABLE, seen=f"it is a TIFF {seen}", remedy=remedy)


def _check_samples(page: _TiffPage) -> None:
    """Refuse samples other than 8-bit grey levels or colours that Pillow converts correctly."""
    photometric, compression = page.one(_PHOTOMETRIC, _WHITE_IS_ZERO), page.one(_COMPRESSION, _PLAIN)
    bits, samples = page.tags.get(_BITS) or (1,), page.one(_SAMPLES, 1)
    if _DNG in page.tags or photometric == 32803:
        raise _unreadable("of a camera's RAW samples (DNG)", "develop it to PNG, TIFF of 8 bits or JPEG")
    if max(bits) > 8 or 3 in page.tags.get(_FORMAT, ()):
        raise Refused(Reason.IMAGE_TOO_DEEP, codec="TIFF")
    if set(page.tags.get(_FORMAT, (1,))) != {1}:
        raise _unreadable("whose samples are not unsigned integers")
    if photometric not in _COLOURS:
        msg = f"whose samples are {_OTHER_COLOURS.get(photometric, 'of no known meaning')}"
        raise _unreadable(msg)
    if compression not in _COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, f"number {compression}")
        msg = f"compressed by {name}"
        raise _unreadable(msg, "save it with LZW, Deflate or no compression, or as PNG")
    if page.one(_FILL_ORDER, 1) != 1:
        raise _unreadable("with its bits in reverse order")
    if photometric == _YCBCR and compression != _JPEG:
        raise _unreadable("of YCbCr without JPEG's compression")
    if photometric == _PALETTE and max(page.tags.get(_COLOUR_MAP) or (0,)) < 256:
        raise _unreadable("whose colour map does not use its 16 bits")
    extra = page.tags.get(_EXTRA, ())
    alike = len(set(bits)) == 1 and len(bits) in (1, samples)
    plain = bits[0] == 8 or (samples == 1 and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE))
    if samples != _COLOURS[photometric] + len(extra) or len(extra) > 1 or not alike or not plain:
        msg = f"of {samples} samples a pixel, of {bits[0]} bits each"
        raise _unreadable(msg)


def _check_layout(page: _TiffPage, length: int) -> None:
    """Refuse strips or tiles that are missing, out of proportion, or beyond the end of the file."""
    width, height, samples = page.one(_WIDTH, 0), page.one(_LENGTH, 0), page.one(_SAMPLES, 1)
    planes = samples if page.one(_PLANAR, 1) == 2 else 1
    if width <= 0 or height <= 0:
        return  # refused by the caller of `size`
    tiled = _TILES in page.tags
    if tiled:
        across, down = page.one(_TILE_WIDTH, 0), page.one(_TILE_LENGTH, 0)
        if not across or not down or across * down > _MOST_TILE:
            msg = f"of tiles of {across} x {down} pixels"
            raise _unreadable(msg)
        expected = -(-width // across) * -(-height // down) * planes
    else:
        across, down = width, min(page.one(_ROWS, height) or height, height)
        expected = -(-height // down) * planes
    offsets = page.tags.get(_TILES if tiled else _STRIPS, ())
    lengths = page.tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    if len(offsets) != expected or len(lengths) != expected:
        msg = f"of {len(offsets)} parts, but the picture needs {expected}"
        raise _unreadable(msg)
    bits = (page.tags.get(_BITS) or (1,))[0] * (samples if planes == 1 else 1)
    row, plain = -(-across * bits // 8), page.one(_COMPRESSION, _PLAIN) == _PLAIN
    for number, (offset, part) in enumerate(zip(offsets, lengths, strict=True)):
        last = not tiled and (number + 1) % (expected // planes) == 0
        rows = (height - 1) % down + 1 if last else down
        if offset + part > length or (plain and part < row * rows):
            raise Refused(Reason.IMAGE_TRUNCATED, bytes=length, codec="TIFF")

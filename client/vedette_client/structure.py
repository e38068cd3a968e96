"""Properties of a file's structure that PyAV does not expose: its intended length, and the cropping of frames.

An aborted recording or download often ends between two frames, where no demuxer notices. MP4, Matroska, AVI and ASF
declare their length; a GIF and an animated PNG have an end marker; other containers declare nothing.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

_ATOMS: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TRACKS, _TRACK, _VIDEO = b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
_CUTS = (b"\x54\xcc", b"\x54\xbb", b"\x54\xdd", b"\x54\xaa")  # left, top, right, bottom
_MP4_FIRST_ENTRY: Final = 16  # offset of the first sample description in its list
_MP4_ENTRY_HEAD: Final = 86  # offset of the boxes inside it

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_HEADER: Final = 65_536  # bytes that contain the properties

_LARGEST_INDEX: Final = 1 << 28  # bytes of an MP4's index that are searched


@dataclass(frozen=True)
class Crop:
    """Hidden pixels at the edges."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def missing_bytes(path: Path) -> int:
    """Return the number of bytes missing at a file's end; 0 if none, or if it declares no length. Raises OSError."""
    present = path.stat().st_size
    with path.open("rb") as file:
        return max(_promised(file, file.read(16), present) - present, 0)


def has_index(path: Path) -> bool:
    """Return whether an MP4 has its index, without which it is unreadable; True for other files. Raises OSError."""
    present = path.stat().st_size
    with path.open("rb") as file:
        return not _is_mp4(file.read(16)) or any(name == b"moov" for name, _ in _atoms(file, present))


def crops(path: Path) -> list[Crop]:
    """Return the container's cropping of each of its videos, in order. Raises OSError."""
    present = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if head[:4] == _EBML:
            return _matroska_crops(file)
        if not _is_mp4(head):
            return []
        start = 0
        for name, end in _atoms(file, present):
            if name == b"moov":
                file.seek(start)
                return _mp4_crops(file.read(min(end - start, _LARGEST_INDEX)))
            start = end
    return []


def _mp4_crops(moov: bytes) -> list[Crop]:
    medias = [media for track in _inside(moov, b"trak") for media in _inside(track, b"mdia")]
    videos = [media for media in medias if any(handler[16:20] == b"vide" for handler in _inside(media, b"hdlr"))]
    return [_clean_aperture(media) for media in videos]


def _clean_aperture(media: bytes) -> Crop:
    """Return the cropping from the clean aperture, given by its size and the offset of its centre."""
    for name in (b"minf", b"stbl", b"stsd"):
        media = next(_inside(media, name), b"")
    entry = media[_MP4_FIRST_ENTRY:]
    if len(entry) < _MP4_ENTRY_HEAD:
        return Crop()
    width, height = struct.unpack_from(">HH", entry, 32)
    for clap in _inside(entry, b"clap", _MP4_ENTRY_HEAD):
        if len(clap) >= 40:
            numbers = struct.unpack_from(">IIIIiIiI", clap, 8)
            if all(numbers[1::2]):
                wide, high, right, down = (Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True))
                (left, after), (top, below) = _margins(width, wide, right), _margins(height, high, down)
                return Crop(left, top, after, below)
    return Crop()


def _margins(size: int, shown: Fraction, offset: Fraction) -> tuple[int, int]:
    """Return the hidden pixels before and after the visible part of a line; (0, 0) if that is inconsistent."""
    middle = Fraction(size - 1, 2) + offset
    first, last = int(middle - (shown - 1) / 2), int(middle + (shown - 1) / 2)
    return (first, size - 1 - last) if 0 <= first <= last < size and shown <= size else (0, 0)


def _inside(box: bytes, wanted: bytes, start: int = 8) -> Iterator[bytes]:
    """Yield the direct children of a box with a given name, headers included."""
    while start + 8 <= len(box):
        size, name = struct.unpack_from(">I4s", box, start)
        if size < 8:
            return
        if name == wanted:
            yield box[start : start + size]
        start += size


def _matroska_crops(file: BinaryIO) -> list[Crop]:
    file.seek(4)
    file.seek(_size(file), 1)
    if file.read(4) != _SEGMENT:
        return []
    _size(file)
    for _, tracks in _elements(file, _TRACKS):
        entries = [entry for _, entry in _elements(tracks, _TRACK)]
        return [_cut(video) for entry in entries for _, video in _elements(entry, _VIDEO)]
    return []


def _cut(video: BinaryIO) -> Crop:
    cuts = {name: int.from_bytes(value.read()) for name, value in _elements(video, *_CUTS)}
    return Crop(*(cuts.get(name, 0) for name in _CUTS))


def _elements(file: BinaryIO, *wanted: bytes) -> Iterator[tuple[bytes, BinaryIO]]:
    """Yield the next elements with the given names, each with its content."""
    while first := file.read(1):
        name = first + file.read(8 - first[0].bit_length())
        length = _size(file)
        if length < 0:
            return
        if name in wanted:
            yield name, io.BytesIO(file.read(length))
        else:
            file.seek(length, 1)


def _is_mp4(head: bytes) -> bool:
    return head[4:8] in _ATOMS


def _promised(file: BinaryIO, head: bytes, present: int) -> int:
    if _is_mp4(head):
        return max((end for _, end in _atoms(file, present)), default=0)
    if head[:4] == _EBML:
        return _matroska(file)
    if head[:4] == b"RIFF":
        return _riff(file, present)
    if head == _ASF:
        return _asf(file)
    file.seek(max(present - 12, 0))
    tail = file.read()
    if (head[:4] == b"GIF8" and not tail.endswith(b";")) or (head[:4] == b"\x89PNG" and b"IEND" not in tail):
        return present + 1  # at least
    return 0


def _atoms(file: BinaryIO, present: int) -> list[tuple[bytes, int]]:
    """Return the top-level boxes of an MP4, each with its end."""
    found, start = [], 0
    while start < present:
        file.seek(start)
        head = file.read(16).ljust(16, b"\0")
        size, name, large = struct.unpack(">I4sQ", head)
        length = {0: present - start, 1: large}.get(size, size)  # 0: up to the end of the file
        start += max(length, 8)
        found.append((name, start))
    return found


def _matroska(file: BinaryIO) -> int:
    """Return the end of the first segment; 0 if it was written with unknown length."""
    file.seek(4)
    file.seek(_size(file), 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _size(file)
    return file.tell() + length if length >= 0 else 0


def _size(file: BinaryIO) -> int:
    """Read an EBML number, whose first bits give its length of 1 to 8 bytes; -1 for unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return -1
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more))
    return -1 if value == (1 << 7 * (more + 1)) - 1 else value


def _riff(file: BinaryIO, present: int) -> int:
    """Return the end of the last chunk, because a long AVI has several; 0 if its writer never set the length."""
    start = 0
    while start < present:
        file.seek(start)
        name, length = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        if name != b"RIFF" or not length:
            return 0 if start == 0 else start
        start += 8 + length
    return start


def _asf(file: BinaryIO) -> int:
    file.seek(0)
    header = file.read(_ASF_HEADER)
    at = header.find(_ASF_PROPERTIES)
    fields = header[at + 40 : at + 48] if at >= 0 else b""
    return struct.unpack("<Q", fields)[0] if len(fields) == 8 else 0

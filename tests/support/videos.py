"""Videos of every kind, made by an ffmpeg from outside when tests run.

tests/integration/test_video_table.py holds each row to what that ffmpeg shows; videos_page.py tells of them.
"""

import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

LEVELS = 2  # by which a pixel may differ from ffmpeg's, of 255
SECONDS = 0.001  # by which a frame's time may

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

Make: TypeAlias = Callable[[Path], None]


@dataclass(frozen=True)
class Row:
    """One video."""

    name: str  # of its file
    about: str
    make: Make
    told: str = ""  # a pattern of what is said in the end, or instead; nothing for a video that is whole
    refused: bool = False  # before the first frame


def ffmpeg(*arguments: object) -> bytes:
    command = [FFMPEG, "-hide_banner", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")
    return ran.stdout


def frames(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """A video's frames as ffmpeg itself shows them, BGR, each with its time in seconds."""
    command = [FFMPEG, "-hide_banner", "-nostdin", "-nostats", "-threads", "1", "-i", str(path)]
    command += ["-an", "-sn", "-dn", "-fps_mode", "passthrough", "-noautoscale", "-vf", "showinfo=checksum=0"]
    ran = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "bgr24", "-"], capture_output=True, check=False)
    shown = re.finditer(rb"pts_time:(\S+).*? s:(\d+)x(\d+)", ran.stderr)
    found, start = [], 0
    for time, width, height in (one.groups() for one in shown):
        size = int(width) * int(height) * 3
        pixels = np.frombuffer(ran.stdout, np.uint8, size, start).reshape(int(height), int(width), 3)
        found.append((float(time), pixels))
        start += size
    assert start == len(ran.stdout)
    return found


def _source(size: str = "96x64", rate: str = "10", seconds: str = "1") -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]


_H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
_HEVC = ("-c:v", "libx265", "-x265-params", "log-level=error")


def _encoded(*options: str, size: str = "96x64", rate: str = "10", seconds: str = "1") -> Make:
    return lambda path: _write(path, *_source(size, rate, seconds), *options)


def _write(path: Path, *options: str) -> None:
    ffmpeg(*options, path)


def _copied(*before: str, options: tuple[str, ...] = ("-c", "copy"), of: tuple[str, ...] = _H264) -> Make:
    """A video, and then the same with something said about it."""

    def make(path: Path) -> None:
        first = path.with_name("first-" + path.stem + ".mp4")
        _write(first, *_source(), *of)
        ffmpeg(*before, "-i", first, *options, path)

    return make


def _changed(make: Make, change: Callable[[bytes], bytes]) -> Make:
    def changed(path: Path) -> None:
        make(path)
        path.write_bytes(change(path.read_bytes()))

    return changed


def _cut(make: Make, share: float = 0.5) -> Make:
    """The first part of a file, as of a download that broke off."""
    return _changed(make, lambda data: data[: int(len(data) * share)])


def _holed(make: Make, begin: float = 0.5, share: float = 0.1) -> Make:
    """A file in which a part is nothing but zeros."""

    def holed(data: bytes) -> bytes:
        start, length = int(len(data) * begin), int(len(data) * share)
        return data[:start] + bytes(length) + data[start + length :]

    return _changed(make, holed)


def _boxes(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Where the boxes of an MP4 lie, by name; of those of one name the first."""
    found: dict[bytes, tuple[int, int]] = {}
    while start < end:
        size, name = struct.unpack_from(">I4s", data, start)
        found.setdefault(name, (start, start + size))
        start += size
    return found


def _cover_first(data: bytes) -> bytes:
    """An MP4 whose cover is read before its video: what describes it stands first in the index."""
    start, end = _boxes(data, 0, len(data))[b"moov"]
    parts = _boxes(data, start + 8, end)
    (head, after_head), (about, after_about) = parts[b"mvhd"], parts[b"udta"]
    described = data[about:after_about]
    return data[:head] + data[head:after_head] + described + data[after_head:about] + data[after_about:]


def _with_aperture(data: bytes) -> bytes:
    """An MP4 of which 80 x 50 pixels are shown, a little right of and above the middle."""
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", 80, 1, 50, 1, 4, 1, -2, 1)
    start, end, sizes = 0, len(data), []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        begin, end = _boxes(data, start, end)[name]
        sizes.append(begin)
        start = begin + 8
    start += 8  # after the version and the number of entries
    sizes.append(start)
    at = start + struct.unpack_from(">I", data, start)[0]
    changed = bytearray(data)
    for begin in sizes:
        struct.pack_into(">I", changed, begin, struct.unpack_from(">I", changed, begin)[0] + len(clap))
    return bytes(changed[:at]) + clap + bytes(changed[at:])


def _cropped_matroska(data: bytes) -> bytes:
    """A Matroska file that cuts pixels off each side: said in the description of its video."""
    cuts = b"".join(bytes([0x54, side, 0x81, pixels]) for side, pixels in ((0xAA, 8), (0xBB, 4), (0xCC, 10), (0xDD, 6)))
    return _grown(data, [b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"], cuts)


def _grown(data: bytes, path: list[bytes], more: bytes) -> bytes:
    """An EBML file with something added at the end of an element, whose parents grow with it."""
    made, start = b"", 0
    while start < len(data):
        name = data[start : start + 9 - data[start].bit_length()]
        at = start + len(name)
        wide = 9 - data[at].bit_length()
        length = int.from_bytes(data[at : at + wide]) & ((1 << 7 * wide) - 1)
        body = data[at + wide : at + wide + length]
        if path and name == path[0]:
            body = _grown(body, path[1:], more) if path[1:] else body + more
        kept = b"\xec" if name in (b"\x11\x4d\x9b\x74", b"\x1c\x53\xbb\x6b") else name  # indices would be wrong now
        made += kept + (len(body) | 1 << 56).to_bytes(8) + body
        start = at + wide + length
    return made


def _jumping(path: Path) -> None:
    """A broadcast whose clock begins anew."""
    first, second = path.with_name("first.ts"), path.with_name("second.ts")
    _write(first, *_source(), *_H264, "-output_ts_offset", "5000")
    _write(second, *_source(), *_H264)
    path.write_bytes(first.read_bytes() + second.read_bytes())


def _growing(path: Path) -> None:
    """A stream whose frames change their size."""
    parts = [path.with_name("small.h264"), path.with_name("large.h264")]
    for part, size in zip(parts, ("64x48", "96x64"), strict=True):
        _write(part, *_source(size), *_H264)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


def _cover(path: Path) -> Path:
    cover = path.with_name("cover.png")
    _write(cover, "-f", "lavfi", "-i", "testsrc=size=200x200:duration=1:rate=1", "-frames:v", "1")
    return cover


def _covered(path: Path) -> None:
    plain = path.with_name("plain.mp4")
    _write(plain, *_source(), *_H264)
    ffmpeg(
        "-i",
        plain,
        "-i",
        _cover(path),
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
        "-disposition:v:1",
        "attached_pic",
        path,
    )


def _song(path: Path) -> None:
    sound = ("-f", "lavfi", "-i", "sine=duration=1")
    ffmpeg(
        *sound,
        "-i",
        _cover(path),
        "-map",
        "0",
        "-map",
        "1",
        "-c:a",
        "libmp3lame",
        "-disposition:v",
        "attached_pic",
        path,
    )


def _two_sizes(*dispositions: str) -> Make:
    def make(path: Path) -> None:
        inputs = [*_source("64x48"), "-f", "lavfi", "-i", "smptebars=size=96x64:rate=10:duration=1"]
        _write(path, *inputs, "-map", "0", "-map", "1", *_H264, *dispositions)

    return make


def _with_sound(*options: str, begin: str = "0") -> Make:
    def make(path: Path) -> None:
        sound = ("-f", "lavfi", "-i", "sine=duration=2")
        _write(path, "-itsoffset", begin, *_source(), *sound, *_H264, "-c:a", "aac", *options)

    return make


def _colours(matrix: str, span: str) -> Make:
    """A video whose colours are coded in a way, and which says so."""
    scale = f"scale=out_color_matrix={matrix.removesuffix('nc')}:out_range={span}"
    return _encoded(*_H264, "-vf", scale, "-colorspace", matrix, "-color_range", span)


def _bytes(data: bytes) -> Make:
    return lambda path: (path.write_bytes(data), None)[1]


_VARIABLE = ("-vf", "select='not(mod(n,3))+eq(n,4)'", "-fps_mode", "vfr")
_INTERLACED = ("-vf", "interlace", "-flags", "+ilme+ildct")
_MPEG2 = ("-c:v", "mpeg2video", "-q:v", "3")
_FAST = ("-movflags", "+faststart")
_LONG = _encoded(*_H264, "-g", "10", "-bf", "0", *_FAST, seconds="6")

ROWS = (
    # Containers
    Row("plain.mp4", "H.264 in MP4", _encoded(*_H264)),
    Row("plain.mov", "H.264 in QuickTime", _encoded(*_H264)),
    Row("plain.mkv", "H.264 in Matroska", _encoded(*_H264)),
    Row("plain.flv", "H.264 in FLV", _encoded(*_H264)),
    Row("plain.ts", "H.264 in MPEG-TS", _encoded(*_H264)),
    Row("plain.h264", "H.264 without a container, and without times", _encoded(*_H264)),
    Row("b-frames.avi", "H.264 with B-frames in AVI, which has no times for them", _encoded(*_H264, "-bf", "2")),
    Row("fragments.mp4", "MP4 in fragments", _encoded(*_H264, "-g", "3", "-movflags", "frag_keyframe+empty_moov")),
    Row("plain.mpg", "MPEG-2 in a program stream", _encoded(*_MPEG2, rate="25")),
    Row("plain.mxf", "MPEG-2 in MXF", _encoded(*_MPEG2, rate="25")),
    Row("plain.wmv", "WMV", _encoded("-c:v", "wmv2")),
    Row("plain.ogv", "Theora in Ogg", _encoded("-c:v", "libtheora")),
    Row("palette.gif", "an animated GIF", _encoded()),
    Row("plain.apng", "an animated PNG", _encoded("-plays", "0")),
    Row("plain.y4m", "raw frames in YUV4MPEG", _encoded("-pix_fmt", "yuv420p")),
    # Codecs
    Row("hevc-10-bit.mp4", "HEVC, 10 bits", _encoded(*_HEVC, "-pix_fmt", "yuv420p10le")),
    Row("vp9.webm", "VP9 in WebM", _encoded("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "500k")),
    Row("av1.mp4", "AV1", _encoded("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime")),
    Row("mpeg-4.avi", "MPEG-4 part 2 in AVI", _encoded("-c:v", "mpeg4", "-q:v", "3")),
    Row(
        "prores.mov",
        "ProRes 4444 with an alpha channel, which is left out",
        _encoded("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"),
    ),
    Row("motion-jpeg.avi", "Motion JPEG", _encoded("-c:v", "mjpeg", "-q:v", "3")),
    Row("raw.avi", "raw BGR in AVI, stored upside down", _encoded("-c:v", "rawvideo", "-pix_fmt", "bgr24")),
    Row(
        "transparent.mov",
        "RGBA, half transparent: its colours, as they are",
        _encoded("-c:v", "qtrle", "-vf", "format=argb,colorchannelmixer=aa=0.5"),
    ),
    # Pixels
    Row("grey.mkv", "grey, 8 bits", _encoded("-c:v", "ffv1", "-pix_fmt", "gray")),
    Row("grey-16-bit.mkv", "grey, 16 bits", _encoded("-c:v", "ffv1", "-pix_fmt", "gray16le")),
    Row("4-2-2-10-bit.mp4", "H.264, 4:2:2, 10 bits", _encoded("-c:v", "libx264", "-pix_fmt", "yuv422p10le")),
    Row("4-4-4.mp4", "H.264, 4:4:4", _encoded("-c:v", "libx264", "-pix_fmt", "yuv444p")),
    Row("12-bit.mkv", "FFV1, 4:4:4, 12 bits", _encoded("-c:v", "ffv1", "-pix_fmt", "yuv444p12le")),
    Row("rgb.mkv", "H.264 of RGB", _encoded("-c:v", "libx264rgb")),
    Row("bt709-full.mp4", "BT.709, full range, as flagged", _colours("bt709", "pc")),
    Row("bt601-limited.mp4", "BT.601, limited range, as flagged", _colours("smpte170m", "tv")),
    Row("bt2020.mp4", "BT.2020, limited range, as flagged", _colours("bt2020nc", "tv")),
    Row(
        "unflagged.mp4",
        "BT.709 that does not say so: taken for BT.601, as by ffmpeg",
        _encoded(*_H264, "-vf", "scale=out_color_matrix=bt709"),
    ),
    Row(
        "hdr.mkv",
        "HDR10: its values as they are, without tone mapping",
        _encoded(
            "-c:v",
            "ffv1",
            "-pix_fmt",
            "yuv420p10le",
            "-colorspace",
            "bt2020nc",
            "-color_trc",
            "smpte2084",
            "-color_primaries",
            "bt2020",
        ),
    ),
    Row("odd.mp4", "an odd size, 97 x 65", _encoded("-c:v", "libx264", "-pix_fmt", "yuv444p", size="97x65")),
    Row("wide-pixels.mp4", "pixels wider than high: frames are not scaled", _encoded(*_H264, "-vf", "setsar=4/3")),
    Row("interlaced.ts", "interlaced: both fields of a frame, as they are", _encoded(*_MPEG2, *_INTERLACED, rate="50")),
    Row(
        "cropped.mp4",
        "cropped by the codec",
        _encoded(*_H264, "-bsf:v", "h264_metadata=crop_left=10:crop_right=6:crop_top=4:crop_bottom=8"),
    ),
    Row("aperture.mp4", "cropped by the container (clean aperture)", _changed(_encoded(*_H264), _with_aperture)),
    Row("cropped.mkv", "cropped by the container (PixelCrop)", _changed(_encoded(*_H264), _cropped_matroska)),
    Row("growing.h264", "frames that change their size: each at its own", _growing),
    # Orientation
    Row("turned-90.mp4", "turned by 90°", _copied("-display_rotation", "90")),
    Row("turned-180.mp4", "turned by 180°", _copied("-display_rotation", "180")),
    Row("turned-270.mp4", "turned by 270°", _copied("-display_rotation", "270")),
    Row("mirrored.mp4", "mirrored, as by front cameras", _copied("-display_hflip")),
    Row("upside-down.mp4", "mirrored from top to bottom", _copied("-display_vflip")),
    Row("turned-90-mirrored.mov", "turned by 90° and mirrored", _copied("-display_rotation", "90", "-display_hflip")),
    Row(
        "turned-270-mirrored.mkv", "turned by 270° and mirrored", _copied("-display_rotation", "270", "-display_hflip")
    ),
    Row("turned-30.mp4", "turned by 30°: at its size, what is beside it black", _copied("-display_rotation", "30")),
    Row(
        "turned-in-frames.h264",
        "turned and mirrored frame by frame, by the codec",
        _encoded(*_H264, "-bsf:v", "h264_metadata=display_orientation=insert:rotate=90:flip=horizontal"),
    ),
    # Time
    Row("variable.mp4", "a variable frame rate", _encoded(*_H264, *_VARIABLE)),
    Row("variable.mkv", "a variable frame rate in Matroska", _encoded(*_H264, *_VARIABLE)),
    Row("variable.avi", "a variable frame rate in AVI: empty frames in between", _encoded("-c:v", "mpeg4", *_VARIABLE)),
    Row("slides.flv", "FLV whose frames last seconds", _encoded("-c:v", "flv1", rate="1/3", seconds="12")),
    Row("ntsc.mp4", "30000/1001 frames a second", _encoded(*_H264, rate="30000/1001")),
    Row("edited.mp4", "an edit list that begins between two key frames", _copied("-ss", "0.35")),
    Row("late.mp4", "video that begins after the sound: its times count from the sound", _with_sound(begin="0.7")),
    Row("offset.ts", "times that do not begin at 0: shown from 0", _encoded(*_H264, "-output_ts_offset", "5")),
    Row("jumping.ts", "a clock that begins anew", _jumping),
    # Streams
    Row("cover-first.mp4", "a cover picture before the video: not taken for it", _changed(_covered, _cover_first)),
    Row(
        "two.mkv", "two videos: the larger, as by ffmpeg", _two_sizes("-disposition:v:0", "0", "-disposition:v:1", "0")
    ),
    Row(
        "two-default.mkv",
        "two videos: the default, as by ffmpeg",
        _two_sizes("-disposition:v:0", "default", "-disposition:v:1", "0"),
    ),
    # Damage
    Row("cut.mp4", "MP4 that breaks off half way", _cut(_LONG), "breaks off after .* of 60 frames are missing"),
    Row(
        "cut.mkv",
        "Matroska that breaks off",
        _cut(_encoded(*_H264, seconds="3")),
        "breaks off after .* bytes are missing",
    ),
    Row(
        "cut.avi",
        "AVI that breaks off",
        _cut(_encoded("-c:v", "mpeg4", "-q:v", "3")),
        "breaks off after .* of 10 frames are missing",
    ),
    Row(
        "cut.flv",
        "FLV that breaks off",
        _cut(_encoded(*_H264, "-bf", "0", seconds="3")),
        "breaks off after .* header declares",
    ),
    Row(
        "cut.mjpeg",
        "JPEGs of which the last is half there",
        _cut(_encoded("-c:v", "mjpeg", "-q:v", "3")),
        "breaks off after .* 1 damaged frame was not sent",
    ),
    Row(
        "cut-live.mkv",
        "Matroska recorded live that breaks off, which nothing in it tells",
        _cut(_encoded(*_H264, "-live", "1", seconds="3")),
    ),
    Row(
        "holed.mp4",
        "MP4 with unreadable parts",
        _holed(_LONG),
        "is damaged: .* could not be decoded, 2 damaged frames were not sent",
    ),
    Row(
        "holed.mkv",
        "Matroska with unreadable parts",
        _holed(_encoded(*_H264, "-g", "5", "-bf", "0", seconds="6")),
        "is damaged: frames are missing at",
    ),
    Row("empty.mp4", "nothing in the file", _bytes(b""), "it is empty", refused=True),
    Row("no-index.mp4", "MP4 whose recording did not end", _cut(_encoded(*_H264)), "it has no index", refused=True),
    Row(
        "song.mp3", "sound with a cover picture", _song, "holds no video, only sound and a cover picture", refused=True
    ),
    Row(
        "sound.m4a",
        "sound alone",
        lambda path: _write(path, "-f", "lavfi", "-i", "sine=duration=1"),
        "holds no video, only sound",
        refused=True,
    ),
    Row(
        "picture.jpg",
        "a picture",
        _encoded("-frames:v", "1"),
        "is a picture, not a video: vedette detect",
        refused=True,
    ),
    Row("text.mp4", "no video at all", _bytes(b"Once upon a time" * 99), "it is not a video", refused=True),
)

"""Opening of video sources, files, URLs, cameras and pipes, with precise errors."""

import contextlib
import enum
import itertools
import os
import queue
import re
import select
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, cast

from vedette_client import structure
from vedette_client.errors import LocalError
from vedette_client.pyav import av, reason

CONNECT_SECONDS: Final = 10.0  # for a URL to answer
SILENCE_SECONDS: Final = 10.0  # without data from an open URL
PIECES_SECONDS: Final = 60.0  # without data if the video comes in segments of several seconds

_LIVE: Final = (
    "rtsp",
    "rtsps",
    "rtp",
    "rtmp",
    "rtmps",
    "rtmpt",
    "rtmpe",
    "udp",
    "udplite",
    "srt",
    "tcp",
    "unix",
    "mms",
)
_LOOK_SECONDS: Final = 0.1  # between checks for Ctrl-C
_NO_TIMES: Final = 0x80  # AVFMT_NOTIMESTAMPS
_IN_PIECES: Final = ("hls", "dash")
_PLAYLISTS: Final = (".m3u8", ".mpd")
_STANDARD_INPUT: Final = ("-", "pipe:", "pipe:0", "/dev/stdin")
_DEFAULT_BONUS: Final = 5_000_000  # pixels that ffmpeg adds to a stream marked as default

T = TypeVar("T")


class Kind(enum.Enum):
    """The kind of a source, which determines how it is read."""

    FILE = "file"  # finite, and waits for the reader
    LIVE = "live"  # continues whether or not it is read, and is reopened when it drops
    PIPE = "pipe"  # live, but cannot be reopened


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An opened source, with its video stream."""

    name: str
    kind: Kind
    container: "av.container.InputContainer"
    stream: "av.VideoStream"
    path: Path | None = None  # of a local file

    @property
    def crop(self) -> structure.Crop:
        """The cropping that the container declares."""
        crops = structure.crops(self.path) if self.path else []
        among = [stream.index for stream in self.container.streams.video].index(self.stream.index)
        return crops[among] if among < len(crops) else structure.Crop()

    @property
    def in_pieces(self) -> bool:
        """True if a live source arrives in segments rather than frame by frame."""
        return self.kind is Kind.LIVE and self.container.format.name.split(",")[0] in _IN_PIECES

    @property
    def has_times(self) -> bool:
        """True if frames have capture times; those of a camera over HTTP do not."""
        return self.kind is not Kind.LIVE or not self.container.format.flags & _NO_TIMES


class _Pipe:
    """Reader of another program's output, with a timeout."""

    def __init__(self, descriptor: int, patience: float) -> None:
        self._descriptor = descriptor
        self._patience = max(patience, SILENCE_SECONDS)
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLIN | select.POLLHUP)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end. Raises TimeoutError."""
        if not self._ready.poll(min(self._patience, 1e6) * 1000):
            raise TimeoutError(None, f"no data for {self._patience:g} s")
        return os.read(self._descriptor, size)


def open_source(source: str, patience: float) -> Opened:
    """Open a source and choose its video. A pipe may be silent for `patience` seconds. Raises `LocalError`."""
    name = f"/dev/video{source}" if source.isdecimal() else source
    if source in _STANDARD_INPUT:
        return _standard_input(patience)
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return _address(name)
    if stat.S_ISFIFO(mode):
        return _pipe(name, os.open(name, os.O_RDONLY | os.O_NONBLOCK), patience)
    if stat.S_ISCHR(mode):
        return _chosen(name, Kind.LIVE, _open(name, name, {}, live=True, format_name="v4l2"))
    if name.endswith(_PLAYLISTS):  # the playlist may be endless
        return _address(f"file:{name}", Path(name))
    return _file(name, Path(name))


def _standard_input(patience: float) -> Opened:
    if sys.stdin is None or sys.stdin.isatty():
        msg = "cannot read a video from a terminal: pipe one in, or name a file"
        raise LocalError(msg)
    descriptor = sys.stdin.fileno()
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return _file("standard input", Path(f"/dev/fd/{descriptor}"))
    return _pipe("standard input", descriptor, patience)


def _pipe(name: str, descriptor: int, patience: float) -> Opened:
    try:
        container = av.open(_Pipe(descriptor, patience), "r")
    except (OSError, ValueError, av.FFmpegError) as error:
        why = reason(error)
        if isinstance(error, av.error.InvalidDataError):
            why += "; a non-seekable source must be Matroska, MPEG-TS or fragmented MP4, for example"
        msg = f"cannot read a video from {name}: {why}"
        raise LocalError(msg) from error
    return _chosen(name, Kind.PIPE, container)


def _file(name: str, path: Path) -> Opened:
    if path.is_dir():
        msg = f"cannot open {name}: it is a folder; name a video file"
        raise LocalError(msg)
    try:
        if not path.stat().st_size and stat.S_ISREG(path.stat().st_mode):
            msg = f"cannot open {name}: it is empty"
            raise LocalError(msg)
        url = f"file:{path}"  # without the prefix, a colon in the name would make it a URL
        container = av.open(url, "r")
        if _is_picture(container, url):
            raise _picture(name)
    except av.error.InvalidDataError as error:
        msg = f"cannot open {name}: it is not a video, as far as FFmpeg can tell"
        if not structure.has_index(path):
            msg = f"cannot open {name}: it has no index (moov): its recording or download is incomplete"
        raise LocalError(msg) from error
    except (OSError, ValueError, av.FFmpegError) as error:
        msg = f"cannot open {name}: {reason(error)}"
        raise LocalError(msg) from error
    return _chosen(name, Kind.FILE, container, path)


def _is_picture(container: "av.container.InputContainer", url: str) -> bool:
    """Return whether FFmpeg's picture formats yield a single frame; a series of JPEGs has more."""
    if not (container.format.name == "image2" or container.format.name.endswith("_pipe")):
        return False
    with av.open(url, "r") as again:
        return sum(packet.size > 0 for packet in itertools.islice(again.demux(), 2)) < 2


def _picture(name: str) -> LocalError:
    return LocalError(f"{name} is a picture, not a video: vedette detect {name}")


def _address(name: str, path: Path | None = None) -> Opened:
    scheme, separator, rest = name.partition("://")
    scheme = scheme.lower()
    shown = str(path or re.sub("(?<=://)[^/]*@", "", name))  # without user name and password
    live = bool(separator) and scheme in _LIVE
    options = {"rtsp_transport": "tcp"} if scheme in ("rtsp", "rtsps") else {}
    pieces = (rest or name).partition("?")[0].endswith(_PLAYLISTS)
    container = _open(shown, name, options, live=live or pieces, silence=PIECES_SECONDS if pieces else SILENCE_SECONDS)
    ends = container.duration is not None or (container.size > 0 and container.format.name not in _IN_PIECES)
    kind = Kind.LIVE if live or not ends else Kind.FILE
    if kind is Kind.FILE and _is_picture(container, name):
        raise _picture(shown)
    return _chosen(shown, kind, container, path)


def _open(
    name: str,
    url: str,
    options: dict[str, str],
    *,
    live: bool,
    silence: float = SILENCE_SECONDS,
    format_name: str | None = None,
) -> "av.container.InputContainer":
    if live:
        options = {**options, "fpsprobesize": "0"}  # the rate is not needed, and probing for it would delay frames
    timeout = (CONNECT_SECONDS, silence)
    try:
        return _interruptible(lambda: av.open(url, "r", format=format_name, options=options, timeout=timeout))
    except av.error.ProtocolNotFoundError as error:
        scheme, separator, _ = name.partition("://")
        why = (
            f"this PyAV does not support {scheme}; use a pipe: ffmpeg -i {name} -c copy -f mpegts - | vedette stream -"
        )
        msg = f"cannot open {name}: {why if separator else 'no such file'}"
        raise LocalError(msg) from error
    except (OSError, ValueError, av.FFmpegError) as error:
        msg = f"cannot open {name}: {reason(error)}"
        raise LocalError(msg) from error


def _interruptible(call: Callable[[], T]) -> T:
    """Run a call in a separate thread, so that Ctrl-C need not wait for a URL to answer."""
    answer: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((call(), None))
        except Exception as error:  # noqa: BLE001  re-raised in the waiting thread
            answer.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    while True:
        with contextlib.suppress(queue.Empty):
            given, error = answer.get(timeout=_LOOK_SECONDS)
            if error:
                raise error
            return cast("T", given)


def _chosen(name: str, kind: Kind, container: "av.container.InputContainer", path: Path | None = None) -> Opened:
    """Choose ffmpeg's stream: the largest or the default, cover pictures excluded."""
    covers = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not videos:
        msg = f"{name} holds no video{_instead(container)}"
        raise LocalError(msg)
    stream = max(videos, key=_worth)
    if _context(stream) is None:
        msg = f"{name} has video in a format that PyAV cannot decode"
        raise LocalError(msg)
    return Opened(name=name, kind=kind, container=container, stream=stream, path=path)


def _worth(stream: "av.VideoStream") -> int:
    context = _context(stream)
    pixels = context.width * context.height if context is not None else 0
    return pixels + _DEFAULT_BONUS * bool(stream.disposition & av.stream.Disposition.default)


def _context(stream: "av.VideoStream") -> "av.VideoCodecContext | None":
    """Return a stream's decoder, or None; PyAV's type stubs say that there always is one."""
    context: av.VideoCodecContext | None = stream.codec_context
    return context


def _instead(container: "av.container.InputContainer") -> str:
    names = {"audio": "sound", "video": "a cover picture", "subtitle": "subtitles", "data": "data"}
    seen = [names.get(stream.type, "something else") for stream in container.streams]
    return ", only " + " and ".join(dict.fromkeys(seen)) if seen else ""

"""A video as upright frames with their times, from a file, a URL, a camera or a pipe."""

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vedette_client.decoding import Decoded, Decoding
from vedette_client.display import Display
from vedette_client.errors import LocalError
from vedette_client.live import Patience, Reader
from vedette_client.opening import Kind, Opened, open_source
from vedette_client.pyav import av, cause, reason
from vedette_client.streaming import Frame

_FASTEST = 1000  # frames per second; a higher declared rate counts as unknown

_log = logging.getLogger(__name__)

DEFAULT_PATIENCE = 60.0  # seconds that a live source may be gone

SkipReason: TypeAlias = Literal["FRAME_DAMAGED", "SUPERSEDED"]

_Numbered: TypeAlias = tuple[int, Decoded]


@dataclass(frozen=True, kw_only=True)
class VideoFrame(Frame):
    """A frame of a video."""

    time: float = 0.0  # seconds from the start of the video, as in ffmpeg
    duration: float = 0.0  # seconds
    aspect: Fraction = Fraction(1)  # intended width of a pixel, relative to its height


@dataclass(frozen=True)
class Skipped:
    """A frame that was not passed on: damaged, or superseded before it was taken."""

    frame_id: int
    time: float  # seconds, as in `VideoFrame`
    reason: SkipReason


def _ignore(_skipped: Skipped) -> None:
    """Ignore skipped frames; only their numbers are missing."""


class Video:
    """The frames of a video, BGR8, as displayed by ffmpeg.

    A file is read as fast as its frames are taken; one that breaks off raises `LocalError` after its last frame.
    Damaged frames are not passed on, and `damage` describes a file's faults once it is read.

    A live source is read as fast as it delivers, and the consumer gets the newest frame. When it drops, reopening is
    attempted for `patience` seconds.
    """

    def __init__(
        self,
        source: str,
        *,
        loop: bool = False,
        fps: float | None = None,
        newest: bool = True,
        patience: float = DEFAULT_PATIENCE,
        notice: Callable[[str], None] = _log.warning,
        skipped: Callable[[Skipped], None] = _ignore,
    ) -> None:
        """Open a source: a path, a URL, a camera number, or - for standard input.

        `fps` plays a file at that rate, in frames per second, and `loop` restarts it at its end. With `newest=False`,
        no frame of a live source is skipped. `notice` is called when a live source drops and returns, and for a damaged
        file; `skipped`, from any thread, for frames that are not passed on. Raises `LocalError` if the source cannot be
        opened.
        """
        self._source = source
        self._loop = loop
        self._fps = fps
        self._newest = newest
        self._patience = patience
        self.notice = notice
        self._stopped = threading.Event()
        self._skipped = skipped
        self._opened: Opened | None = open_source(source, patience)
        stream = self._opened.stream
        self._display = Display(self._opened.crop)
        self.name = self._opened.name
        self.path = self._opened.path  # of a local file
        self.live = self._opened.kind is not Kind.FILE
        if self.live and (loop or fps):
            msg = f"{self.name} is live: only files can be looped or played at another rate"
            raise LocalError(msg)
        self.endless = self.live or loop  # only ends when stopped
        rate = stream.average_rate or Fraction(0)
        self.rate = rate if 0 < rate <= _FASTEST else Fraction(25)  # frames per second
        self.unit = stream.time_base or Fraction(1, 1000)  # seconds, such that its times are integers
        self._aspect = stream.sample_aspect_ratio or Fraction(1)
        self.damage = ""
        self.frames = None if loop else Decoding(self._opened).promised  # None: unknown

    def stop(self) -> None:
        """Stop yielding frames, from any thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames, numbered from 0. Raises `LocalError` if the source breaks off or is given up."""
        if not self.live:
            yield from self._played()
            return
        frames = self._sound(self._watched(), itertools.count())
        for number, decoded in Reader(frames, self._stopped, self._pass_over if self._newest else None):
            yield self._frame(number, decoded, decoded.arrived)

    def _played(self) -> Iterator[VideoFrame]:
        numbers = itertools.count()
        started = time.monotonic()
        begin = Fraction(0)
        while not self._stopped.is_set():
            decoding = Decoding(self._take())
            for number, decoded in self._sound(_later(decoding, begin), numbers):
                if self._fps:
                    self._stopped.wait(max(started + number / self._fps - time.monotonic(), 0.0))
                if self._stopped.is_set():
                    return
                yield self._frame(number, decoded, time.time())
            begin += decoding.shown
            if decoding.damage and not self.damage:
                self.damage = decoding.damage
                self.notice(self.damage)
            if not self._loop:
                return

    def _watched(self) -> Iterator[Decoded]:
        """Yield the frames of a live source, over all its connections, with times by the wall clock."""
        patience = Patience(self.name, self._patience, self._stopped, self.notice)
        opened: Opened | None = self._take()
        first: float | None = None
        while opened:
            why = "it has ended"
            shift: Fraction | None = None
            try:
                for decoded in self._paced(opened):
                    patience.came()
                    first = decoded.arrived if first is None else first
                    since = Fraction(decoded.arrived - first)
                    if shift is None:
                        shift = since - decoded.time
                    yield dataclasses.replace(decoded, time=decoded.time + shift if opened.has_times else since)
            except LocalError as error:
                if opened.kind is Kind.PIPE:
                    raise
                why = cause(error)
            else:
                if opened.kind is Kind.PIPE or opened.container.duration is not None:
                    return
            opened = patience.open(self._take, why)

    def _paced(self, opened: Opened) -> Iterator[Decoded]:
        """Yield frames at their own pace, if the source delivers segments of several seconds."""
        begin: float | None = None
        for decoded in Decoding(opened):
            if opened.in_pieces:
                now = time.monotonic()
                begin = now - float(decoded.time) if begin is None else begin
                due = begin + float(decoded.time)
                self._stopped.wait(max(due - now, 0.0))
                begin += max(now - due, 0.0)  # do not hurry after a late segment
                yield dataclasses.replace(decoded, arrived=time.time())
            else:
                yield decoded

    def _take(self) -> Opened:
        """Return the source as first opened, or reopen it."""
        opened, self._opened = self._opened, None
        return opened or open_source(self._source, self._patience)

    def _sound(self, frames: Iterator[Decoded], numbers: Iterator[int]) -> Iterator[_Numbered]:
        for decoded in frames:
            number = next(numbers)
            if decoded.damaged:
                self._skip(number, decoded, "FRAME_DAMAGED")
            else:
                yield number, decoded

    def _pass_over(self, item: _Numbered) -> None:
        self._skip(*item, "SUPERSEDED")

    def _skip(self, number: int, decoded: Decoded, why: SkipReason) -> None:
        self._skipped(Skipped(number, float(decoded.time), why))

    def _frame(self, number: int, decoded: Decoded, captured: float) -> VideoFrame:
        try:
            pixels: NDArray[np.uint8] = self._display.pixels(decoded.frame)
        except (av.FFmpegError, ValueError) as error:
            msg = f"frame {number} of {self.name} cannot be converted: {reason(error)}"
            raise LocalError(msg) from error
        return VideoFrame(
            pixels,
            frame_id=number,
            captured=captured,
            pixel_format="BGR8",
            time=float(decoded.time),
            duration=float(decoded.duration),
            aspect=1 / self._aspect if self._display.turned else self._aspect,
        )


def _later(frames: Decoding, begin: Fraction) -> Iterator[Decoded]:
    for decoded in frames:
        yield dataclasses.replace(decoded, time=decoded.time + begin) if begin else decoded

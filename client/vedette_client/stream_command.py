"""`vedette stream`: sends a video to a server, and reports its frames to a file, a video and a progress bar."""

import collections
import contextlib
import dataclasses
import heapq
import json
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text
from vedette_commands import text

from vedette_client import drawing, records
from vedette_client.client import Client
from vedette_client.errors import LocalError, ServerError, VedetteError
from vedette_client.outputs import ClientOutputs
from vedette_client.saving import Writer
from vedette_client.streaming import Answered, Dropped, Event, Failed, Frame, Policy
from vedette_client.video import Skipped, Video, VideoFrame

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DAMAGED: Final = "its data is damaged, and its decoder could only guess: it was not sent"


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """The options of a stream."""

    policy: str | None  # None: suited to the source
    ask: Mapping[str, Any]
    jsonl: Path | None
    save: Path | None
    loop: bool
    fps: float | None
    patience: float  # seconds that a live source may be gone


@dataclass(kw_only=True)
class StreamOutcome:
    """The outcome of a stream."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)  # of frames, by their fate
    error: VedetteError | BrokenPipeError | None = None  # that ended it
    damaged: bool = False  # the file was faulty, which was reported
    failed: ServerError | LocalError | None = None  # error of the first failed frame
    signal: int = 0  # that ended it
    whole: bool = True  # the source was answered to its end
    saved: str = ""  # message about the annotated video

    def __str__(self) -> str:
        """Summarise the number of frames by fate."""
        told = ", ".join(f"{count} {name.lower()}" for name, count in sorted(self.counts.items()))
        return f"{self.counts.total()} frames: {told or 'none'}{self.saved}"


_What: TypeAlias = Event | Skipped


class _Sending:
    """Passes frames on, and keeps what is needed of them until they are answered."""

    def __init__(self, video: Video, *, pixels: bool) -> None:
        self._video = video
        self._keep = pixels
        self._sent: dict[int, VideoFrame] = {}

    def __iter__(self) -> Iterator[Frame]:
        """Yield the video's frames."""
        for frame in self._video:
            if frame.frame_id is not None:
                self._sent[frame.frame_id] = frame if self._keep else dataclasses.replace(frame, image=b"")
            yield frame

    def take(self, frame_id: int) -> VideoFrame:
        """Return a frame, once; without its image if nothing is drawn."""
        return self._sent.pop(frame_id, VideoFrame(b"", frame_id=frame_id))


class LinesFile:
    """A JSON file with one line per frame, named from its first line on; - means standard output. A context manager."""

    def __init__(self, outputs: ClientOutputs, path: Path) -> None:
        """Raises `LocalError` if the file cannot be written."""
        self._path = path
        self._part = None if str(path) == "-" else outputs.begin(path)
        self._named = False
        try:
            self._file = self._part.path.open("wb", buffering=0) if self._part else None
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        """Return the file, which is already open."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the file; remove it if it has no lines."""
        if self._file and self._part:
            self._file.close()
            if not self._named:
                self._part.discard()

    def write(self, record: dict[str, Any]) -> None:
        """Add a line, completely or not at all. Raises `LocalError`, or BrokenPipeError if the reader is gone."""
        try:
            self._put(f"{json.dumps(record)}\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error
        if self._part and not self._named:
            self._part.finish()
            self._named = True

    def _put(self, line: str) -> None:
        if self._file is None:
            sys.stdout.write(line)
            sys.stdout.flush()
            return
        left, begin = memoryview(line.encode()), self._file.tell() if self._file.seekable() else 0
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # not a regular file
                self._file.truncate(begin)
            raise

    def _failed(self, error: OSError) -> LocalError:
        name = "standard output" if self._file is None else str(self._path)
        return LocalError(f"cannot write {name}: {error.strerror}")


def run(client: Client, source: str, wanted: StreamOptions) -> StreamOutcome:
    """Stream a video to its end, or until Ctrl-C. Raises `LocalError` if it cannot be started."""
    skips = _Skips()
    video = Video(
        source,
        loop=wanted.loop,
        fps=wanted.fps,
        newest=wanted.policy != "lossless",
        patience=wanted.patience,
        skipped=skips.add,
    )
    live = video.live or wanted.fps is not None
    policy: Policy = "LATEST" if (wanted.policy or ("latest" if live else "lossless")) == "latest" else "LOSSLESS"
    outputs = ClientOutputs()
    if video.path:
        outputs.reads(video.path)
    outcome = StreamOutcome()
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(LinesFile(outputs, wanted.jsonl)) if wanted.jsonl else None
        writer = (
            stack.enter_context(Writer(outputs, wanted.save, rate=video.rate, unit=video.unit)) if wanted.save else None
        )
        told = stack.enter_context(_Telling(video, skips, lines, writer, outcome))
        frames = _Sending(video, pixels=writer is not None)
        try:
            with _stopping_at_signals(video.stop, outcome):
                try:
                    for event in client.stream(frames, policy=policy, stream_id="vedette-stream", **wanted.ask):
                        told.skipped(event.frame_id)
                        told.event(event, frames.take(event.frame_id))
                finally:
                    told.skipped()
        except (VedetteError, BrokenPipeError) as error:
            outcome.error = error
        except KeyboardInterrupt:
            outcome.signal = outcome.signal or signal.SIGINT
        outcome.damaged = bool(video.damage)
        outcome.whole = outcome.error is None and not outcome.damaged and (not outcome.signal or video.endless)
        if writer:
            _finish(writer, outcome)
    return outcome


def _finish(writer: Writer, outcome: StreamOutcome) -> None:
    try:
        writer.finish(whole=outcome.whole)
    except LocalError as error:
        outcome.error, outcome.whole = outcome.error or error, False
    partly = "" if outcome.whole else ", which is partial"
    outcome.saved = f"; saved {writer.kept}{partly}" if writer.kept else "; nothing to save"


class _Skips:
    """Frames that were not sent, until it is their turn to be reported."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Skipped]] = []  # a heap: a superseded frame may come after a damaged later one
        self._lock = threading.Lock()

    def add(self, skipped: Skipped) -> None:
        """Add a frame, from any thread."""
        with self._lock:
            heapq.heappush(self._waiting, (skipped.frame_id, skipped))

    def take(self, before: int | None) -> Iterator[Skipped]:
        """Yield the frames before `before`, or all."""
        while True:
            with self._lock:
                if not self._waiting or (before is not None and self._waiting[0][0] >= before):
                    return
                _, skipped = heapq.heappop(self._waiting)
            yield skipped


class _Telling:
    """Reports the fate of each frame: as a line, a video frame, and in the progress bar."""

    def __init__(
        self, video: Video, skips: "_Skips", lines: LinesFile | None, writer: Writer | None, outcome: StreamOutcome
    ) -> None:
        self._skips = skips
        self._lines = lines
        self._writer = writer
        self._outcome = outcome
        self._age = ""
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("age {task.fields[age]}"),
            TextColumn("{task.fields[drops]} dropped"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("frames", total=video.frames, age="", drops=0)
        video.notice = self.say

    def __enter__(self) -> Self:
        """Show the progress bar."""
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the progress bar in its last state."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line beside the progress bar."""
        self._progress.console.print(Text(f"vedette: {text.line(line)}"), soft_wrap=True)

    def event(self, event: Event, sent: VideoFrame) -> None:
        """Report the fate of a frame that was sent."""
        self._tell(event, sent.time)
        if isinstance(event, Answered):
            self._age = f"{event.age * 1000:.0f} ms"
            if self._writer and isinstance(sent.image, np.ndarray):
                self._writer.write(_drawn(sent.image, event), sent.time, sent.duration, sent.aspect)
        elif isinstance(event, Failed):
            self._outcome.failed = self._outcome.failed or event.error

    def skipped(self, before: int | None = None) -> None:
        """Report frames that were not sent."""
        for skip in self._skips.take(before):
            self._tell(skip, skip.time)

    def _tell(self, what: _What, time: float) -> None:
        counts = self._outcome.counts
        counts[_name(what)] += 1
        if self._lines:
            self._lines.write(record(what, time))
        self._progress.update(self._task, advance=1, age=self._age, drops=counts["Dropped"])


def _name(what: _What) -> str:
    if isinstance(what, Skipped):
        return "Dropped" if what.reason == "SUPERSEDED" else "Damaged"
    return type(what).__name__


def record(what: _What, time: float) -> dict[str, Any]:
    """Return a line of the file: an object per frame, with its number and its time in seconds first."""
    told: dict[str, Any] = {"frame_id": what.frame_id, "time": round(time, 6)}
    match what:
        case Answered():
            told |= {"captured": what.captured, "age": round(what.age, 6), **records.answer(what.result)}
        case Dropped() | Skipped(reason="SUPERSEDED"):
            told["dropped"] = what.reason
        case Skipped():
            told["error"] = {"reason": what.reason, "message": _DAMAGED}
        case Failed():
            told["error"] = {"reason": what.error.reason, "message": what.error.message}
    return told


def _drawn(bgr: NDArray[np.uint8], event: Answered) -> NDArray[np.uint8]:
    """Draw the answer into a frame, as RGB."""
    picture = Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))
    drawn: NDArray[np.uint8] = np.asarray(drawing.annotate(picture, event.result))
    return drawn


class _Rate(ProgressColumn):
    """A column with frames per second."""

    def render(self, task: Task) -> Text:
        """Show the recent rate, once there is one."""
        return Text(f"{task.finished_speed or task.speed or 0:.1f} frames/s")


@contextlib.contextmanager
def _stopping_at_signals(stop: Callable[[], None], outcome: StreamOutcome) -> Iterator[None]:
    """Stop the video on the first Ctrl-C, still answering and writing frames already sent; abort on the second."""

    def ended(number: int, _frame: types.FrameType | None) -> None:
        if outcome.signal:
            raise KeyboardInterrupt
        outcome.signal = number
        stop()

    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # unless under nohup
    before = {number: signal.signal(number, ended) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`vedette stream`: a video to a server, what became of its frames to a file, a video and a progress bar."""

import collections
import contextlib
import json
import signal
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from vedette_client import drawing, records
from vedette_client.client import Client
from vedette_client.streaming import Answered, Dropped, Event, Failed, Frame, Policy
from vedette_client.video import Video, Writer


class Kept:
    """Hands frames on to be sent, and keeps those whose answers are to be drawn; Ctrl-C ends them in good order."""

    def __init__(self, video: Video, *, pixels: bool) -> None:
        self._video = video
        self._keep = pixels
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self.stopped = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        """The video's frames."""
        for frame in self._video:
            if self.stopped.is_set():
                return
            if self._keep and frame.frame_id is not None and isinstance(frame.image, np.ndarray):
                self._kept[frame.frame_id] = frame.image
            yield frame

    def take(self, frame_id: int) -> NDArray[np.uint8] | None:
        """A frame's pixels, BGR, once."""
        return self._kept.pop(frame_id, None)


def run(
    client: Client, video: Video, policy: Policy, lines: TextIO | None, save: Path | None, ask: dict[str, Any]
) -> collections.Counter[str]:
    """Stream a video to its end, or until Ctrl-C; returns how many frames became what."""
    counts: collections.Counter[str] = collections.Counter()
    frames = Kept(video, pixels=save is not None)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(save, video.rate)) if save else None
        progress = stack.enter_context(_progress())
        task = progress.add_task("frames", total=video.frames, age="", drops=0)
        stack.enter_context(_stopping_at_interrupt(frames.stopped))
        for event in client.stream(frames, policy=policy, stream_id="vedette-stream", **ask):
            counts[type(event).__name__] += 1
            if lines:
                print(json.dumps(record(event)), file=lines, flush=True)
            if writer and (pixels := frames.take(event.frame_id)) is not None:
                writer.write(_drawn(pixels, event))
            age = f"{event.age * 1000:.0f} ms" if isinstance(event, Answered) else progress.tasks[task].fields["age"]
            progress.update(task, advance=1, age=age, drops=counts["Dropped"])
    return counts


def record(event: Event) -> dict[str, Any]:
    """One line of the file: an object for each frame, its id first."""
    told: dict[str, Any] = {"frame_id": event.frame_id}
    match event:
        case Answered():
            told |= {"captured": event.captured, "age": round(event.age, 6), **records.answer(event.result)}
        case Dropped():
            told["dropped"] = event.reason
        case Failed():
            told["error"] = {"reason": event.error.reason, "message": event.error.message}
    return told


def _drawn(bgr: NDArray[np.uint8], event: Event) -> NDArray[np.uint8]:
    """A frame with its answer; one without is shown as it is."""
    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
    if not isinstance(event, Answered):
        return rgb
    drawn: NDArray[np.uint8] = np.asarray(drawing.annotate(Image.fromarray(rgb), event.result))
    return drawn


class _Rate(ProgressColumn):
    """Frames a second."""

    def render(self, task: Task) -> Text:
        """The recent rate, once there is one."""
        return Text(f"{task.finished_speed or task.speed or 0:.1f} frames/s")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("age {task.fields[age]}"),
        TextColumn("{task.fields[drops]} dropped"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


@contextlib.contextmanager
def _stopping_at_interrupt(stopped: threading.Event) -> Iterator[None]:
    """The first Ctrl-C ends the video, and what was sent is still answered and written; the second ends the rest."""

    def stop(_number: int, _frame: types.FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

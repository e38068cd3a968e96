"""Encoding of frames as a video, each at its own time, under a name that appears when the video is complete."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from vedette_client.errors import LocalError
from vedette_client.outputs import ClientOutputs
from vedette_client.pyav import av, reason

_H264: Final = ("libx264", {"preset": "veryfast", "bf": "0"})  # B-frames would delay the start of an MP4
_VP9: Final = ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "31", "b": "0"})
_ENCODERS: Final = {
    ".mp4": _H264,
    ".m4v": _H264,
    ".mov": _H264,
    ".mkv": _H264,
    ".ts": _H264,
    ".webm": _VP9,
}

SUFFIXES: Final = tuple(_ENCODERS)

# An MP4 is written in complete fragments of a second, and converted to an ordinary one at its end. So whatever was
# written before a full disk or a crash is playable.
_PIECES: Final = {"movflags": "hybrid_fragmented", "frag_duration": "1000000"}

_FINE: Final = Fraction(1, 90_000)  # seconds: a unit in which the usual rates are integers
_COARSEST: Final = Fraction(1, 1000)
_FINEST: Final = Fraction(1, 1_000_000)

_BT709: Final = 1  # for matrix, primaries and transfer alike
_LIMITED: Final = 1


class Writer:
    """Writer of a video, in the container given by its suffix. A context manager that leaves no incomplete file."""

    def __init__(self, outputs: ClientOutputs, path: Path, *, rate: Fraction, unit: Fraction) -> None:
        """`unit` is that of the frames' times, in seconds. Raises `LocalError` if the video cannot be written."""
        if path.suffix.lower() not in _ENCODERS:
            *most, last = SUFFIXES
            msg = f"cannot write {path}: a video's name must end in {', '.join(most)} or {last}"
            raise LocalError(msg)
        self._path = path
        self._encoder, self._options = _ENCODERS[path.suffix.lower()]
        try:
            av.Codec(self._encoder, "w")
        except ValueError as error:
            msg = f"cannot write {path}: this PyAV has no {self._encoder}"
            raise LocalError(msg) from error
        self._rate = rate
        self._unit = unit if _FINEST <= unit <= _COARSEST and unit.numerator == 1 else _FINE
        self._part = outputs.begin(path)
        self._container: Any = None
        self._stream: Any = None
        self._begins = 0.0  # time of the first frame, the start of the video
        self._last = -1  # time of the last frame, in units
        self._durations: dict[int, int] = {}  # of frames being encoded, in units
        self.kept: Path | None = None  # path of the video once it is finished

    def __enter__(self) -> Self:
        """Return the writer; nothing is written before the first frame, which determines the size."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove an unfinished video."""
        self._part.discard()

    def write(self, rgb: NDArray[np.uint8], time: float, duration: float, aspect: Fraction) -> None:
        """Add a frame, shape (height, width, 3), RGB, shown at `time`. Raises `LocalError`.

        The first frame's size and `aspect`, the shape of its pixels, apply to the whole video.
        """
        height, width = rgb.shape[:2]
        even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), "edge")  # encoders require even sizes
        try:
            if self._container is None:
                self._begins = time
                self._begin(even.shape[1], even.shape[0], aspect)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
                self._stream.width, self._stream.height, "yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts = self._last = max(round(Fraction(time - self._begins) / self._unit), self._last + 1)
            frame.time_base = self._unit
            self._durations[frame.pts] = max(round(Fraction(duration) / self._unit), 1)
            self._mux(frame, self._container)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise self._failed(error) from error

    def _begin(self, width: int, height: int, aspect: Fraction) -> None:
        options = _PIECES if self._path.suffix.lower() in (".mp4", ".m4v", ".mov") else {}
        self._container = av.open(str(self._part.path), "w", options=options)
        self._stream = self._container.add_stream(self._encoder, rate=self._rate, options=self._options)
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.sample_aspect_ratio = aspect
        context.time_base = self._unit
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED

    def _mux(self, frame: "av.VideoFrame | None", container: "av.container.OutputContainer") -> None:
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts, 0)
            container.mux(packet)

    def finish(self, *, whole: bool) -> None:
        """Complete the video and give it its name, unless it has no frames. One that cannot be completed is kept as is.

        Raises `LocalError`.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            self._mux(None, container)
            container.close()
        except (OSError, ValueError, av.FFmpegError) as error:
            self.kept = self._part.finish(whole=False)
            raise self._failed(error) from error
        self.kept = self._part.finish(whole=whole)

    def _failed(self, error: Exception) -> LocalError:
        return LocalError(f"cannot write {self._path}: {reason(error)}")

"""Read videos frame by frame, and write annotated ones, with PyAV."""

import itertools
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vedette_client.errors import LocalError
from vedette_client.streaming import Frame

if TYPE_CHECKING:
    import types

_LIVE = ("rtsp://", "rtsps://", "rtmp://", "udp://", "/dev/video")
_CONNECT_SECONDS = 10.0  # for an address to answer


def _av() -> "types.ModuleType":
    try:
        import av
    except ImportError as error:
        msg = "PyAV is not installed: python -m pip install 'vedette[video]'"
        raise LocalError(msg) from error
    return av


def is_live(source: str) -> bool:
    """Whether a source is a camera or an address rather than a file; a number is a camera's."""
    return source.isdecimal() or source.startswith(_LIVE)


class Video:
    """A video file, an RTSP address or a camera, as frames to send: BGR8, upright, with the time of their capture."""

    def __init__(self, source: str, *, loop: bool = False, fps: float | None = None) -> None:
        """`fps` paces a file to that rate, in frames a second; None reads it as fast as frames are taken.

        Raises `LocalError` if it cannot be opened.
        """
        self._source = f"/dev/video{source}" if source.isdecimal() else source
        self._loop = loop
        self._fps = fps
        with self._open() as container:
            stream = container.streams.video[0]
            self.rate = Fraction(fps).limit_denominator(1000) if fps else stream.average_rate or Fraction(25)
            self.frames: int | None = None if loop or is_live(source) else stream.frames or None  # None: not known

    def _open(self) -> Any:  # noqa: ANN401  PyAV's container
        av = _av()
        camera = self._source.startswith("/dev/video")
        options = {"rtsp_transport": "tcp"} if self._source.startswith("rtsp") else {}
        try:
            container = av.open(
                self._source, format="v4l2" if camera else None, options=options, timeout=_CONNECT_SECONDS
            )
        except (OSError, ValueError) as error:
            msg = f"cannot open {self._source}: {error}"
            raise LocalError(msg) from error
        if not container.streams.video:
            msg = f"{self._source} holds no video"
            raise LocalError(msg)
        return container

    def __iter__(self) -> Iterator[Frame]:
        """The frames, numbered from 0. Raises `LocalError` for a file that breaks off."""
        numbers = itertools.count()
        started = time.monotonic()
        while True:
            yielded = False
            for pixels in self._decoded():
                number = next(numbers)
                if self._fps:
                    time.sleep(max(started + number / self._fps - time.monotonic(), 0.0))
                yield Frame(pixels, frame_id=number, captured=time.time(), pixel_format="BGR8")
                yielded = True
            if not (self._loop and yielded):
                return

    def _decoded(self) -> Iterator[NDArray[np.uint8]]:
        av = _av()
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            try:
                for frame in container.decode(video=0):
                    pixels: NDArray[np.uint8] = frame.to_ndarray(format="bgr24")
                    yield np.rot90(pixels, k=round(frame.rotation / 90) % 4)  # as a player turns it
            except av.error.FFmpegError as error:
                msg = f"{self._source} breaks off: {error}"
                raise LocalError(msg) from error


class Writer:
    """Writes frames as H.264 into the container that the path's suffix names. A context manager."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._path = path
        self._rate = rate
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        """Nothing is written before the first frame, which says the size."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Finish the file."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def write(self, rgb: NDArray[np.uint8]) -> None:
        """Add a frame, of shape (height, width, 3), RGB; all must be of one size. Raises `LocalError`."""
        av = _av()
        height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2  # H.264 takes even sizes
        if self._container is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._container = av.open(str(self._path), "w")
            except (OSError, ValueError) as error:
                msg = f"cannot write {self._path}: {error}"
                raise LocalError(msg) from error
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))

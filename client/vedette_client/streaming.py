"""Frames of a video to a server, and what became of each: what the two clients share.

Every frame that was sent comes back exactly once, in order: answered, failed or dropped. Where a live stream loses its
connection, those under way come back as dropped with CONNECTION_LOST, and it goes on with the newest frame.
"""

import collections
import itertools
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import grpc
import numpy as np
from google.protobuf import timestamp_pb2
from PIL import Image
from vedette.v1 import detection_service_pb2 as pb

from vedette_client import arguments, asking, errors, images, results
from vedette_client.asking import Options
from vedette_client.errors import ServerError
from vedette_client.images import Beside, ImageLike, Orientation, PixelFormat
from vedette_client.limits import Limits
from vedette_client.results import Result
from vedette_client.wire import Outgoing

Policy: TypeAlias = Literal["LATEST", "LOSSLESS"]

METHOD = "/vedette.v1.DetectionService/StreamDetect"
_TIMES = -62_135_596_800, 253_402_300_799  # the years 1 to 9999, in seconds since the epoch
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between two tries to connect again


@arguments.named_fields
@dataclass(frozen=True)
class Frame:
    """One image of a stream, with what `detect` takes beside an image of its kind."""

    image: ImageLike
    frame_id: int | None = None  # must grow within the stream; None: counted from 0
    captured: float | None = None  # seconds since the epoch; None: now
    pixel_format: PixelFormat | None = None  # for arrays
    orientation: Orientation | None = None  # for files and PIL images
    drop_alpha: bool = False

    def __post_init__(self) -> None:
        """Raise `LocalError` for a number that cannot be sent; what is wrong with the image fails the frame alone."""
        if self.frame_id is not None:
            arguments.whole(self.frame_id, "frame_id", -arguments.LARGEST_INT64 - 1, arguments.LARGEST_INT64)
        if self.captured is not None:
            arguments.number(self.captured, "captured", *_TIMES)


@arguments.named_fields
@dataclass(frozen=True)
class Reconfigure:
    """Among the frames: what is asked about those after it, all of it anew. Only what concerns answers can change."""

    ask: Options

    def __post_init__(self) -> None:
        """Raise `LocalError` or `TypeError` for what cannot be asked."""
        asking.check_names(self.ask)
        asking.options(self.ask)


@dataclass(frozen=True)
class Answered:
    """A frame was looked at."""

    frame_id: int
    captured: float  # seconds since the epoch
    age: float  # seconds from capture to the answer, by the server's clock
    result: Result


@dataclass(frozen=True)
class Failed:
    """A frame failed, alone."""

    frame_id: int
    error: ServerError


@dataclass(frozen=True)
class Dropped:
    """A frame was not looked at."""

    frame_id: int
    reason: str  # SUPERSEDED, EXPIRED or CONNECTION_LOST


Event: TypeAlias = Answered | Failed | Dropped
Sendable: TypeAlias = Frame | Reconfigure | ImageLike

F = TypeVar("F")


def frames_of(given: F) -> F:
    """What `stream` is given, if it can be frames. Raises `LocalError` for one image."""
    image = isinstance(given, str | bytes | bytearray | memoryview | os.PathLike | Mapping | Image.Image)
    single = isinstance(given, np.ndarray) and not given.ndim
    if image or single or not (hasattr(given, "__iter__") or hasattr(given, "__aiter__")):
        raise arguments.wrong("frames", given, "an iterable of images or Frames; one image is [image]")
    return given


class Session:
    """What a stream has sent and what it has been told, over all its connections."""

    def __init__(
        self,
        policy: object,
        stream_id: object,
        max_in_flight: object,
        beside: Beside,
        ask: Mapping[str, Any],
        known: Limits,
    ) -> None:
        model, version = asking.target(ask)
        self._config = pb.StreamConfig(
            model_name=model,
            model_version=version,
            options=asking.options(ask),
            stream_id=arguments.text(stream_id, "stream_id"),
            drop_policy=pb.DropPolicy.Value(f"DROP_POLICY_{arguments.one_of(policy, 'policy', get_args(Policy))}"),
            max_in_flight=None if max_in_flight is None else arguments.whole(max_in_flight, "max_in_flight", 1),
        )
        arguments.optional(beside.pixel_format, "pixel_format", get_args(PixelFormat))
        arguments.optional(beside.orientation, "orientation", get_args(Orientation))
        arguments.flag(beside.drop_alpha, "drop_alpha")
        self._beside = beside
        self._known = known
        self._ids = itertools.count()
        self._untold: collections.deque[int] = collections.deque()
        self._pause = _FIRST_PAUSE

    def first(self) -> Outgoing:
        """What a connection begins with."""
        return Outgoing(pb.StreamDetectRequest(config=self._config))

    def send(self, item: Sendable) -> Outgoing:
        """The message for a frame. Raises `LocalError` for an image that cannot be sent."""
        if isinstance(item, Reconfigure):
            priority = self._config.options.priority
            self._config.options.CopyFrom(asking.options(item.ask))
            self._config.options.priority = priority  # which is the stream's, for good
            return self.first()
        if isinstance(item, Frame):
            frame, beside = item, Beside(item.pixel_format, item.orientation, item.drop_alpha)
        else:
            frame, beside = Frame(item), self._beside
        declared, data = images.message(frame.image, beside, self._known)
        captured = timestamp_pb2.Timestamp()
        captured.FromNanoseconds(round((time.time() if frame.captured is None else float(frame.captured)) * 1e9))
        frame_id = next(self._ids) if frame.frame_id is None else int(frame.frame_id)
        self._untold.append(frame_id)
        message = pb.Frame(frame_id=frame_id, capture_time=captured, image=declared)
        return Outgoing(pb.StreamDetectRequest(frame=message), data)

    def read(self, response: pb.StreamDetectResponse) -> Event:
        """What a response says."""
        self._untold.popleft()
        self._pause = _FIRST_PAUSE
        match response.WhichOneof("message"):
            case "answer":
                told = response.answer
                captured = told.capture_time.ToNanoseconds() / 1e9
                result = results.result(pb.DetectResponse(answer=told.answer))
                return Answered(told.frame_id, captured, told.age_seconds, result)
            case "dropped":
                reason = results.name(pb.DropReason.Name, response.dropped.reason, "DROP_REASON_")
                return Dropped(response.dropped.frame_id, reason)
            case _:
                return Failed(response.error.frame_id, errors.from_status(response.error.status))

    def lost(self) -> Iterator[Dropped]:
        """What was under way on a connection that is gone."""
        while self._untold:
            yield Dropped(self._untold.popleft(), "CONNECTION_LOST")

    def pause(self, error: Exception) -> float | None:
        """How long to wait before connecting again, in seconds; None where that is not to be tried."""
        live = self._config.drop_policy == pb.DROP_POLICY_LATEST
        if not live or not isinstance(error, ServerError) or error.code is not grpc.StatusCode.UNAVAILABLE:
            return None
        seconds, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return max(seconds * random.uniform(0.5, 1.0), error.retry_after or 0.0)  # noqa: S311  spread, not secret

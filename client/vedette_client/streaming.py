"""Frames of a video to a server, and what became of each: what the two clients share.

Every frame that was sent comes back exactly once, in order: answered, failed or dropped. Where a live stream loses its
connection, those under way come back as dropped with CONNECTION_LOST, and it goes on with the newest frame.
"""

import collections
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import grpc
from google.protobuf import timestamp_pb2
from vedette.v1 import detection_service_pb2 as pb

from vedette_client import asking, errors, images, results
from vedette_client.asking import Ask
from vedette_client.errors import ServerError
from vedette_client.images import ImageLike, PixelFormat
from vedette_client.results import Result
from vedette_client.wire import Outgoing

Policy: TypeAlias = Literal["LATEST", "LOSSLESS"]

METHOD = "/vedette.v1.DetectionService/StreamDetect"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between two tries to connect again


@dataclass(frozen=True)
class Frame:
    """One image of a stream."""

    image: ImageLike
    frame_id: int | None = None  # must grow within the stream; None: counted from 0
    captured: float | None = None  # seconds since the epoch; None: now
    pixel_format: PixelFormat | None = None  # for arrays


@dataclass(frozen=True)
class Reconfigure:
    """Among the frames: what is asked about those after it. Only what concerns their answers can change."""

    ask: Ask


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


class Session:
    """What a stream has sent and what it has been told, over all its connections."""

    def __init__(
        self, policy: Policy, stream_id: str, max_in_flight: int | None, pixel_format: PixelFormat | None, ask: Ask
    ) -> None:
        self._config = pb.StreamConfig(
            model_name=ask.get("model", ""),
            model_version=ask.get("version", ""),
            options=asking.options(ask),
            stream_id=stream_id,
            drop_policy=pb.DropPolicy.Value(f"DROP_POLICY_{policy}"),
            max_in_flight=max_in_flight,
        )
        self._pixel_format = pixel_format
        self._ids = itertools.count()
        self._untold: collections.deque[int] = collections.deque()
        self._pause = _FIRST_PAUSE

    def first(self) -> Outgoing:
        """What a connection begins with."""
        return Outgoing(pb.StreamDetectRequest(config=self._config))

    def send(self, item: Sendable) -> Outgoing:
        """The message for a frame. Raises `LocalError` for an image that cannot be sent."""
        if isinstance(item, Reconfigure):
            self._config.options.CopyFrom(asking.options(item.ask))
            return self.first()
        frame = item if isinstance(item, Frame) else Frame(item, pixel_format=self._pixel_format)
        declared, data = images.message(frame.image, frame.pixel_format)
        captured = timestamp_pb2.Timestamp()
        captured.FromNanoseconds(round((time.time() if frame.captured is None else frame.captured) * 1e9))
        frame_id = next(self._ids) if frame.frame_id is None else frame.frame_id
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
                reason = pb.DropReason.Name(response.dropped.reason).removeprefix("DROP_REASON_")
                return Dropped(response.dropped.frame_id, reason)
            case _:
                return Failed(response.error.frame_id, errors.from_status(response.error.status))

    def lost(self) -> Iterator[Dropped]:
        """What was under way on a connection that is gone."""
        while self._untold:
            yield Dropped(self._untold.popleft(), "CONNECTION_LOST")

    def pause(self, error: ServerError) -> float | None:
        """How long to wait before connecting again, in seconds; None where that is not to be tried."""
        live = self._config.drop_policy == pb.DROP_POLICY_LATEST
        if not live or error.code is not grpc.StatusCode.UNAVAILABLE:
            return None
        seconds, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return max(seconds * random.uniform(0.5, 1.0), error.retry_after or 0.0)  # noqa: S311  spread, not secret

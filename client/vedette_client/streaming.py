"""Frames of a video to a server, and what became of each: what the two clients share.

Every frame comes back exactly once, in order: answered, failed or dropped. A connection that is lost is made again. The
frames that were under way on it then come back as dropped with CONNECTION_LOST if the stream is LATEST, and it goes on
with the newest; a LOSSLESS stream keeps frames until they are answered, and sends them again.
"""

import collections
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import grpc
import numpy as np
from google.protobuf import timestamp_pb2
from PIL import Image
from vedette.v1 import detection_service_pb2 as pb

from vedette_client import arguments, asking, errors, images, results, wire
from vedette_client.asking import Options
from vedette_client.errors import InternalError, InvalidRequest, LocalError, NoConnection, ServerError
from vedette_client.images import Beside, ImageLike, Orientation, PixelFormat
from vedette_client.limits import Limits
from vedette_client.results import Result
from vedette_client.wire import Outgoing

Policy: TypeAlias = Literal["LATEST", "LOSSLESS"]

METHOD = "/vedette.v1.DetectionService/StreamDetect"
_TIMES = -62_135_596_800, 253_402_300_799  # the years 1 to 9999, in seconds since the epoch
STALL_SECONDS = 120.0  # of silence, while frames are under way, before a connection is given up
RESUME_SECONDS = 60.0  # that a LOSSLESS stream's server may be gone
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between two tries to connect again
_LONGEST_WAIT = 365 * 24 * 3600.0  # seconds
_MOST_KEPT = 128  # frames of a LOSSLESS stream under way; the server itself takes 64 at once
_MOST_KEPT_BYTES = 256 * 2**20
_TOO_LARGE = re.compile(r"larger than max \(\d+ vs\. (\d+)\)")  # what gRPC says of a message


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
    """A frame failed, alone: in the server, or before it was sent."""

    frame_id: int
    error: ServerError | LocalError


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


@dataclass(frozen=True)
class Waits:
    """How long a stream waits for a server that says nothing, or is gone."""

    stall_seconds: float | None = STALL_SECONDS
    resume_seconds: float = RESUME_SECONDS

    def __post_init__(self) -> None:
        """Raise `LocalError` for what is no time."""
        arguments.number(self.resume_seconds, "resume_seconds", 0, _LONGEST_WAIT)
        if self.stall_seconds is not None and not arguments.number(
            self.stall_seconds, "stall_seconds", 0, _LONGEST_WAIT
        ):
            raise arguments.wrong("stall_seconds", self.stall_seconds, "more than 0 seconds, or None")


@dataclass(eq=False)
class Entry:
    """A frame on its way."""

    frame_id: int
    config: pb.StreamConfig  # under which it is asked
    message: bytes  # empty once it will not be sent again
    size: int
    failure: ServerError | LocalError | None = None  # it is not sent, or not again


class Session:
    """What a stream has sent and what it has been told, over all its connections.

    Frames are prepared by whoever reads them, sent by gRPC, and told where the caller is: three threads.
    """

    def __init__(
        self,
        policy: object,
        stream_id: object,
        max_in_flight: object,
        beside: Beside,
        ask: Mapping[str, Any],
        known: Limits,
        waits: Waits,
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
        self._first_config = self._config
        self._live = self._config.drop_policy == pb.DROP_POLICY_LATEST
        self._waits = waits
        self._ids = itertools.count()
        self._prepared: collections.deque[int] = collections.deque()  # what the caller has given, and not been told of
        self._underway: collections.deque[Entry] = collections.deque()  # of these, what a connection has taken
        self._kept_bytes = 0
        self._most_bytes: int | None = None  # of a message, as the server has told
        self._lock = threading.Lock()
        self._connection = 0
        self._sent_config: pb.StreamConfig | None = None  # on this connection
        self._connected = False  # ever
        self._accepted = False  # ever told of a frame
        self._ended = False  # the caller has no more frames, and a connection was told
        self._heard = time.monotonic()  # or began to wait
        self._lost: float | None = None  # since when nothing was heard, over all connections
        self._pause = _FIRST_PAUSE
        self.stuck = False  # the connection says nothing: another must share nothing with it

    def prepare(self, item: Sendable) -> Entry | None:
        """What a frame is sent as; None for what changes those after it. What cannot be sent has failed."""
        if isinstance(item, Reconfigure):
            config = pb.StreamConfig()
            config.CopyFrom(self._config)
            config.options.CopyFrom(asking.options(item.ask))
            config.options.priority = self._config.options.priority  # which is the stream's, for good
            self._config = config
            return None
        frame, beside = self._framed(item)
        frame_id = next(self._ids) if frame.frame_id is None else int(frame.frame_id)
        try:
            message = self._message(frame, beside, frame_id)
        except LocalError as error:
            entry = Entry(frame_id, self._config, b"", 0, error)
        else:
            entry = Entry(frame_id, self._config, message, len(message))
        self._prepared.append(frame_id)
        return entry

    def _framed(self, item: Frame | ImageLike) -> tuple[Frame, Beside]:
        if isinstance(item, Frame):
            return item, Beside(item.pixel_format, item.orientation, item.drop_alpha)
        return Frame(item), self._beside

    def _message(self, frame: Frame, beside: Beside, frame_id: int) -> bytes:
        """Written at once, as the caller may use its buffers again for the next frame. Raises `LocalError`."""
        declared, data = images.message(frame.image, beside, self._known)
        captured = timestamp_pb2.Timestamp()
        captured.FromNanoseconds(round((time.time() if frame.captured is None else float(frame.captured)) * 1e9))
        sent = pb.Frame(frame_id=frame_id, capture_time=captured, image=declared)
        return wire.serialize(Outgoing(pb.StreamDetectRequest(frame=sent), data))

    def connect(self) -> int:
        """The number of a new connection: those before it send nothing from now on."""
        with self._lock:
            self._connection += 1
            self._sent_config = None
            return self._connection

    def current(self, connection: int) -> bool:
        """Whether there is no newer connection."""
        return connection == self._connection

    def begin(self, connection: int) -> Iterator[bytes]:
        """What a connection begins with: the configuration, and what a LOSSLESS stream has under way."""
        with self._lock:
            if connection != self._connection:
                return
            again = [entry for entry in self._underway if entry.failure is None]
            config = self._sent_config = again[0].config if again else self._first_config
        yield _configuration(config)
        self._connected = True  # gRPC asks for more once it has written that
        for entry in again:
            if connection != self._connection:
                return
            yield from self._messages(entry)

    def send(self, connection: int, entry: Entry) -> list[bytes] | None:
        """Take a frame, and say what is to be written; None: the connection is no more, and the frame is the next's."""
        with self._lock:
            if connection != self._connection:
                return None
            if self._most_bytes is not None and entry.size > self._most_bytes:
                self._refuse(entry)
            if not self._underway:
                self._heard = time.monotonic()
            self._underway.append(entry)
            self._first_config = entry.config
            if entry.failure is not None:
                return []
            messages = self._messages(entry)
            if self._live:
                entry.message = b""
            self._kept_bytes += len(entry.message)
            return messages

    def _messages(self, entry: Entry) -> list[bytes]:
        messages = [entry.message]
        if entry.config is not self._sent_config:
            messages.insert(0, _configuration(entry.config))
            self._sent_config = entry.config
        return messages

    def end(self, connection: int) -> None:
        """There are no more frames, and a connection is told so."""
        with self._lock:
            self._ended = self._ended or connection == self._connection

    @property
    def has_room(self) -> bool:
        """Whether another frame may be sent: LOSSLESS keeps them all until they are answered."""
        return self._live or (len(self._underway) < _MOST_KEPT and self._kept_bytes < _MOST_KEPT_BYTES)

    def read(self, response: pb.StreamDetectResponse) -> list[Event]:
        """What a response says, between what has failed here before and after it. Raises `InternalError`."""
        event = _event(response)
        with self._lock:
            told = self._failed()
            if not self._underway or self._underway[0].frame_id != event.frame_id:
                msg = f"the server tells of frame {event.frame_id}, which was not its turn"
                raise InternalError(msg, grpc.StatusCode.INTERNAL)
            self._settle()
            self._pause, self._lost, self._accepted, self.stuck = _FIRST_PAUSE, None, True, False
            return [*told, event, *self._failed()]

    def failed(self) -> list[Event]:
        """What has failed without being sent, and whose turn it is."""
        with self._lock:
            return self._failed()

    def _failed(self) -> list[Event]:
        told: list[Event] = []
        while self._underway and (failure := self._underway[0].failure) is not None:
            told.append(Failed(self._settle().frame_id, failure))
        return told

    def _settle(self) -> Entry:
        entry = self._underway.popleft()
        self._kept_bytes -= len(entry.message)
        self._prepared.popleft()
        return entry

    def waiting(self) -> None:
        """The caller waits for an event from now on; until now it was busy with the last one."""
        self._heard = time.monotonic()

    def stall(self) -> NoConnection | None:
        """What is wrong where frames are under way and nothing has been heard for too long."""
        limit, underway = self._waits.stall_seconds, len(self._underway)
        if limit is None or not underway or time.monotonic() - self._heard <= limit:
            return None
        self.stuck = True
        msg = f"nothing was heard for {limit:g} s (stall_seconds) while {_frames(underway)} under way"
        return NoConnection(msg, grpc.StatusCode.UNAVAILABLE)

    @property
    def over(self) -> bool:
        """Whether everything was sent and told, so that a connection that ends has done its part."""
        with self._lock:
            return self._ended and not self._underway

    def lost(self) -> list[Event]:
        """What is told of a connection that is gone: of a LATEST stream, what was under way."""
        told: list[Event] = []
        with self._lock:
            while self._live and self._underway:
                entry = self._settle()
                told.append(
                    Failed(entry.frame_id, entry.failure)
                    if entry.failure
                    else Dropped(entry.frame_id, "CONNECTION_LOST")
                )
        return told

    def resume(self, error: Exception) -> float | None:
        """How long to wait before connecting again, in seconds; None where that is not to be tried."""
        if not isinstance(error, ServerError) or not self._connected:
            return None
        if self._too_large(error):
            return 0.0
        if not _is_loss(error) and not (self._accepted and error.reason == "TOO_MANY_STREAMS"):  # its own old one
            return None
        now = time.monotonic()
        self._lost = now if self._lost is None else self._lost
        left = self._lost + self._waits.resume_seconds - now
        patient = self._live and self._accepted
        if not patient and left <= 0:
            return None
        seconds, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        pause = max(seconds * random.uniform(0.5, 1.0), error.retry_after or 0.0)  # noqa: S311  spread, not secret
        return pause if patient else min(pause, left)

    def _too_large(self, error: ServerError) -> bool:
        """Fail the frames that were too large for gRPC itself, if it was that: they must not end the stream."""
        said = _TOO_LARGE.search(error.message) if isinstance(error, InvalidRequest) and not error.reason else None
        if said is None:
            return False
        with self._lock:
            self._most_bytes = int(said[1])
            large = [entry for entry in self._underway if not entry.failure and entry.size > self._most_bytes]
            for entry in large:
                self._refuse(entry)
            return bool(large)

    def _refuse(self, entry: Entry) -> None:
        msg = f"the request is larger than the server takes ({entry.size} bytes; at most {self._most_bytes})"
        entry.failure = InvalidRequest(msg, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self._kept_bytes -= len(entry.message) if entry in self._underway else 0
        entry.message = b""

    def give_up(self, error: Exception) -> Exception:
        """The error that ends the stream, with the frames that were given and not told of."""
        if isinstance(error, ServerError):
            error.unanswered = tuple(self._prepared)
        return error


def _configuration(config: pb.StreamConfig) -> bytes:
    return wire.serialize(Outgoing(pb.StreamDetectRequest(config=config)))


def _frames(number: int) -> str:
    return "1 frame was" if number == 1 else f"{number} frames were"


def _event(response: pb.StreamDetectResponse) -> Event:
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


_LOSSES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,  # RST_STREAM of a proxy or a dying server
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a proxy's own
)


def _is_loss(error: ServerError) -> bool:
    """Whether a connection was lost, or can be had later: not what the server itself refuses for good."""
    if isinstance(error, InvalidRequest):  # whatever its code: gRPC's own word of a request that nobody could read
        return False
    return error.code is grpc.StatusCode.UNAVAILABLE if error.reason else error.code in _LOSSES

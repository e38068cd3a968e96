"""The state of a stream, shared by both clients: frames sent to a server, and the fate of each.

Every frame comes back exactly once, in order: answered, failed or dropped. A lost connection is restored. The frames in
flight on it are then dropped with CONNECTION_LOST in a LATEST stream, which continues with the newest. A LOSSLESS
stream keeps frames until they are answered, and sends them again.
"""

import collections
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
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
STALL_SECONDS = 120.0  # of silence, while frames are in flight, before a connection is abandoned
RESUME_SECONDS = 60.0  # that a LOSSLESS stream's server may be gone
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts to reconnect
_LONGEST_WAIT = 365 * 24 * 3600.0  # seconds
_MOST_KEPT = 128  # frames of a LOSSLESS stream in flight; the server itself takes 64 at once
_MOST_KEPT_BYTES = 256 * 2**20
_TOO_LARGE = re.compile(r"larger than max \(\d+ vs\. (\d+)\)")  # gRPC's error for a large message


@arguments.named_fields
@dataclass(frozen=True)
class Frame:
    """An image in a stream, with the options that `detect` takes for its kind."""

    image: ImageLike
    _: KW_ONLY
    frame_id: int | None = None  # must increase within the stream; None: counted from 0
    captured: float | None = None  # seconds since the epoch; None: now
    pixel_format: PixelFormat | None = None  # for arrays
    orientation: Orientation | None = None  # for files and PIL images
    drop_alpha: bool = False

    def __post_init__(self) -> None:
        """Raise `LocalError` for an invalid number; a faulty image only fails its own frame."""
        if self.frame_id is not None:
            arguments.whole(self.frame_id, "frame_id", -arguments.LARGEST_INT64 - 1, arguments.LARGEST_INT64)
        if self.captured is not None:
            arguments.number(self.captured, "captured", *_TIMES)


@arguments.named_fields
@dataclass(frozen=True)
class Reconfigure:
    """New options for the following frames, replacing all previous ones. Only options about answers can change."""

    ask: Options

    def __post_init__(self) -> None:
        """Raise `LocalError` or `TypeError` for invalid options."""
        asking.check_names(self.ask)
        asking.options(self.ask)


@dataclass(frozen=True)
class Answered:
    """A frame was answered."""

    frame_id: int
    captured: float  # seconds since the epoch
    age: float  # seconds from capture to answer, by the server's clock
    result: Result


@dataclass(frozen=True)
class Failed:
    """A single frame failed: in the server, or before it was sent."""

    frame_id: int
    error: ServerError | LocalError


@dataclass(frozen=True)
class Dropped:
    """A frame was dropped without an answer."""

    frame_id: int
    reason: str  # SUPERSEDED, EXPIRED or CONNECTION_LOST


Event: TypeAlias = Answered | Failed | Dropped
Sendable: TypeAlias = Frame | Reconfigure | ImageLike

F = TypeVar("F")


def frames_of(given: F) -> F:
    """Validate the argument of `stream`. Raises `LocalError` for a single image."""
    image = isinstance(given, str | bytes | bytearray | memoryview | os.PathLike | Mapping | Image.Image)
    single = isinstance(given, np.ndarray) and not given.ndim
    if image or single or not (hasattr(given, "__iter__") or hasattr(given, "__aiter__")):
        raise arguments.wrong("frames", given, "an iterable of images or Frames; one image is [image]")
    return given


@dataclass(frozen=True)
class Waits:
    """Timeouts of a stream for a server that is silent or gone."""

    stall_seconds: float | None = STALL_SECONDS
    resume_seconds: float = RESUME_SECONDS

    def __post_init__(self) -> None:
        """Raise `LocalError` for an invalid time."""
        arguments.number(self.resume_seconds, "resume_seconds", 0, _LONGEST_WAIT)
        if self.stall_seconds is not None and not arguments.number(
            self.stall_seconds, "stall_seconds", 0, _LONGEST_WAIT
        ):
            raise arguments.wrong("stall_seconds", self.stall_seconds, "more than 0 seconds, or None")


@dataclass(eq=False, kw_only=True)
class Entry:
    """A frame on its way."""

    frame_id: int
    config: pb.StreamConfig  # configuration under which it is sent
    message: bytes  # empty once it will not be sent again
    size: int
    failure: ServerError | LocalError | None = None  # set if it is not sent, or not again


class Session:
    """The frames that a stream has sent and the events it has received, over all its connections.

    Three threads are involved: frames are prepared by their reader, sent by gRPC, and reported in the caller. It is
    long because they share one state under one lock: a frame is kept, sent, refused and settled by the same two queues.
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
        self._prepared: collections.deque[int] = collections.deque()  # ids of frames from the caller without an event
        self._underway: collections.deque[Entry] = collections.deque()  # of those, the ones a connection has taken
        self._kept_bytes = 0
        self._most_bytes: int | None = None  # per message, as reported by the server
        self._lock = threading.Lock()
        self._connection = 0
        self._sent_config: pb.StreamConfig | None = None  # on this connection
        self._connected = False  # at any time
        self._accepted = False  # has ever received an event
        self._ended = False  # the caller has no more frames, and a connection was told
        self._heard = time.monotonic()  # last message, or start of waiting
        self._lost: float | None = None  # start of the silence, over all connections
        self._pause = _FIRST_PAUSE
        self.stuck = False  # the connection is silent, so another must not share it

    def prepare(self, item: Sendable) -> Entry | None:
        """Prepare a frame for sending; None for a `Reconfigure`. A frame that cannot be sent becomes a failed entry."""
        if isinstance(item, Reconfigure):
            config = pb.StreamConfig()
            config.CopyFrom(self._config)
            config.options.CopyFrom(asking.options(item.ask))
            config.options.priority = self._config.options.priority  # fixed for the whole stream
            self._config = config
            return None
        frame, beside = self._framed(item)
        frame_id = next(self._ids) if frame.frame_id is None else int(frame.frame_id)
        try:
            message = self._message(frame, beside, frame_id)
        except LocalError as error:
            entry = Entry(frame_id=frame_id, config=self._config, message=b"", size=0, failure=error)
        else:
            entry = Entry(frame_id=frame_id, config=self._config, message=message, size=len(message))
        self._prepared.append(frame_id)
        return entry

    def _framed(self, item: Frame | ImageLike) -> tuple[Frame, Beside]:
        if isinstance(item, Frame):
            return item, Beside(item.pixel_format, item.orientation, item.drop_alpha)
        return Frame(item), self._beside

    def _message(self, frame: Frame, beside: Beside, frame_id: int) -> bytes:
        """Serialise a frame immediately, because the caller may reuse its buffers. Raises `LocalError`."""
        declared, data = images.message(frame.image, beside, self._known)
        captured = timestamp_pb2.Timestamp()
        captured.FromNanoseconds(round((time.time() if frame.captured is None else float(frame.captured)) * 1e9))
        sent = pb.Frame(frame_id=frame_id, capture_time=captured, image=declared)
        return wire.serialize(Outgoing(pb.StreamDetectRequest(frame=sent), data))

    def connect(self) -> int:
        """Register a new connection, and return its number. Previous ones send nothing from now on."""
        with self._lock:
            self._connection += 1
            self._sent_config = None
            return self._connection

    def current(self, connection: int) -> bool:
        """Return whether this is the newest connection."""
        return connection == self._connection

    def begin(self, connection: int) -> Iterator[bytes]:
        """Yield the first messages of a connection: the configuration, and a LOSSLESS stream's frames in flight."""
        with self._lock:
            if connection != self._connection:
                return
            again = [entry for entry in self._underway if entry.failure is None]
            config = self._sent_config = again[0].config if again else self._first_config
        yield _configuration(config)
        self._connected = True  # gRPC asks for more after writing the configuration
        for entry in again:
            if connection != self._connection:
                return
            yield from self._messages(entry)

    def send(self, connection: int, entry: Entry) -> list[bytes] | None:
        """Take a frame and return its messages; None if the connection was replaced: the next gets the frame."""
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
        """Note that there are no more frames, and that the connection was told."""
        with self._lock:
            self._ended = self._ended or connection == self._connection

    @property
    def has_room(self) -> bool:
        """True if another frame may be sent: LOSSLESS keeps frames until they are answered."""
        return self._live or (len(self._underway) < _MOST_KEPT and self._kept_bytes < _MOST_KEPT_BYTES)

    def read(self, response: pb.StreamDetectResponse) -> list[Event]:
        """Return the event in a response, and local failures before and after it. Raises `InternalError`."""
        event = _event(response)
        with self._lock:
            told = self._failed()
            if not self._underway or self._underway[0].frame_id != event.frame_id:
                msg = f"the server reported frame {event.frame_id} out of turn"
                raise InternalError(msg, grpc.StatusCode.INTERNAL)
            self._settle()
            self._pause, self._lost, self._accepted, self.stuck = _FIRST_PAUSE, None, True, False
            return [*told, event, *self._failed()]

    def failed(self) -> list[Event]:
        """Return failures of unsent frames whose turn it is."""
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
        """Note that the caller waits for an event again, after handling the last one."""
        self._heard = time.monotonic()

    def stall(self) -> NoConnection | None:
        """Return the error if frames are in flight and nothing was received for too long."""
        limit, underway = self._waits.stall_seconds, len(self._underway)
        if limit is None or not underway or time.monotonic() - self._heard <= limit:
            return None
        self.stuck = True
        msg = f"nothing was received for {limit:g} s (stall_seconds) while {_frames(underway)} in flight"
        return NoConnection(msg, grpc.StatusCode.UNAVAILABLE)

    @property
    def over(self) -> bool:
        """True if everything was sent and reported, so that the connection may end."""
        with self._lock:
            return self._ended and not self._underway

    def lost(self) -> list[Event]:
        """Return the events for a lost connection: a LATEST stream's frames in flight."""
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
        """Return the seconds to wait before reconnecting; None if that must not be tried."""
        if not isinstance(error, ServerError) or not self._connected:
            return None
        if self._too_large(error):
            return 0.0
        if not _is_loss(error) and not (
            self._accepted and error.reason == "TOO_MANY_STREAMS"
        ):  # of its own previous call
            return None
        now = time.monotonic()
        self._lost = now if self._lost is None else self._lost
        left = self._lost + self._waits.resume_seconds - now
        patient = self._live and self._accepted
        if not patient and left <= 0:
            return None
        seconds, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        pause = max(seconds * random.uniform(0.5, 1.0), error.retry_after or 0.0)  # noqa: S311  jitter, not security
        return pause if patient else min(pause, left)

    def _too_large(self, error: ServerError) -> bool:
        """Fail the frames that exceeded gRPC's own limit, so that they do not end the stream."""
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
        msg = f"the request is larger than the server accepts ({entry.size} bytes; at most {self._most_bytes})"
        entry.failure = InvalidRequest(msg, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self._kept_bytes -= len(entry.message) if entry in self._underway else 0
        entry.message = b""

    def give_up(self, error: Exception) -> Exception:
        """Return the error that ends the stream, with the ids of unanswered frames."""
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
    grpc.StatusCode.INTERNAL,  # RST_STREAM from a proxy or a dying server
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # from a proxy
)


def _is_loss(error: ServerError) -> bool:
    """Return whether a connection was lost or is unavailable for now, as opposed to a final refusal by the server."""
    if isinstance(error, InvalidRequest):  # whatever its code: gRPC's own error for an unreadable request
        return False
    return error.code is grpc.StatusCode.UNAVAILABLE if error.reason else error.code in _LOSSES

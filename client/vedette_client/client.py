"""The two clients: `Client` blocks, `AsyncClient` awaits. They build and read messages in the same way."""

import asyncio
import functools
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, get_args

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub

from vedette_client import arguments, asking, errors, results, streams, wire
from vedette_client.address import DEFAULT_ADDRESS
from vedette_client.asking import Ask, StreamAsk
from vedette_client.channel import KEEPALIVE_SECONDS, SERVICE, Endpoint, LoadBalancing
from vedette_client.errors import LocalError
from vedette_client.images import Beside, ImageLike, Orientation, PixelFormat
from vedette_client.limits import Limits, Remembered
from vedette_client.pumps import AsyncPump, Pump
from vedette_client.results import Contract, Diagnosis, Model, Result
from vedette_client.security import Tls
from vedette_client.streaming import RESUME_SECONDS, STALL_SECONDS, Event, Policy, Sendable, Session, Waits, frames_of

DEFAULT_TIMEOUT = 30.0  # seconds
DIAGNOSE_TIMEOUT = 600.0  # seconds; the server diagnoses slowly while there is traffic
_CLOSED = "this client was closed: create another"
_LONGEST_TIMEOUT = 365 * 24 * 3600.0  # seconds; gRPC treats far longer ones as no timeout

T = TypeVar("T")


def _serving(response: health_pb2.HealthCheckResponse) -> bool:
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


class _Caller:
    """The state of both clients: server, timeout, and whether they are closed."""

    def __init__(
        self,
        address: str,
        timeout: float,
        load_balancing: LoadBalancing,
        keepalive_seconds: float | None,
        tls: Tls | None,
        token: str | None,
    ) -> None:
        if keepalive_seconds is not None and not arguments.number(keepalive_seconds, "keepalive_seconds", 0, 86_400):
            raise arguments.wrong("keepalive_seconds", keepalive_seconds, "more than 0 seconds, or None")
        arguments.one_of(load_balancing, "load_balancing", get_args(LoadBalancing))
        self._endpoint = Endpoint.of(arguments.text(address, "address"), keepalive_seconds, tls, token, load_balancing)
        self._shown = self._endpoint.security.metadata
        self._timeout = arguments.number(timeout, "timeout", 0, _LONGEST_TIMEOUT)
        if not self._timeout:
            raise arguments.wrong("timeout", timeout, "more than 0 seconds")
        self._remembered = Remembered()
        self._closed = False
        self._alone: weakref.WeakSet[Any] = weakref.WeakSet()  # separate channels of streams whose first one was stuck

    def _check_open(self) -> None:
        if self._closed:
            raise LocalError(_CLOSED)

    def _failure(self, error: Exception) -> Exception:
        """Convert gRPC's error. For a call in flight when the client was closed, report that instead."""
        if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):  # gRPC's own error about a closed channel
            return LocalError(_CLOSED) if self._closed else error
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return LocalError(_CLOSED)
        return errors.from_rpc(error, self._endpoint)


class Client(_Caller):
    """A blocking client. Use it as a context manager, from any number of threads.

    `address` is HOST:PORT, grpcs://HOST:PORT or unix:PATH; the default port is 8001. `timeout` is in seconds. A server
    that is silent for `keepalive_seconds` is pinged, and considered gone after half as many more; None disables that.
    With grpcs:// or `tls`, the connection uses TLS. `token` identifies the caller, and is sent over TLS or within this
    machine only. If either is None, the environment applies: VEDETTE_TOKEN, VEDETTE_TLS_CA, VEDETTE_TLS_CLIENT_CERT
    and VEDETTE_TLS_CLIENT_KEY. Every method raises `ServerError` for a failed call, and
    `LocalError` for an invalid one.

    The address may stand for several servers: a name that resolves to them, or IP addresses separated by commas. The
    `load_balancing` pick_first uses the first that can be reached, until it is lost. With round_robin, calls and
    streams take turns over all servers whose models answer.
    """

    @arguments.named
    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        load_balancing: LoadBalancing = "pick_first",
        keepalive_seconds: float | None = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(address, timeout, load_balancing, keepalive_seconds, tls, token)
        self._channel = self._endpoint.open()
        self._stub = DetectionServiceStub(self._channel)
        self._detect: Callable[..., pb.DetectResponse] = self._channel.unary_unary(
            f"/{SERVICE}/Detect", wire.serialize, pb.DetectResponse.FromString
        )
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        """Return the client, which connects at the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        for channel in (self._channel, *self._alone):
            channel.close()

    @arguments.named
    def detect(
        self,
        image: ImageLike,
        *,
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        **ask: Unpack[Ask],
    ) -> Result:
        """Detect objects in one image.

        `image` is a path, a file's bytes, a PIL image, an array with its `pixel_format`, or a `File`, `Raw` or `Tensor`
        with further details. Files and PIL images are turned upright by their EXIF data, unless `orientation` says
        otherwise; `drop_alpha` ignores transparency. See `Ask` for the options. Raises `LocalError` for an image that
        cannot be sent.
        """
        beside = Beside(pixel_format, orientation, drop_alpha)
        return results.result(self._call(self._detect, asking.request(image, beside, ask, self._limits(ask))))

    @arguments.named
    def stream(  # noqa: PLR0913  keywords
        self,
        frames: Iterable[Sendable],
        *,
        policy: Policy,
        stream_id: str = "",
        max_in_flight: int | None = None,
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        stall_seconds: float | None = STALL_SECONDS,
        resume_seconds: float = RESUME_SECONDS,
        **ask: Unpack[StreamAsk],
    ) -> Iterator[Event]:
        """Send the frames of a video, and yield an event for each, in order.

        A separate thread reads `frames`: images as for `detect`, `Frame`s, and `Reconfigure`s between them.
        `pixel_format`, `orientation` and `drop_alpha` apply to images that are not `Frame`s. A frame that cannot be
        sent yields `Failed` in its place. An exception of `frames` is raised after the answers so far. A generator is
        closed when the stream ends.

        LATEST is for live video: the newest frame is processed, older ones are dropped, and a lost connection is
        restored. LOSSLESS is for files: every frame is answered, and `frames` is read no faster. After a lost
        connection, unanswered frames are sent again, unless the server is gone for more than `resume_seconds`; with 0,
        the loss is raised.

        A connection without any message for `stall_seconds`, while frames are in flight, is considered lost; None waits
        forever. An error that ends the stream lists unanswered frames in `unanswered`. A stream whose first connection
        fails is not retried.
        """
        self._check_open()
        beside = Beside(pixel_format, orientation, drop_alpha)
        waits = Waits(stall_seconds, resume_seconds)
        session = Session(policy, stream_id, max_in_flight, beside, ask, self._limits(ask), waits)
        pump = Pump(frames_of(frames), session)
        return streams.run(pump, session, self._channel, self._open_alone, self._failure, self._shown)

    def _open_alone(self) -> grpc.Channel:
        self._check_open()
        self._alone.add(channel := self._endpoint.open(alone=True))
        return channel

    @arguments.named
    def models(self) -> list[Model]:
        """Return all served models."""
        return [results.model(item) for item in self._call(self._stub.ListModels, pb.ListModelsRequest()).models]

    @arguments.named
    def model(self, name: str = "", version: str = "") -> Model:
        """Return one model."""
        request = asking.about_model(name, version)
        return results.model(self._call(self._stub.GetModel, request).model)

    @arguments.named
    def diagnose(
        self,
        image: ImageLike | None = None,
        *,
        stream_id: str = "",
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        **ask: Unpack[StreamAsk],
    ) -> Diagnosis:
        """Find out why an image yields no detections, by undoing each known mistake.

        Without an image, it uses the last empty frame of `stream_id` that the server itself examined; without a stream,
        the last empty single image. It can take minutes on a busy server. Only boxes matter: `outputs`, `mask_format`
        and `priority` have no effect.
        """
        beside = Beside(pixel_format, orientation, drop_alpha)
        request = asking.diagnosis(image, beside, stream_id, ask, self._limits(ask))
        return results.diagnosis(self._call(self._stub.Diagnose, request, DIAGNOSE_TIMEOUT))

    def healthy(self) -> bool:
        """Return whether every model answers. With round_robin, a server where one does not is not even asked."""
        return _serving(self._call(self._health.Check, health_pb2.HealthCheckRequest()))

    def _limits(self, ask: Mapping[str, Any]) -> Limits:
        """Return a function that fetches the model's contract, unless it is remembered."""
        return lambda: self._remembered.get(ask, lambda: self.model(*asking.target(ask)).contract)

    def _call(self, method: Callable[..., T], request: object, timeout: float | None = None) -> T:
        self._check_open()
        try:
            return method(request, timeout=timeout or self._timeout, metadata=self._shown)
        except (grpc.RpcError, ValueError) as error:
            raise self._failure(error) from error


class AsyncClient(_Caller):
    """The asynchronous counterpart of `Client`, for one event loop, with the same methods.

    Slow preparation of an image (reading a file, decoding, compressing) runs in a thread.
    """

    @arguments.named
    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        load_balancing: LoadBalancing = "pick_first",
        keepalive_seconds: float | None = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(address, timeout, load_balancing, keepalive_seconds, tls, token)
        self._loop: asyncio.AbstractEventLoop | None = None

    @functools.cached_property
    def _opened(self) -> grpc.aio.Channel:
        """The channel, opened in the event loop that uses it."""
        self._loop = asyncio.get_running_loop()
        return self._endpoint.open_async()

    @property
    def _channel(self) -> grpc.aio.Channel:
        self._check_open()
        channel = self._opened
        if self._loop is not asyncio.get_running_loop():
            msg = "this client belongs to another event loop: create one in each"
            raise LocalError(msg)
        return channel

    async def __aenter__(self) -> Self:
        """Return the client, which connects at the first call."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        for channel in (*filter(None, [self.__dict__.get("_opened")]), *self._alone):
            await channel.close()

    @arguments.named
    async def detect(
        self,
        image: ImageLike,
        *,
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        **ask: Unpack[Ask],
    ) -> Result:
        """Detect objects in one image; see `Client.detect`."""
        beside = Beside(pixel_format, orientation, drop_alpha)
        request = await asyncio.to_thread(asking.request, image, beside, ask, self._limits(ask))
        detect: Any = self._channel.unary_unary(f"/{SERVICE}/Detect", wire.serialize, pb.DetectResponse.FromString)
        return results.result(await self._call(detect, request))

    @arguments.named
    def stream(  # noqa: PLR0913  keywords
        self,
        frames: AsyncIterable[Sendable] | Iterable[Sendable],
        *,
        policy: Policy,
        stream_id: str = "",
        max_in_flight: int | None = None,
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        stall_seconds: float | None = STALL_SECONDS,
        resume_seconds: float = RESUME_SECONDS,
        **ask: Unpack[StreamAsk],
    ) -> AsyncIterator[Event]:
        """Send the frames of a video, and yield an event for each; see `Client.stream`.

        A separate thread reads ordinary iterables, so they may block.
        """
        self._check_open()
        beside, waits = Beside(pixel_format, orientation, drop_alpha), Waits(stall_seconds, resume_seconds)
        session = Session(policy, stream_id, max_in_flight, beside, ask, self._limits(ask), waits)
        pump = AsyncPump(frames_of(frames), session)
        return streams.run_async(pump, session, self._channel, self._open_alone, self._failure, self._shown)

    def _open_alone(self) -> grpc.aio.Channel:
        self._check_open()
        self._alone.add(channel := self._endpoint.open_async(alone=True))
        return channel

    @arguments.named
    async def models(self) -> list[Model]:
        """Return all served models."""
        listed = await self._call(DetectionServiceStub(self._channel).ListModels, pb.ListModelsRequest())
        return [results.model(item) for item in listed.models]

    @arguments.named
    async def model(self, name: str = "", version: str = "") -> Model:
        """Return one model."""
        request = asking.about_model(name, version)
        return results.model((await self._call(DetectionServiceStub(self._channel).GetModel, request)).model)

    @arguments.named
    async def diagnose(
        self,
        image: ImageLike | None = None,
        *,
        stream_id: str = "",
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        **ask: Unpack[StreamAsk],
    ) -> Diagnosis:
        """Find out why an image yields no detections; see `Client.diagnose`."""
        beside = Beside(pixel_format, orientation, drop_alpha)
        request = await asyncio.to_thread(asking.diagnosis, image, beside, stream_id, ask, self._limits(ask))
        call = DetectionServiceStub(self._channel).Diagnose
        return results.diagnosis(await self._call(call, request, DIAGNOSE_TIMEOUT))

    async def healthy(self) -> bool:
        """Return whether every model answers."""
        health = health_pb2_grpc.HealthStub(self._channel)
        return _serving(await self._call(health.Check, health_pb2.HealthCheckRequest()))

    async def _call(
        self,
        method: Callable[..., Awaitable[T]],
        request: object,
        timeout: float | None = None,  # noqa: ASYNC109  gRPC's own
    ) -> T:
        try:
            return await method(request, timeout=timeout or self._timeout, metadata=self._shown)
        except asyncio.CancelledError:
            self._check_open()
            raise
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            raise self._failure(error) from error

    def _limits(self, ask: Mapping[str, Any]) -> Limits:
        """Return a function that fetches the model's contract, for a thread that prepares an image."""

        def contract() -> Contract:
            asked = asyncio.run_coroutine_threadsafe(self.model(*asking.target(ask)), loop)
            return asked.result().contract

        loop = asyncio.get_running_loop()
        return lambda: self._remembered.get(ask, contract)

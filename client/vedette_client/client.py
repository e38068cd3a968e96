"""The two clients: `Client` blocks, `AsyncClient` awaits. They share how messages are built and read."""

import asyncio
import functools
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub

from vedette_client import arguments, asking, errors, results, streams, wire
from vedette_client.address import DEFAULT_ADDRESS
from vedette_client.asking import Ask, StreamAsk
from vedette_client.channel import KEEPALIVE_SECONDS, SERVICE, Endpoint
from vedette_client.errors import LocalError
from vedette_client.images import Beside, ImageLike, Orientation, PixelFormat
from vedette_client.limits import Limits, Remembered
from vedette_client.pumps import AsyncPump, Pump
from vedette_client.results import Contract, Diagnosis, Model, Result
from vedette_client.security import Tls
from vedette_client.streaming import RESUME_SECONDS, STALL_SECONDS, Event, Policy, Sendable, Session, Waits, frames_of

DEFAULT_TIMEOUT = 30.0  # seconds
DIAGNOSE_TIMEOUT = 600.0  # seconds; beside traffic the server takes its time
_CLOSED = "this client was closed: make another"
_LONGEST_TIMEOUT = 365 * 24 * 3600.0  # seconds; gRPC counts far longer ones as none at all

T = TypeVar("T")


def _serving(response: health_pb2.HealthCheckResponse) -> bool:
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


class _Caller:
    """What both clients know: whom they call, how long they wait, and whether they are closed."""

    def __init__(
        self, address: str, timeout: float, keepalive_seconds: float | None, tls: Tls | None, token: str | None
    ) -> None:
        if keepalive_seconds is not None and not arguments.number(keepalive_seconds, "keepalive_seconds", 0, 86_400):
            raise arguments.wrong("keepalive_seconds", keepalive_seconds, "more than 0 seconds, or None")
        self._endpoint = Endpoint.of(arguments.text(address, "address"), keepalive_seconds, tls, token)
        self._shown = self._endpoint.security.metadata
        self._timeout = arguments.number(timeout, "timeout", 0, _LONGEST_TIMEOUT)
        if not self._timeout:
            raise arguments.wrong("timeout", timeout, "more than 0 seconds")
        self._remembered = Remembered()
        self._closed = False
        self._alone: weakref.WeakSet[Any] = weakref.WeakSet()  # channels of streams whose first one was stuck

    def _check_open(self) -> None:
        if self._closed:
            raise LocalError(_CLOSED)

    def _failure(self, error: Exception) -> Exception:
        """Our error of gRPC's. Of a call that was under way when the client was closed, that."""
        if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):  # gRPC's own, about a closed channel
            return LocalError(_CLOSED) if self._closed else error
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return LocalError(_CLOSED)
        return errors.from_rpc(error, self._endpoint)


class Client(_Caller):
    """Calls a server and waits for its answers. Use it as a context manager, from any number of threads.

    `address` is HOST:PORT, grpcs://HOST:PORT or unix:PATH; without a port it is 8001. `timeout` is in seconds. A server
    that shows no sign of life for `keepalive_seconds`, and half as many more after it was asked for one, is taken for
    gone; None asks for none. With grpcs:// or `tls` the connection is TLS's. `token` says who calls, and travels by TLS
    or on this machine alone. Where either is None, the environment is asked: VEDETTE_TOKEN, VEDETTE_TLS_CA,
    VEDETTE_TLS_CLIENT_CERT and VEDETTE_TLS_CLIENT_KEY. Every method raises `ServerError` for a failed call, and
    `LocalError` for what cannot be asked.
    """

    @arguments.named
    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        keepalive_seconds: float | None = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(address, timeout, keepalive_seconds, tls, token)
        self._channel = self._endpoint.open()
        self._stub = DetectionServiceStub(self._channel)
        self._detect: Callable[..., pb.DetectResponse] = self._channel.unary_unary(
            f"/{SERVICE}/Detect", wire.serialize, pb.DetectResponse.FromString
        )
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        """Nothing is connected until the first call."""
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
        """Find objects in one image.

        It is a path, a file's bytes, a PIL image, an array with its `pixel_format`, or a `File`, `Raw` or `Tensor`,
        which say more about it. Files and PIL images are turned upright by their EXIF data, unless `orientation` says
        otherwise; `drop_alpha` has transparency ignored. `Ask` lists what can be asked. Raises `LocalError` for an
        image that cannot be sent.
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
        """Send the frames of a video, and yield what became of each, in their order.

        `frames` is read by a thread of its own: images as `detect` takes them, or `Frame`s, and `Reconfigure`s between
        them; `pixel_format`, `orientation` and `drop_alpha` are those of images that are no `Frame`s. One that cannot
        be sent is a `Failed` in its turn; what `frames` itself raises is raised after the answers so far. A generator
        is closed when the stream is left. LATEST is for live video: what is looked at is the newest frame there is,
        older ones are dropped, and a lost connection is made again. LOSSLESS is for files: every frame is answered,
        `frames` is read no faster, and what a lost connection has left unanswered is sent again, for as long as the
        server is not gone for more than `resume_seconds`; with 0 its loss is raised.

        A connection on which nothing comes for `stall_seconds`, while frames are under way, is taken for lost; None
        waits for ever. An error that ends the stream names what was not answered, in `unanswered`. A stream whose very
        first connection fails is not tried again.
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
        """Everything that is served."""
        return [results.model(item) for item in self._call(self._stub.ListModels, pb.ListModelsRequest()).models]

    @arguments.named
    def model(self, name: str = "", version: str = "") -> Model:
        """One model."""
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
        """Find out why an image gives nothing: it is tried with each known mistake undone.

        Without an image, the empty frame of `stream_id` that the server itself has looked into last; without a stream
        either, the last of the images that came one by one. It can take minutes on a busy server. Only boxes are looked
        at: `outputs`, `mask_format` and `priority` change nothing.
        """
        beside = Beside(pixel_format, orientation, drop_alpha)
        request = asking.diagnosis(image, beside, stream_id, ask, self._limits(ask))
        return results.diagnosis(self._call(self._stub.Diagnose, request, DIAGNOSE_TIMEOUT))

    def healthy(self) -> bool:
        """Whether every model answers."""
        return _serving(self._call(self._health.Check, health_pb2.HealthCheckRequest()))

    def _limits(self, ask: Mapping[str, Any]) -> Limits:
        """Asks for the contract of the model that is asked, where it is not remembered."""
        return lambda: self._remembered.get(ask, lambda: self.model(*asking.target(ask)).contract)

    def _call(self, method: Callable[..., T], request: object, timeout: float | None = None) -> T:
        self._check_open()
        try:
            return method(request, timeout=timeout or self._timeout, metadata=self._shown)
        except (grpc.RpcError, ValueError) as error:
            raise self._failure(error) from error


class AsyncClient(_Caller):
    """The asynchronous twin of `Client`, for one event loop; the same methods, awaited.

    What takes its time before an image is sent (reading a file, decoding, compressing) is done in a thread.
    """

    @arguments.named
    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        keepalive_seconds: float | None = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(address, timeout, keepalive_seconds, tls, token)
        self._loop: asyncio.AbstractEventLoop | None = None

    @functools.cached_property
    def _opened(self) -> grpc.aio.Channel:
        """Opened within the event loop that uses it."""
        self._loop = asyncio.get_running_loop()
        return self._endpoint.open_async()

    @property
    def _channel(self) -> grpc.aio.Channel:
        self._check_open()
        channel = self._opened
        if self._loop is not asyncio.get_running_loop():
            msg = "this client belongs to another event loop: make one within each"
            raise LocalError(msg)
        return channel

    async def __aenter__(self) -> Self:
        """Nothing is connected until the first call."""
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
        """Find objects in one image; see `Client.detect`."""
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
        """Send the frames of a video, and yield what became of each; see `Client.stream`.

        An ordinary iterable is read by a thread of its own, so that it may take its time.
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
        """Everything that is served."""
        listed = await self._call(DetectionServiceStub(self._channel).ListModels, pb.ListModelsRequest())
        return [results.model(item) for item in listed.models]

    @arguments.named
    async def model(self, name: str = "", version: str = "") -> Model:
        """One model."""
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
        """Find out why an image gives nothing; see `Client.diagnose`."""
        beside = Beside(pixel_format, orientation, drop_alpha)
        request = await asyncio.to_thread(asking.diagnosis, image, beside, stream_id, ask, self._limits(ask))
        call = DetectionServiceStub(self._channel).Diagnose
        return results.diagnosis(await self._call(call, request, DIAGNOSE_TIMEOUT))

    async def healthy(self) -> bool:
        """Whether every model answers."""
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
        """The same as `Client`'s, for a thread that prepares an image meanwhile."""

        def contract() -> Contract:
            asked = asyncio.run_coroutine_threadsafe(self.model(*asking.target(ask)), loop)
            return asked.result().contract

        loop = asyncio.get_running_loop()
        return lambda: self._remembered.get(ask, contract)

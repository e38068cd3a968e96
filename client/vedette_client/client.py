"""The two clients: `Client` blocks, `AsyncClient` awaits. They share how messages are built and read."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub

from vedette_client import arguments, asking, errors, results, wire
from vedette_client.asking import Ask, StreamAsk
from vedette_client.errors import LocalError
from vedette_client.images import Beside, ImageLike, Orientation, PixelFormat
from vedette_client.limits import Limits, Remembered
from vedette_client.pumps import AsyncPump, Pump
from vedette_client.results import Contract, Diagnosis, Model, Result
from vedette_client.streaming import METHOD, Event, Policy, Sendable, Session, frames_of

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_TIMEOUT = 30.0  # seconds
DIAGNOSE_TIMEOUT = 600.0  # seconds; beside traffic the server takes its time
_CLOSED = "this client was closed: make another"
_LONGEST_TIMEOUT = 365 * 24 * 3600.0  # seconds; gRPC counts far longer ones as none at all
SERVICE = pb.DESCRIPTOR.services_by_name["DetectionService"].full_name

# What a server refused for now is tried again by gRPC itself, when the server says (its RetryInfo comes along as
# grpc-retry-pushback-ms) or else soon; asking about an image changes nothing, so that it is safe.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE, "method": name} for name in ("Detect", "ListModels", "GetModel")],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
# One answer with many masks, or one raw image, is larger than gRPC's default of 4 MiB.
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.per_rpc_retry_buffer_size", 256 * 2**20),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)

T = TypeVar("T")


def _serving(response: health_pb2.HealthCheckResponse) -> bool:
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


class _Caller:
    """What both clients know: whom they call, how long they wait, and whether they are closed."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = arguments.text(address, "address")
        self._timeout = arguments.number(timeout, "timeout", 0, _LONGEST_TIMEOUT)
        if not self._timeout:
            raise arguments.wrong("timeout", timeout, "more than 0 seconds")
        self._remembered = Remembered()
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise LocalError(_CLOSED)

    def _failure(self, error: Exception) -> Exception:
        """Our error of gRPC's. Of a call that was under way when the client was closed, that."""
        if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):  # gRPC's own, about a closed channel
            return LocalError(_CLOSED) if self._closed else error
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return LocalError(_CLOSED)
        return errors.from_rpc(error, self._address)


class Client(_Caller):
    """Calls a server and waits for its answers. Use it as a context manager, from any number of threads.

    `address` is HOST:PORT; `timeout` is in seconds. Every method raises `ServerError` for a failed call, and
    `LocalError` for what cannot be asked.
    """

    @arguments.named
    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        super().__init__(address, timeout)
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = DetectionServiceStub(self._channel)
        self._detect: Callable[..., pb.DetectResponse] = self._channel.unary_unary(
            f"/{SERVICE}/Detect", wire.serialize, pb.DetectResponse.FromString
        )
        self._stream: Any = self._channel.stream_stream(METHOD, wire.serialize, pb.StreamDetectResponse.FromString)
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
        self._channel.close()

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
    def stream(
        self,
        frames: Iterable[Sendable],
        *,
        policy: Policy,
        stream_id: str = "",
        max_in_flight: int | None = None,
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        **ask: Unpack[StreamAsk],
    ) -> Iterator[Event]:
        """Send the frames of a video, and yield what became of each, in their order.

        `frames` is read by a thread of its own: images as `detect` takes them, or `Frame`s, and `Reconfigure`s between
        them; `pixel_format`, `orientation` and `drop_alpha` are those of images that are no `Frame`s. LATEST is for
        live video: what is looked at is the newest frame there is, older ones are dropped, and a lost connection is
        made again. LOSSLESS is for files: every frame is answered, and `frames` is read no faster.
        """
        self._check_open()
        beside = Beside(pixel_format, orientation, drop_alpha)
        session = Session(policy, stream_id, max_in_flight, beside, ask, self._limits(ask))
        return self._events(Pump(frames_of(frames)), session)

    def _events(self, pumping: Pump, session: Session) -> Iterator[Event]:
        with pumping as pump:
            while True:
                self._check_open()
                call = self._stream(pump.requests(session))
                try:
                    yield from map(session.read, call)
                except grpc.RpcError as error:
                    failure = self._failure(error)
                    if (pause := session.pause(failure)) is None:
                        pump.check()
                        raise failure from error
                else:
                    pump.check()
                    return
                finally:
                    call.cancel()
                    pump.release()
                yield from session.lost()
                time.sleep(pause)

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
            return method(request, timeout=timeout or self._timeout)
        except (grpc.RpcError, ValueError) as error:
            raise self._failure(error) from error


class AsyncClient(_Caller):
    """The asynchronous twin of `Client`, for one event loop; the same methods, awaited.

    What takes its time before an image is sent (reading a file, decoding, compressing) is done in a thread.
    """

    @arguments.named
    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        super().__init__(address, timeout)
        self._loop: asyncio.AbstractEventLoop | None = None

    @functools.cached_property
    def _opened(self) -> grpc.aio.Channel:
        """Opened within the event loop that uses it."""
        self._loop = asyncio.get_running_loop()
        return grpc.aio.insecure_channel(self._address, options=_OPTIONS)

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
        if "_opened" in self.__dict__:
            await self._opened.close()

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
    def stream(
        self,
        frames: AsyncIterable[Sendable] | Iterable[Sendable],
        *,
        policy: Policy,
        stream_id: str = "",
        max_in_flight: int | None = None,
        pixel_format: PixelFormat | None = None,
        orientation: Orientation | None = None,
        drop_alpha: bool = False,
        **ask: Unpack[StreamAsk],
    ) -> AsyncIterator[Event]:
        """Send the frames of a video, and yield what became of each; see `Client.stream`."""
        self._check_open()
        beside = Beside(pixel_format, orientation, drop_alpha)
        session = Session(policy, stream_id, max_in_flight, beside, ask, self._limits(ask))
        return self._events(AsyncPump(frames_of(frames)), session)

    async def _events(self, pumping: AsyncPump, session: Session) -> AsyncIterator[Event]:
        async with pumping as pump:
            while True:
                method: Any = self._channel.stream_stream(METHOD, wire.serialize, pb.StreamDetectResponse.FromString)
                call = method(pump.requests(session))
                try:
                    async for response in call:
                        yield session.read(response)
                except asyncio.CancelledError:
                    self._check_open()  # which cancels calls; else it was the caller's task that was cancelled
                    raise
                except grpc.RpcError as error:
                    failure = self._failure(error)
                    if (pause := session.pause(failure)) is None:
                        pump.check()
                        raise failure from error
                else:
                    pump.check()
                    return
                finally:
                    call.cancel()
                for lost in session.lost():
                    yield lost
                await asyncio.sleep(pause)

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
            return await method(request, timeout=timeout or self._timeout)
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

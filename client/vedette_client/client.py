"""The two clients: `Client` blocks, `AsyncClient` awaits. They share how messages are built and read."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub

from vedette_client import asking, errors, results, wire
from vedette_client.asking import Ask
from vedette_client.images import ImageLike, PixelFormat
from vedette_client.pumps import AsyncPump, Pump
from vedette_client.results import Diagnosis, Model, Result
from vedette_client.streaming import METHOD, Event, Policy, Sendable, Session

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_TIMEOUT = 30.0  # seconds
DIAGNOSE_TIMEOUT = 600.0  # seconds; beside traffic the server takes its time
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


class Client:
    """Calls a server and waits for its answers. Use it as a context manager, from any number of threads.

    `address` is HOST:PORT. Every method raises `ServerError` for a failed call; `timeout` is in seconds.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
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
        self._channel.close()

    def detect(self, image: ImageLike, *, pixel_format: PixelFormat | None = None, **ask: Unpack[Ask]) -> Result:
        """Find objects in one image.

        It is a path, a file's bytes, a PIL image, an array with its `pixel_format`, or a `File`, `Raw` or `Tensor`,
        which say more about it. `Ask` lists what can be asked. Raises `LocalError` for an image that cannot be sent.
        """
        request = asking.request(image, pixel_format, ask)
        return results.result(self._call(self._detect, request))

    def stream(
        self,
        frames: Iterable[Sendable],
        *,
        policy: Policy,
        stream_id: str = "",
        max_in_flight: int | None = None,
        pixel_format: PixelFormat | None = None,
        **ask: Unpack[Ask],
    ) -> Iterator[Event]:
        """Send the frames of a video, and yield what became of each, in their order.

        `frames` is read by a thread of its own: images as `detect` takes them, or `Frame`s, and `Reconfigure`s between
        them. LATEST is for live video: what is looked at is the newest frame there is, older ones are dropped, and a
        lost connection is made again. LOSSLESS is for files: every frame is answered, and `frames` is read no faster.
        """
        session = Session(policy, stream_id, max_in_flight, pixel_format, ask)
        with Pump(frames) as pump:
            while True:
                call = self._stream(pump.requests(session))
                try:
                    yield from map(session.read, call)
                except grpc.RpcError as error:
                    failure = errors.from_rpc(error, self._address)
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

    def models(self) -> list[Model]:
        """Everything that is served."""
        return [results.model(item) for item in self._call(self._stub.ListModels, pb.ListModelsRequest()).models]

    def model(self, name: str = "", version: str = "") -> Model:
        """One model."""
        request = pb.GetModelRequest(model_name=name, model_version=version)
        return results.model(self._call(self._stub.GetModel, request).model)

    def diagnose(
        self,
        image: ImageLike | None = None,
        *,
        stream_id: str = "",
        pixel_format: PixelFormat | None = None,
        **ask: Unpack[Ask],
    ) -> Diagnosis:
        """Find out why an image gives nothing: it is tried with each known mistake undone.

        Without an image, the empty frame of `stream_id` that the server itself has looked into last; without a stream
        either, the last of the images that came one by one. It can take minutes on a busy server.
        """
        request = asking.diagnosis(image, pixel_format, stream_id, ask)
        return results.diagnosis(self._call(self._stub.Diagnose, request, DIAGNOSE_TIMEOUT))

    def healthy(self) -> bool:
        """Whether every model answers."""
        return _serving(self._call(self._health.Check, health_pb2.HealthCheckRequest()))

    def _call(self, method: Callable[..., T], request: object, timeout: float | None = None) -> T:
        try:
            return method(request, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            raise errors.from_rpc(error, self._address) from error


class AsyncClient:
    """The asynchronous twin of `Client`, for one event loop; the same methods, awaited."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout

    @functools.cached_property
    def _channel(self) -> grpc.aio.Channel:
        """Opened within the event loop that uses it."""
        return grpc.aio.insecure_channel(self._address, options=_OPTIONS)

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
        await self._channel.close()

    async def detect(self, image: ImageLike, *, pixel_format: PixelFormat | None = None, **ask: Unpack[Ask]) -> Result:
        """Find objects in one image; see `Client.detect`."""
        request = asking.request(image, pixel_format, ask)
        detect: Any = self._channel.unary_unary(f"/{SERVICE}/Detect", wire.serialize, pb.DetectResponse.FromString)
        return results.result(await self._call(detect, request))

    async def stream(
        self,
        frames: AsyncIterable[Sendable] | Iterable[Sendable],
        *,
        policy: Policy,
        stream_id: str = "",
        max_in_flight: int | None = None,
        pixel_format: PixelFormat | None = None,
        **ask: Unpack[Ask],
    ) -> AsyncIterator[Event]:
        """Send the frames of a video, and yield what became of each; see `Client.stream`."""
        session = Session(policy, stream_id, max_in_flight, pixel_format, ask)
        method: Any = self._channel.stream_stream(METHOD, wire.serialize, pb.StreamDetectResponse.FromString)
        async with AsyncPump(frames) as pump:
            while True:
                call = method(pump.requests(session))
                try:
                    async for response in call:
                        yield session.read(response)
                except grpc.RpcError as error:
                    failure = errors.from_rpc(error, self._address)
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

    async def models(self) -> list[Model]:
        """Everything that is served."""
        listed = await self._call(DetectionServiceStub(self._channel).ListModels, pb.ListModelsRequest())
        return [results.model(item) for item in listed.models]

    async def model(self, name: str = "", version: str = "") -> Model:
        """One model."""
        request = pb.GetModelRequest(model_name=name, model_version=version)
        return results.model((await self._call(DetectionServiceStub(self._channel).GetModel, request)).model)

    async def diagnose(
        self,
        image: ImageLike | None = None,
        *,
        stream_id: str = "",
        pixel_format: PixelFormat | None = None,
        **ask: Unpack[Ask],
    ) -> Diagnosis:
        """Find out why an image gives nothing; see `Client.diagnose`."""
        request = asking.diagnosis(image, pixel_format, stream_id, ask)
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
        except grpc.RpcError as error:
            raise errors.from_rpc(error, self._address) from error

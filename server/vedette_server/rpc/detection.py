"""The DetectionService: each call converts its request, calls the engine, converts the answer, and logs one line."""

import asyncio
import collections
import contextlib
import dataclasses
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

import structlog
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceServicer

from vedette_server.contract.image import NO_IMAGE
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Query
from vedette_server.engine.queue import Flow
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.stream import MOST_IN_FLIGHT, Stream, Told
from vedette_server.rpc import calls, convert, guard
from vedette_server.rpc.calls import Calls, Context
from vedette_server.rpc.open_streams import OpenStreams
from vedette_server.rpc.wire import Received, Sent

log = structlog.get_logger()

CONFIGURE_SECONDS = 10  # limit for a stream's configuration; until then the stream does not count as open


class DetectionService(DetectionServiceServicer):
    """Serves the engine over gRPC."""

    def __init__(self, engine: Engine, shared: Calls, streams: OpenStreams) -> None:
        self._engine = engine
        self._calls = shared
        self._streams = streams

    async def Detect(self, request: Sent[Received[pb.DetectRequest]], context: Context) -> pb.DetectResponse:  # type: ignore[override]  # noqa: N802  read by rpc.wire; gRPC's name
        """Detect objects in one image."""
        request_id = _request_id(request)

        async def detect() -> pb.DetectResponse:
            with self._calls.counted():
                received = request.read()
                message = received.message
                calls.check_id(message.request_id)
                name = self._calls.choose(message.model_name)
            with self._engine.underway(name, message.model_version):
                query = Query(
                    model=name,
                    version=message.model_version,
                    image=convert.image(message.image, received.data),
                    asked=convert.asked(message.options),
                    seconds=context.time_remaining(),
                    flow=self._calls.flow(context.peer()),
                    priority=convert.priority(message.options),
                    request_id=request_id,
                )
            outcome = await self._engine.detect(query)
            given = convert.answer(outcome)
            calls.log_answer(request_id, outcome)
            return pb.DetectResponse(answer=given, request_id=request_id)

        return await calls.guarded(context, request_id, detect)

    async def ListModels(self, request: Sent[pb.ListModelsRequest], context: Context) -> pb.ListModelsResponse:  # type: ignore[override]  # noqa: N802  read by rpc.wire; gRPC's name
        """List every version of every model."""

        async def list_models() -> pb.ListModelsResponse:
            request.read()
            call = guard.current()
            call.admit()
            versions = [*map(convert.model, self._engine.served), *map(convert.refused, self._engine.refused)]
            listed = (one for one in versions if call.may(one.name))
            return pb.ListModelsResponse(models=sorted(listed, key=lambda one: (one.name, int(one.version))))

        return await calls.guarded(context, uuid.uuid4().hex, list_models)

    async def GetModel(self, request: Sent[pb.GetModelRequest], context: Context) -> pb.GetModelResponse:  # type: ignore[override]  # noqa: N802  read by rpc.wire; gRPC's name
        """Describe one version of a model."""

        async def get() -> pb.GetModelResponse:
            message = request.read()
            found = self._engine.look_up(self._calls.named(message.model_name), message.model_version)
            given = convert.model(found) if isinstance(found, ServedVersion) else convert.refused(found)
            return pb.GetModelResponse(model=given)

        return await calls.guarded(context, uuid.uuid4().hex, get)

    def StreamDetect(  # noqa: N802  gRPC's name
        self,
        request_iterator: AsyncIterator[Sent[Received[pb.StreamDetectRequest]]],  # type: ignore[override]  # read by rpc.wire
        context: Context,
    ) -> AsyncGenerator[pb.StreamDetectResponse, None]:
        """Detect objects in the frames of a video."""
        request_id = uuid.uuid4().hex
        responses = self._stream(request_iterator, request_id, self._calls.flow(context.peer()).owner)
        return self._calls.guarded_stream(context, request_id, responses)

    async def _stream(
        self, requests: AsyncIterator[Sent[Received[pb.StreamDetectRequest]]], request_id: str, owner: Flow | None
    ) -> AsyncGenerator[pb.StreamDetectResponse, None]:
        config = await _configuration(requests)
        config.model_name = self._calls.choose(config.model_name)
        settings = convert.stream_settings(config, request_id)
        told: collections.Counter[str] = collections.Counter()
        started = time.monotonic()
        asked = convert.asked(config.options)
        with Stream(self._engine, settings, asked, owner) as stream, self._streams.counted(stream):
            self._engine.find(config.model_name, config.model_version)
            log.info("stream", request_id=request_id, stream_id=config.stream_id, policy=settings.policy)
            running = self._streams.run(stream, lambda: _read_frames(requests, config, stream))
            try:
                async with contextlib.aclosing(running):
                    async for event in running:
                        response = _told(event, request_id)
                        told[response.WhichOneof("message") or ""] += 1
                        yield response
            finally:
                seconds = round(time.monotonic() - started, 3)
                log.info("stream_ended", request_id=request_id, stream_id=config.stream_id, seconds=seconds, **told)

    async def Diagnose(self, request: Sent[pb.DiagnoseRequest], context: Context) -> pb.DiagnoseResponse:  # type: ignore[override]  # noqa: N802  read by rpc.wire; gRPC's name
        """Find out why an image yields no detections."""
        request_id = uuid.uuid4().hex

        async def diagnose() -> pb.DiagnoseResponse:
            message = request.read()
            name = self._calls.named(message.model_name)
            sampled = not message.HasField("image")
            image = NO_IMAGE if sampled else convert.image(message.image, None)
            asked, source = convert.asked(message.options), message.stream_id
            query = Query(
                model=name,
                version=message.model_version,
                image=image,
                asked=asked,
                seconds=None,
                source=source,
            )
            given, model = await self._engine.diagnose(query, sampled=sampled)
            cause = given.cause.mistake if given.cause else None
            log.info("diagnosed", request_id=request_id, model=model.name, version=model.version, cause=cause)
            return await asyncio.to_thread(convert.diagnosis, given, model, request_id)

        return await calls.guarded(context, request_id, diagnose)


async def _configuration(requests: AsyncIterator[Sent[Received[pb.StreamDetectRequest]]]) -> pb.StreamConfig:
    """Return the configuration, a stream's first message. Raises `Refused`: STREAM_NOT_CONFIGURED."""
    try:
        async with asyncio.timeout(CONFIGURE_SECONDS):
            first = await anext(aiter(requests), None)
    except TimeoutError:
        seen = f"not sent within {CONFIGURE_SECONDS} seconds"
    else:
        message = first.read().message if first else pb.StreamDetectRequest()
        if message.WhichOneof("message") == "config":
            return message.config
        seen = f"sent as {message.WhichOneof('message') or 'nothing'}"
    raise Refused(Reason.STREAM_NOT_CONFIGURED, field="config", seen=seen, most=MOST_IN_FLIGHT)


def _request_id(request: Sent[Received[pb.DetectRequest]]) -> str:
    """Return the caller's request id if it is safe to log as it is; otherwise a new one."""
    with contextlib.suppress(Refused):
        return calls.loggable(request.read().message.request_id)
    return uuid.uuid4().hex


def _told(event: Told, request_id: str) -> pb.StreamDetectResponse:
    """Convert a frame's fate; if a bug prevents that, report INTERNAL for the frame."""
    try:
        return convert.told(event, request_id)
    except Exception:
        log.exception("bug", request_id=request_id, frame_id=event.frame_id)
        return convert.told(dataclasses.replace(event, fate=Refused(Reason.INTERNAL)), request_id)


async def _read_frames(
    requests: AsyncIterator[Sent[Received[pb.StreamDetectRequest]]], config: pb.StreamConfig, stream: Stream
) -> None:
    """Feed frames to a stream as they arrive. Raises `Refused` for a fault that ends the stream."""
    last: int | None = None
    async for request in stream.paced(requests):
        last = await _put(request.take(), last, config, stream)


async def _put(
    received: Received[pb.StreamDetectRequest], last: int | None, config: pb.StreamConfig, stream: Stream
) -> int | None:
    """Feed one message to a stream, without keeping it; return the last frame's id. Raises `Refused`."""
    message = received.message
    if message.WhichOneof("message") == "config":
        _check_unchanged(config, message.config)
        stream.asked = convert.asked(message.config.options)
        return last
    frame_id = message.frame.frame_id
    if last is not None and frame_id <= last:
        raise Refused(Reason.FRAME_OUT_OF_ORDER, frame_id=frame_id, last=last)
    try:
        frame = convert.frame(message.frame, received.data)
    except Refused as refusal:
        await stream.refuse(frame_id, refusal)
    else:
        await stream.put(frame)
    return frame_id


def _check_unchanged(config: pb.StreamConfig, again: pb.StreamConfig) -> None:
    for field in ("model_name", "model_version", "stream_id", "drop_policy", "max_in_flight"):
        if getattr(again, field) not in (getattr(config, field), type(getattr(config, field))()):
            raise Refused(Reason.STREAM_CHANGED, field=field)

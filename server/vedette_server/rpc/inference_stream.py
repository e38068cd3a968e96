"""Streams of inference requests: each is answered once, in the order of their arrival, as Triton does.

A stream is a LOSSLESS one of the engine, as a file's frames are: it is read as fast as it is answered. Its requests may
name different models. What is wrong with a request is its own error, and the stream goes on.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import structlog
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.options import Asked
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Outcome
from vedette_server.engine.queue import Flow, Priority
from vedette_server.engine.stream import DropPolicy, Frame, Stream, StreamSettings, Told
from vedette_server.rpc import calls, convert, errors, guard, input_tensors, wire
from vedette_server.rpc.calls import Calls, Context
from vedette_server.rpc.inference import InferenceService, ResponsePlan
from vedette_server.rpc.input_tensors import Parameters
from vedette_server.rpc.open_streams import OpenStreams
from vedette_server.rpc.wire import Gathered, Sent

log = structlog.get_logger()

FIRST_SECONDS = 60  # limit for a stream's first request; until then the stream does not count as open
_OF_THE_STREAM = (Reason.RATE_EXCEEDED, Reason.STREAMS_EXCEEDED)  # refusals that no later request can escape
Request: TypeAlias = Sent[Gathered[Any]]


class InferenceStreams:
    """Serves ModelStreamInfer."""

    def __init__(self, engine: Engine, shared: Calls, service: InferenceService, streams: OpenStreams) -> None:
        self._engine = engine
        self._calls = shared
        self._service = service
        self._streams = streams

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the method as generated code would register it, but read by `rpc.wire`."""
        method = grpc.stream_stream_rpc_method_handler(
            self.model_stream_infer,
            wire.sent(wire.gathering(pb.ModelInferRequest, "raw_input_contents")),
            pb.ModelStreamInferResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(guard.INFERENCE, {"ModelStreamInfer": method})

    def model_stream_infer(
        self, requests: AsyncIterator[Request], context: Context
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Detect objects in a stream of images."""
        request_id = uuid.uuid4().hex
        responses = self._stream(requests, request_id, self._calls.flow(context.peer()).owner)
        return self._calls.guarded_stream(context, request_id, responses)

    async def _stream(
        self, requests: AsyncIterator[Request], request_id: str, owner: Flow | None
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        first = await _first(requests)
        if first is None:
            return
        settings = _settings(request_id)
        with Stream(self._engine, settings, Asked(), owner) as stream, self._streams.counted(stream):
            log.info("stream", request_id=request_id, policy=DropPolicy.LOSSLESS)
            course = _Course(self._service, stream)
            running = self._streams.run(stream, lambda: course.read(first, requests))
            started = time.monotonic()
            try:
                async with contextlib.aclosing(running):
                    async for event in running:
                        yield course.response(event)
            finally:
                course.give_up()
                seconds = round(time.monotonic() - started, 3)
                log.info("stream_ended", request_id=request_id, seconds=seconds, **course.told)


@dataclass(frozen=True, kw_only=True)
class _InFlight:
    """A request whose fate has not been told."""

    message_id: str  # as the caller knows it
    request_id: str  # in the log
    started: float
    model: str = ""
    version: str = ""
    wanted: ResponsePlan | None = None  # None: it was refused before


class _Course:
    """Reads the requests of one stream, and makes a response of the fate of each."""

    def __init__(self, service: InferenceService, stream: Stream) -> None:
        self._service = service
        self._stream = stream
        self._numbers = itertools.count(1)
        self._underway: dict[int, _InFlight] = {}
        self.told = {"answer": 0, "error": 0}  # numbers of responses

    async def read(self, first: Request, others: AsyncIterator[Request]) -> None:
        """Feed all requests to the engine. Raises `Refused` for what ends the stream."""
        await self._take(first)
        async for request in self._stream.paced(others):
            await self._take(request)

    async def _take(self, request: Request) -> None:
        """Feed one request to the engine, without keeping it. Raises `Refused` for what ends the stream."""
        number, started = next(self._numbers), time.monotonic()
        one = _InFlight(message_id="", request_id=uuid.uuid4().hex, started=started)
        try:
            received = request.take()
            message = received.message
            one = _InFlight(message_id=message.id, request_id=calls.loggable(message.id), started=started)
            model = self._service.choose(message)
        except Refused as refusal:
            if refusal.reason in _OF_THE_STREAM:
                raise
            self._underway[number] = one
            await self._stream.refuse(number, refusal, known=False)
            return
        one = dataclasses.replace(one, model=model, version=message.model_version)
        await self._put(number, one, received)

    async def _put(self, number: int, one: _InFlight, received: Gathered[Any]) -> None:
        """Feed a request for a known model, with the settings that it asks for. Raises `Refused`: SHUTTING_DOWN."""
        stream, parameters = self._stream, received.message.parameters
        self._underway[number] = one
        stream.settings = dataclasses.replace(stream.settings, model=one.model, version=one.version)
        try:
            query, wanted = await self._service.prepare(one.model, received, None, Flow(), one.request_id)
            name = sequence(input_tensors.parameters(parameters))
        except Refused as refusal:
            await stream.refuse(number, refusal)
            return
        self._underway[number] = dataclasses.replace(one, wanted=wanted)
        stream.asked = query.asked
        stream.settings = dataclasses.replace(
            stream.settings, priority=query.priority, name=name, request_id=one.request_id, seconds=query.seconds
        )
        await stream.put(Frame(number, time.time_ns(), query.image))

    def response(self, event: Told) -> pb.ModelStreamInferResponse:
        """Return the response that tells a request's fate; a bug there is INTERNAL."""
        one = self._underway.pop(event.frame_id)
        try:
            given = self._response(one, event)
        except Exception:
            log.exception("bug", request_id=one.request_id)
            given = self._refused(one, Refused(Reason.INTERNAL))
        # Triton sets it on whatever it sends; here each response is the only one to its request.
        given.infer_response.parameters["triton_final_response"].bool_param = True
        self.told["error" if given.error_message else "answer"] += 1
        return given

    def _response(self, one: _InFlight, event: Told) -> pb.ModelStreamInferResponse:
        if isinstance(event.fate, Refused):
            return self._refused(one, event.fate)
        assert isinstance(event.fate, Outcome)  # noqa: S101  LOSSLESS streams drop nothing
        assert one.wanted  # noqa: S101  or it would not have been answered
        try:
            answer = self._service.answered(one.wanted, event.fate, event.fate.total_seconds)
        except Refused as refusal:
            return self._refused(one, refusal)
        return pb.ModelStreamInferResponse(infer_response=answer)

    def _refused(self, one: _InFlight, refusal: Refused) -> pb.ModelStreamInferResponse:
        seconds = time.monotonic() - one.started
        self._fail(one)
        log.info(
            "refused",
            request_id=one.request_id,
            reason=refusal.reason,
            facts=refusal.facts,
            seconds=round(seconds, 4),
        )
        message = f"{refusal.reason}: {errors.status(refusal, one.request_id).message}"
        return pb.ModelStreamInferResponse(
            error_message=message, infer_response=pb.ModelInferResponse(id=one.message_id)
        )

    def _fail(self, one: _InFlight) -> None:
        if one.model:
            self._service.failed(one.model, one.version, time.monotonic() - one.started)

    def give_up(self) -> None:
        """Count requests that the stream's end leaves unanswered as failures."""
        for one in self._underway.values():
            self._fail(one)


async def _first(requests: AsyncIterator[Request]) -> Request | None:
    """Return a stream's first request; None: it has none. Raises `Refused`: REQUEST_STALLED."""
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            return await anext(aiter(requests), None)
    except TimeoutError:
        raise Refused(Reason.REQUEST_STALLED, seconds=FIRST_SECONDS) from None


def _settings(request_id: str) -> StreamSettings:
    """Return the settings of a stream whose first request has not been read."""
    return StreamSettings(
        model="",
        version="",
        policy=DropPolicy.LOSSLESS,
        priority=Priority.NORMAL,
        name="",
        max_in_flight=None,
        request_id=request_id,
    )


def sequence(of_request: Parameters) -> str:
    """Return the stream of frames to which a request belongs by its `sequence_id`; empty: to none that has a name.

    Models keep nothing from one frame to the next, so neither start nor end of a sequence changes anything.
    Raises `Refused`: PARAMETER_INVALID.
    """
    for name in ("sequence_start", "sequence_end"):
        if not isinstance(given := of_request.get(name, False), bool):
            raise Refused(Reason.PARAMETER_INVALID, parameter=name, seen=repr(given), expected="true or false")
    given = of_request.get("sequence_id", 0)
    named = str(given or "")
    if isinstance(given, bool | float) or len(named) > convert.LONGEST_ID or not named.isprintable():
        raise Refused(
            Reason.PARAMETER_INVALID,
            parameter="sequence_id",
            seen=repr(given),
            expected=f"a whole number, or a name of up to {convert.LONGEST_ID} printable characters",
        )
    return named

"""The DetectionService: each call converts, asks the engine, converts back, and writes one line to the log."""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from grpc_status import rpc_status
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.answer_pb2 import Answer
from vedette.v1.detection_service_pb2_grpc import DetectionServiceServicer

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Query
from vedette_server.rpc import convert, errors

log = structlog.get_logger()

_LONGEST_ID = 128  # characters
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


class DetectionService(DetectionServiceServicer):
    """Serves the engine over gRPC."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Detect(self, request: pb.DetectRequest, context: Context) -> pb.DetectResponse:  # noqa: N802  gRPC's name
        """Find objects in one image."""
        sent = request.request_id
        valid = len(sent) <= _LONGEST_ID and sent.isprintable()  # it goes into the log as it is
        request_id = sent if sent and valid else uuid.uuid4().hex

        async def detect() -> pb.DetectResponse:
            if not valid:
                raise Refused(Reason.REQUEST_ID_INVALID, length=len(sent), most=_LONGEST_ID)
            spec, data = convert.image(request.image)
            query = Query(
                model=request.model_name,
                version=request.model_version,
                image=spec,
                data=data,
                asked=convert.asked(request.options),
                seconds=context.time_remaining(),
            )
            outcome = await self._engine.detect(query)
            given = convert.answer(outcome)
            _log_answer(request_id, given)
            return pb.DetectResponse(answer=given, request_id=request_id)

        return await _guarded(context, request_id, detect)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802  gRPC's name
        """List every version of every model."""
        del request, context
        return pb.ListModelsResponse(models=[convert.model(served) for served in self._engine.served])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802  gRPC's name
        """Describe one version of a model."""

        async def get() -> pb.GetModelResponse:
            served = self._engine.find(request.model_name, request.model_version)
            return pb.GetModelResponse(model=convert.model(served))

        return await _guarded(context, uuid.uuid4().hex, get)

    async def StreamDetect(  # noqa: N802  gRPC's name
        self, request_iterator: AsyncIterator[pb.StreamDetectRequest], context: Context
    ) -> AsyncIterator[pb.StreamDetectResponse]:
        """Not served yet."""
        del request_iterator
        await _refuse(context, _not_served("StreamDetect"), uuid.uuid4().hex)
        yield pb.StreamDetectResponse()  # never reached; it makes this a stream

    async def Diagnose(self, request: pb.DiagnoseRequest, context: Context) -> pb.DiagnoseResponse:  # noqa: N802  gRPC's name
        """Not served yet."""
        del request
        await _refuse(context, _not_served("Diagnose"), uuid.uuid4().hex)
        raise AssertionError


def _not_served(call: str) -> Refused:
    return Refused(Reason.FEATURE_NOT_SERVED, feature=call)


def _log_answer(request_id: str, given: Answer) -> None:
    log.info(
        "detect",
        request_id=request_id,
        model=given.model_name,
        version=given.model_version,
        detections=len(given.detections),
        seconds=round(given.timings.total_seconds, 4),
    )


async def _guarded(context: Context, request_id: str, call: Callable[[], Awaitable[Response]]) -> Response:
    """Run a call; turn a refusal into its status, and a bug into INTERNAL with an opaque id and nothing else."""
    started = time.monotonic()
    try:
        return await call()
    except Refused as refusal:
        log.info(
            "refused",
            request_id=request_id,
            reason=refusal.reason,
            facts=refusal.facts,
            seconds=round(time.monotonic() - started, 4),
        )
        await _refuse(context, refusal, request_id)
    except Exception:
        log.exception("bug", request_id=request_id)
        await _refuse(context, Refused(Reason.INTERNAL), request_id)
    raise AssertionError


async def _refuse(context: Context, refusal: Refused, request_id: str) -> None:
    """End the call with the refusal's status, by an exception of gRPC's own."""
    await context.abort_with_status(rpc_status.to_status(errors.status(refusal, request_id)))

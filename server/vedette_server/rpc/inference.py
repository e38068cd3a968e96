"""The Open Inference Protocol, in the form of Triton's `inference.GRPCInferenceService`.

Its messages come with `tritonclient`. Methods that are not registered here are UNIMPLEMENTED, and the extensions that
they belong to are not listed.
"""

import contextlib
import importlib.metadata
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Asked, MaskFormat
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.control import Control
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Outcome, Query
from vedette_server.engine.queue import Flow, Priority
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.standing import State, why
from vedette_server.repository.repository import ModelVersion
from vedette_server.rpc import calls, guard, input_tensors, model_config, output_tensors, wire
from vedette_server.rpc.calls import Calls, Context
from vedette_server.rpc.inference_statistics import Statistics
from vedette_server.rpc.input_tensors import Parameters
from vedette_server.rpc.regions import Place
from vedette_server.rpc.shared_memory import SharedMemory
from vedette_server.rpc.wire import Gathered, Sent

# Of Triton's extensions, those that are served whole.
EXTENSIONS = ("model_configuration", "parameters", "schedule_policy", "statistics", "system_shared_memory")
_UNKNOWN = (Reason.MODEL_NOT_FOUND, Reason.MODEL_VERSION_NOT_FOUND, Reason.MODEL_NOT_READY)
_HIGH, _NORMAL = 1, 2  # Triton's priorities: the lower, the sooner
Message = TypeVar("Message")


@dataclass(frozen=True)
class ResponsePlan:
    """The part of a request that its response needs."""

    outputs: list[str]  # names, in their order
    message_id: str
    places: Mapping[str, Place]  # of outputs in the caller's memory


class InferenceService:
    """Serves the engine as Triton serves its models."""

    def __init__(self, engine: Engine, shared: Calls, control: Control | None = None) -> None:
        """`control` loads and unloads models, where callers may."""
        self._engine = engine
        self._calls = shared
        self._control = control
        self._statistics = Statistics()
        self.memory = SharedMemory(engine)

    @property
    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """The methods that answer at once, by name."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "SystemSharedMemoryStatus": self.memory.status,
            "SystemSharedMemoryUnregister": self.memory.unregister,
        }

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods as generated code would register them, but read by `rpc.wire`."""
        registered = {
            name: grpc.unary_unary_rpc_method_handler(
                self._answering(method),
                wire.sent(wire.without_image(getattr(pb, f"{name}Request"))),
                getattr(pb, f"{name}Response").SerializeToString,
            )
            for name, method in self.methods.items()
        }
        registered["SystemSharedMemoryRegister"] = self.memory.handler()
        registered["ModelInfer"] = grpc.unary_unary_rpc_method_handler(
            self.model_infer,
            wire.sent(wire.gathering(pb.ModelInferRequest, "raw_input_contents")),
            pb.ModelInferResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(guard.INFERENCE, registered)

    @staticmethod
    def _answering(method: Callable[[Any], Message]) -> Callable[[Sent[Any], Context], Any]:
        """Wrap a method that answers at once, so that its refusals become statuses."""

        async def answer(request: Sent[Any], context: Context) -> Message:
            async def call() -> Message:
                return method(request.read())

            return await calls.guarded(context, uuid.uuid4().hex, call)

        return answer

    def server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Tell that the server lives."""
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Tell if every model has a version that answers, as health checks do."""
        return pb.ServerReadyResponse(ready=self._engine.ready)

    def server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name the server and the extensions that it has."""
        guard.current().admit()
        version = importlib.metadata.version("vedette")
        extensions = sorted((*EXTENSIONS, *(["model_repository"] if self._control else [])))
        return pb.ServerMetadataResponse(name="vedette", version=version, extensions=extensions)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Tell if a version answers; one that is unknown does not."""
        try:
            found = self._engine.find(self._calls.choose(request.name), request.version)
        except Refused as refusal:
            if refusal.reason not in _UNKNOWN:
                raise
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=found.standing.state is State.READY and not self._engine.draining)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Describe the inputs and outputs of a version."""
        found = self._found(request.name, request.version)
        return model_config.metadata(found, [str(one.version) for one in self._versions(found.name)])

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Describe a version as Triton's configuration."""
        return model_config.config(self._found(request.name, request.version))

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Return the statistics of a version, of all versions of a model, or of all models."""
        if request.name and request.version:
            models = [self._found(request.name, request.version)]
        elif request.name:
            models = self._versions(self._calls.named(request.name))
        else:
            call = guard.current()
            call.admit()
            models = [one.model for one in self._engine.served if call.may(one.model.name)]
        return pb.ModelStatisticsResponse(model_stats=[self._statistics.read(one) for one in models])

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List every version of every model, or those that are ready."""
        call = guard.current()
        call.admit()
        if request.repository_name:
            raise Refused(
                Reason.PARAMETER_INVALID, parameter="repository_name", seen="set", expected="none: there is only one"
            )
        given = pb.RepositoryIndexResponse()
        for one in self._engine.served:
            state = one.standing.state
            if call.may(one.model.name) and (state is State.READY or not request.ready):
                name, version = one.model.name, str(one.model.version)
                given.models.add(name=name, version=version, state=state.upper(), reason=one.standing.reason)
        for refused in () if request.ready else self._engine.refused:
            if call.may(refused.name):
                version, reason = str(refused.version), why(refused.reason.check)
                given.models.add(name=refused.name, version=version, state="UNAVAILABLE", reason=reason)
        unloaded = self._control.unloaded if self._control and not request.ready else {}
        for name, numbers in unloaded.items():
            for number in numbers if call.may(name) else ():
                given.models.add(name=name, version=str(number), state="UNAVAILABLE", reason="unloaded")
        return given

    def _found(self, name: str, version: str) -> ModelVersion:
        return self._engine.find(self._calls.named(name), version).model

    def _versions(self, name: str) -> list[ModelVersion]:
        return [one.model for one in self._engine.served if one.model.name == name]

    async def model_infer(self, request: Sent[Gathered[Any]], context: Context) -> pb.ModelInferResponse:
        """Detect objects in one image."""
        request_id = _request_id(request)

        async def infer() -> pb.ModelInferResponse:
            with self._calls.counted():
                received = request.read()
            return await self.infer(received, context.time_remaining(), self._calls.flow(context.peer()), request_id)

        return await calls.guarded(context, request_id, infer)

    async def infer(
        self, received: Gathered[Any], remaining: float | None, flow: Flow, request_id: str
    ) -> pb.ModelInferResponse:
        """Answer one inference request, whichever way it came; `remaining` is the caller's deadline in seconds.

        Raises `Refused`.
        """
        message, started = received.message, time.monotonic()
        with self._calls.counted():
            name = self.choose(message)
        with self._counted(name, message.model_version, started):
            with self._engine.underway(name, message.model_version):
                query, wanted = await self.prepare(name, received, remaining, flow, request_id)
            outcome = await self._engine.detect(query)
            return self.answered(wanted, outcome, time.monotonic() - started)

    def choose(self, message: pb.ModelInferRequest) -> str:
        """Return the model that a request means and its caller may use. Raises `Refused`."""
        calls.check_id(message.id)
        return self._calls.choose(message.model_name)

    async def prepare(
        self, model: str, received: Gathered[Any], remaining: float | None, flow: Flow, request_id: str
    ) -> tuple[Query, ResponsePlan]:
        """Return the query that a request makes, and what its response needs. Raises `Refused`."""
        started, served = time.monotonic(), self._engine.find(model, received.message.model_version)
        received, places = await self.memory.fetched(received, served.model.contract.limits.max_bytes, remaining)
        left = None if remaining is None else remaining - (time.monotonic() - started)
        query, names = _query(served, received, left, flow, request_id)
        return query, ResponsePlan(names, received.message.id, places)

    def answered(self, wanted: ResponsePlan, outcome: Outcome, seconds: float) -> pb.ModelInferResponse:
        """Count and log an inference that took so long, and return its response.

        Raises `Refused` where the response does not fit into the caller's memory.
        """
        response = output_tensors.response(outcome, wanted.outputs, wanted.message_id)
        given = self.memory.put(response, wanted.places)
        self._statistics.answered(outcome, seconds)
        calls.log_answer(outcome.request_id, outcome)
        return given

    def failed(self, model: str, version: str, seconds: float) -> None:
        """Count an inference as a failure of its version, if that is known."""
        with contextlib.suppress(Refused):
            self._statistics.failed(self._engine.find(model, version).model, seconds)

    @contextlib.contextmanager
    def _counted(self, name: str, version: str, started: float) -> Iterator[None]:
        """Count whatever ends an inference of a known version as its failure."""
        try:
            yield
        except BaseException:
            self.failed(name, version, time.monotonic() - started)
            raise


def _query(
    served: ServedVersion, received: Gathered[Any], remaining: float | None, flow: Flow, request_id: str
) -> tuple[Query, list[str]]:
    """Return the query that a request makes, and the outputs to send. Raises `Refused`."""
    wanted = read(received, served.model.contract)
    query = Query(
        model=served.model.name,
        version=received.message.model_version,
        image=wanted.image,
        asked=wanted.asked,
        seconds=_seconds(remaining, wanted.of_request),
        flow=flow,
        priority=_priority(wanted.of_request),
        request_id=request_id,
    )
    return query, wanted.outputs


@dataclass(frozen=True)
class ImageRequest:
    """The image of a request, its options, and the outputs to send."""

    image: SentImage
    asked: Asked
    outputs: list[str]
    of_request: Parameters


def read(received: Gathered[Any], contract: InputContract) -> ImageRequest:
    """Read a request to a model with this contract. Raises `Refused`."""
    message = received.message
    of_request = input_tensors.parameters(message.parameters)
    tensors = input_tensors.read(message, received.contents)
    for output in message.outputs:
        input_tensors.check_tensor_parameters(output.parameters)
    names = output_tensors.wanted((output.name for output in message.outputs), contract)
    class_names, class_ids = input_tensors.classes(tensors)
    asked = Asked(
        threshold=input_tensors.threshold(tensors),
        outputs=output_tensors.kinds(names, contract),
        mask_format=MaskFormat.COCO_RLE,
        class_names=class_names,
        class_ids=class_ids,
        box_masks="MASKS_28" in names,
    )
    return ImageRequest(input_tensors.image(tensors, of_request), asked, names, of_request)


def _request_id(request: Sent[Gathered[Any]]) -> str:
    """Return the caller's request id if it is safe to log as it is; otherwise a new one."""
    with contextlib.suppress(Refused):
        return calls.loggable(request.read().message.id)
    return uuid.uuid4().hex


def _priority(of_request: Parameters) -> Priority:
    """Convert Triton's priority: 1 is high, 0 or unset and 2 normal, all others low. Raises `Refused`."""
    given = _whole(of_request, "priority")
    return {0: Priority.NORMAL, _HIGH: Priority.HIGH, _NORMAL: Priority.NORMAL}.get(given, Priority.LOW)


def _seconds(remaining: float | None, of_request: Parameters) -> float | None:
    """Return the time left: the call's deadline, or the parameter `timeout` in microseconds if that is shorter."""
    given = _whole(of_request, "timeout")
    limits = [one for one in (remaining, given / 1e6 if given else None) if one is not None]
    return min(limits, default=None)


def _whole(of_request: Mapping[str, object], name: str) -> int:
    given = of_request.get(name, 0)
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise Refused(Reason.PARAMETER_INVALID, parameter=name, seen=repr(given), expected="a whole number from 0 on")
    return given

"""Model control by the Open Inference Protocol: RepositoryModelLoad and RepositoryModelUnload."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.control import Control
from vedette_server.engine.engine import Engine
from vedette_server.rpc import calls, guard, wire
from vedette_server.rpc.calls import Calls, Context
from vedette_server.rpc.wire import Sent

Message = TypeVar("Message")


class ModelControl:
    """Loads and unloads models for callers, if the server was started with that."""

    def __init__(self, engine: Engine, shared: Calls, control: Control | None) -> None:
        """Without `control`, refuse everything."""
        self._engine = engine
        self._calls = shared
        self._control = control

    @property
    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """The methods by name."""
        return {"RepositoryModelLoad": self.load, "RepositoryModelUnload": self.unload}

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods as generated code would register them, but read by `rpc.wire`."""
        registered = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(method),
                wire.sent(wire.without_image(getattr(pb, f"{name}Request"))),
                getattr(pb, f"{name}Response").SerializeToString,
            )
            for name, method in self.methods.items()
        }
        return grpc.method_handlers_generic_handler(guard.INFERENCE, registered)

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load the versions of a model that are in the repository; wait until the newest is ready."""
        with self._calls.counted():
            there = await self._control.there() if self._control else ()
            name = guard.current().choose(request.model_name, sorted({*there, *self._served()}))
            await self._checked(request, {}).load(name)
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Unload all versions of a model; wait until what they were given is answered."""
        with self._calls.counted():
            there = self._control.unloaded if self._control else ()
            name = guard.current().choose(request.model_name, sorted({*there, *self._served()}))
            await self._checked(request, {"unload_dependents": "bool_param"}).unload(name)  # nothing depends on a model
        return pb.RepositoryModelUnloadResponse()

    def _served(self) -> set[str]:
        return {one.model.name for one in self._engine.served} | {one.name for one in self._engine.refused}

    def _checked(self, request: Any, known: Mapping[str, str]) -> Control:  # noqa: ANN401  either request
        """Return the control; refuse what only Triton has. Raises `Refused`: FEATURE_NOT_SERVED, PARAMETER_INVALID."""
        if self._control is None:
            raise Refused(Reason.FEATURE_NOT_SERVED, feature="model control", setting="model_control switched on")
        if request.repository_name:
            raise Refused(
                Reason.PARAMETER_INVALID, parameter="repository_name", seen="set", expected="none: there is only one"
            )
        for name, value in request.parameters.items():
            if value.WhichOneof("parameter_choice") != known.get(name, ""):
                raise Refused(
                    Reason.PARAMETER_INVALID,
                    parameter=name,
                    seen="set, and models are only loaded as the repository has them",
                    expected="no configuration and no files; put a new version into the repository instead",
                )
        return self._control


def _answering(method: Callable[[Any], Awaitable[Message]]) -> Callable[[Sent[Any], Context], Any]:
    """Wrap a method, so that its refusals become statuses."""

    async def answer(request: Sent[Any], context: Context) -> Message:
        async def call() -> Message:
            return await method(request.read())

        return await calls.guarded(context, uuid.uuid4().hex, call)

    return answer

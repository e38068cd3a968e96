"""Authentication and authorisation before every call.

It runs before `rpc.intake`, which reads the messages of all calls. Nothing of a request is received or counted before
its caller is known.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import structlog
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from vedette.v1 import detection_service_pb2 as pb

from vedette_server.access.access import Access, Call, Credentials
from vedette_server.access.policy import Verb
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc import errors

log = structlog.get_logger()

SERVICE = pb.DESCRIPTOR.services_by_name["DetectionService"].full_name
INFERENCE = "inference.GRPCInferenceService"
_METHODS = {
    SERVICE: {
        "Detect": Verb.DETECT,
        "StreamDetect": Verb.STREAM,
        "Diagnose": Verb.DIAGNOSE,
        "ListModels": Verb.DESCRIBE,
        "GetModel": Verb.DESCRIBE,
    },
    INFERENCE: {
        "ServerLive": Verb.HEALTH,
        "ServerReady": Verb.HEALTH,
        "ServerMetadata": Verb.DESCRIBE,
        "ModelReady": Verb.DESCRIBE,
        "ModelMetadata": Verb.DESCRIBE,
        "ModelConfig": Verb.DESCRIBE,
        "ModelStatistics": Verb.DESCRIBE,
        "RepositoryIndex": Verb.DESCRIBE,
        "RepositoryModelLoad": Verb.LOAD,
        "RepositoryModelUnload": Verb.LOAD,
        "ModelInfer": Verb.DETECT,
        "ModelStreamInfer": Verb.STREAM,
        "SystemSharedMemoryRegister": Verb.SHARE,
        "SystemSharedMemoryUnregister": Verb.SHARE,
        "SystemSharedMemoryStatus": Verb.SHARE,
    },
}
_LOOK_SECONDS = 1.0  # between checks that a stream's caller has not been revoked
_SERVICES = {health.SERVICE_NAME: Verb.HEALTH, reflection.SERVICE_NAME: Verb.REFLECTION}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = Any  # grpc.RpcMethodHandler, which is generic only in its type stubs
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
_current: ContextVar[Call] = ContextVar("vedette_call")


def current() -> Call:
    """Return the call being served. Its service admits it once the model is known."""
    return _current.get()


def begin(access: Access, shown: Credentials, wanted: Verb) -> Call:
    """Begin a call as the one being served in this task's context, which ends with it. Raises `Refused`."""
    call = access.begin(shown, wanted)
    if wanted in _SERVICES.values():  # these services know no models
        call.admit()
    _current.set(call)
    return call


def verb(method: str) -> Verb:
    """Return the verb of a method. Raises `KeyError` for a method without one, which nobody may call."""
    service, _, name = method.removeprefix("/").partition("/")
    return _METHODS[service][name] if service in _METHODS else _SERVICES[service]


class Guard(grpc.aio.ServerInterceptor):
    """Interceptor that admits or refuses calls."""

    def __init__(self, access: Access, refused: Callable[[Reason], None]) -> None:
        self._access = access
        self._refused = refused

    async def intercept_service(self, continuation: _Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Wrap a method from the intake, which takes a stream of messages even if the original is unary."""
        handler = await continuation(details)
        if handler is None:
            return None
        wanted = verb(details.method)
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        method: Any = handler.stream_unary or handler.stream_stream

        async def answer(messages: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401  any service's messages
            async with self._refusing(context):
                call = begin(self._access, shown := _shown(context), wanted)
            if call.caller.known:
                structlog.contextvars.bind_contextvars(caller=call.caller.name)
            with contextlib.closing(call):
                answering = method(messages, context)
                if not handler.response_streaming:
                    return await answering
                return await self._until_revoked(answering, context, call, shown)

        return make(answer, handler.request_deserializer, handler.response_serializer)

    @contextlib.asynccontextmanager
    async def _refusing(self, context: Context) -> AsyncIterator[None]:
        """End the call with the status of whatever the block raises."""
        request_id = uuid.uuid4().hex
        try:
            yield
        except Refused as refusal:
            log.info("refused", request_id=request_id, reason=refusal.reason, facts=refusal.facts)
            self._refused(refusal.reason)
            await errors.refuse(context, refusal, request_id)
        except Exception:
            log.exception("bug", request_id=request_id)
            await errors.refuse(context, Refused(Reason.INTERNAL), request_id)

    async def _until_revoked(
        self, answering: Coroutine[Any, Any, Any], context: Context, call: Call, shown: Credentials
    ) -> Any:  # noqa: ANN401  any service's answer
        """Run a stream until it ends or its caller is revoked."""
        answered, revoked = asyncio.create_task(answering), asyncio.create_task(self._revoked(call, shown))
        try:
            await asyncio.wait({answered, revoked}, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
        finally:
            revoked.cancel()
            answered.cancel()
            await asyncio.wait({answered})
        async with self._refusing(context):
            return revoked.result()

    async def _revoked(self, call: Call, shown: Credentials) -> None:
        """Check repeatedly that a call may go on; ends by raising `Refused`."""
        edition = None  # access may have changed since the call began
        while True:
            if (now := self._access.edition) != edition:
                self._access.again(call, shown)
                edition = now
            await asyncio.sleep(_LOOK_SECONDS)


def _shown(context: Context) -> Credentials:
    """Return the credentials that a call presents."""
    metadata: Any = context.invocation_metadata() or ()
    authorization = tuple(str(value) for key, value in metadata if key == "authorization")
    certificates: Any = context.auth_context().get("x509_pem_cert") or (None,)
    return Credentials(authorization, certificates[0], host(context.peer()))


def host(peer: str) -> str:
    """Return the host of a gRPC peer, ipv4:HOST:PORT; all peers on a Unix socket share one."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else kind

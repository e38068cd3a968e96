"""Before every call: who it is from, and whether it may be made.

It stands before `rpc.intake`, which reads the messages of all calls: nothing of a request is received, nor counted
there, before its caller is known.
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
_METHODS = {
    "Detect": Verb.DETECT,
    "StreamDetect": Verb.STREAM,
    "Diagnose": Verb.DIAGNOSE,
    "ListModels": Verb.DESCRIBE,
    "GetModel": Verb.DESCRIBE,
}
_LOOK_SECONDS = 1.0  # between two looks whether the caller of a stream was revoked
_SERVICES = {health.SERVICE_NAME: Verb.HEALTH, reflection.SERVICE_NAME: Verb.REFLECTION}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = Any  # grpc.RpcMethodHandler, which is generic in its types alone
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
_current: ContextVar[Call] = ContextVar("vedette_call")


def current() -> Call:
    """The call that is being served. Its service admits it once it knows the model."""
    return _current.get()


def verb(method: str) -> Verb:
    """What a method does. Raises `KeyError` for one that nobody has thought of, which nobody may call then."""
    service, _, name = method.removeprefix("/").partition("/")
    return _METHODS[name] if service == SERVICE else _SERVICES[service]


class Guard(grpc.aio.ServerInterceptor):
    """Lets calls in, or refuses them."""

    def __init__(self, access: Access, refused: Callable[[Reason], None]) -> None:
        self._access = access
        self._refused = refused

    async def intercept_service(self, continuation: _Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Stand before a method, as the intake has made it: one that takes a stream of messages, whatever it was."""
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
                call = self._begun(shown := _shown(context), wanted)
                _current.set(call)  # of the call's own task, with which it ends
            if call.caller.known:
                structlog.contextvars.bind_contextvars(caller=call.caller.name)
            with contextlib.closing(call):
                answering = method(messages, context)
                if not handler.response_streaming:
                    return await answering
                return await self._until_revoked(answering, context, call, shown)

        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _begun(self, shown: Credentials, wanted: Verb) -> Call:
        """Begin a call. Raises `Refused`."""
        call = self._access.begin(shown, wanted)
        if wanted in _SERVICES.values():  # they know of no models
            call.admit()
        return call

    @contextlib.asynccontextmanager
    async def _refusing(self, context: Context) -> AsyncIterator[None]:
        """End a call here for what is raised."""
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
        """Let a stream go on for as long as its caller may have it."""
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
        """Ask again and again whether a call may go on; ends with `Refused`."""
        edition = None  # it may have changed since the call has begun
        while True:
            if (now := self._access.edition) != edition:
                self._access.again(call, shown)
                edition = now
            await asyncio.sleep(_LOOK_SECONDS)


def _shown(context: Context) -> Credentials:
    """What a call shows of who it is from."""
    metadata: Any = context.invocation_metadata() or ()
    authorization = tuple(str(value) for key, value in metadata if key == "authorization")
    certificates: Any = context.auth_context().get("x509_pem_cert") or (None,)
    return Credentials(authorization, certificates[0], _host(context.peer()))


def _host(peer: str) -> str:
    """The host of a peer as gRPC names it, ipv4:HOST:PORT; of a Unix socket, there is one."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else kind

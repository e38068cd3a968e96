"""The Open Inference Protocol over HTTP, /v2: each path is a method of the gRPC service, in JSON and binary data."""

import contextlib
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from aiohttp import web
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

from vedette_server.access.access import Access
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc import calls, guard, http_calls, rest_json, rest_tensors, wire
from vedette_server.rpc.calls import Calls
from vedette_server.rpc.http_calls import Handler
from vedette_server.rpc.http_connections import Connections
from vedette_server.rpc.inference import InferenceService
from vedette_server.rpc.inference_control import ModelControl
from vedette_server.rpc.intake import Intake

log = structlog.get_logger()

_LONGEST_ORIGIN = 100  # characters of it that a refusal shows
_PLAIN = ("", "identity")  # encodings of a body that is not compressed

Call: TypeAlias = Callable[[web.Request, memoryview], Awaitable[web.Response]]  # of a request and its body


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=rest_json.written(value), status=status, content_type="application/json")


def _response(message: Message) -> web.Response:
    return _json(rest_json.plain(message))


def _server(message: Message) -> web.Response:
    plain = rest_json.plain(message)
    return _json({**plain, "extensions": [*plain["extensions"], "binary_tensor_data"]})


def _state(message: Message) -> web.Response:
    """Respond as health checks expect it: the protocol has 4xx for "no"."""
    plain = rest_json.plain(message)
    return _json(plain, 200 if all(plain.values()) else 400)


def _config(message: Message) -> web.Response:
    return _json(rest_json.plain(message)["config"])


def _index(message: Message) -> web.Response:
    return _json(rest_json.plain(message)["models"])


def _regions(message: Message) -> web.Response:
    return _json([*rest_json.plain(message)["regions"].values()])


def _statistics(message: Any) -> web.Response:  # noqa: ANN401  generated code without types
    """Respond with all durations, those of a version that has answered nothing, too."""
    for one in message.model_stats:
        for field in one.inference_stats.DESCRIPTOR.fields:
            getattr(one.inference_stats, field.name).SetInParent()
    return _response(message)


@dataclass(frozen=True)
class Route:
    """A path, the gRPC method that answers it with fields from the path and a JSON body, and what is made of that."""

    http: str
    path: str
    rpc: str
    respond: Callable[[Any], web.Response] = _response


_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
_MEMORY, _REGION = "/v2/systemsharedmemory", "/v2/systemsharedmemory/region/{name}"
ROUTES = (
    Route("GET", "/v2", "ServerMetadata", _server),
    Route("GET", "/v2/health/live", "ServerLive", _state),
    Route("GET", "/v2/health/ready", "ServerReady", _state),
    Route("GET", "/v2/models/stats", "ModelStatistics", _statistics),
    *(
        Route("GET", prefix + suffix, rpc, respond)
        for prefix in (_MODEL, _VERSION)
        for suffix, rpc, respond in (
            ("", "ModelMetadata", _response),
            ("/ready", "ModelReady", _state),
            ("/config", "ModelConfig", _config),
            ("/stats", "ModelStatistics", _statistics),
        )
    ),
    Route("POST", "/v2/repository/index", "RepositoryIndex", _index),
    Route("POST", "/v2/repository/models/{model_name}/load", "RepositoryModelLoad"),
    Route("POST", "/v2/repository/models/{model_name}/unload", "RepositoryModelUnload"),
    *(
        route
        for prefix in (_MEMORY, _REGION)
        for route in (
            Route("GET", f"{prefix}/status", "SystemSharedMemoryStatus", _regions),
            Route("POST", f"{prefix}/unregister", "SystemSharedMemoryUnregister"),
        )
    ),
)


class Rest:
    """Serves the inference service on the HTTP port."""

    def __init__(
        self,
        service: InferenceService,
        controlling: ModelControl,
        shared: Calls,
        intake: Intake,
        access: Access,
        most: int,
    ) -> None:
        """`most` is the size of the largest body in bytes."""
        self._service = service
        self._methods: dict[str, Callable[[Any], Any]] = {**service.methods, **controlling.methods}
        self._calls = shared
        self._intake = intake
        self._access = access
        self._most = most
        self.writing = intake.writing

    def routes(self, connections: Connections) -> Iterable[tuple[str, str, Handler]]:
        """Return the HTTP method, the path and the handler of each path."""
        for route in ROUTES:
            yield route.http, route.path, self._handler(route.rpc, self._describing(route), connections)
        for prefix in (_MODEL, _VERSION):
            yield "POST", f"{prefix}/infer", self._handler("ModelInfer", self._infer, connections)
        register = self._handler("SystemSharedMemoryRegister", self._register, connections)
        yield "POST", f"{_REGION}/register", register
        yield "*", "/v2/{rest:.*}", _unknown

    def _handler(self, rpc: str, call: Call, connections: Connections) -> Handler:
        """Return a handler that lets in whom the gRPC method lets in, reads the body, and responds."""
        verb = guard.verb(f"{guard.INFERENCE}/{rpc}")

        async def handle(request: web.Request) -> web.Response:
            request_id = uuid.uuid4().hex
            try:
                with self._calls.counted():
                    _check_origin(request)
                    begun = guard.begin(self._access, http_calls.shown(request), verb)
                with contextlib.closing(begun):
                    if begun.caller.known:
                        structlog.contextvars.bind_contextvars(caller=begun.caller.name)
                    most = self._most if rest_tensors.LENGTH in request.headers else wire.MOST_BESIDE_IMAGE
                    peer = http_calls.peer(request)
                    body = await self._intake.single(lambda: self._body(request, most, connections), peer)
                    with connections.answering(request):
                        return await _guarded(request_id, call(request, memoryview(body or b"")))
            except Refused as refusal:
                return _refusal(refusal, request_id)

        return handle

    async def _body(self, request: web.Request, most: int, connections: Connections) -> bytes | Refused:
        """Read a body of at most `most` bytes."""
        with connections.receiving(request):
            return await _read(request, most, self._intake.room)

    def _describing(self, route: Route) -> Call:
        method, kind = self._methods[route.rpc], getattr(pb, f"{route.rpc}Request")

        async def call(request: web.Request, body: memoryview) -> web.Response:
            with self._calls.counted():
                message = rest_json.message(kind, body, request.match_info)
            told = method(message)
            return route.respond(await told if inspect.isawaitable(told) else told)

        return call

    async def _register(self, request: web.Request, body: memoryview) -> web.Response:
        with self._calls.counted():
            message = rest_json.message(pb.SystemSharedMemoryRegisterRequest, body, request.match_info)
        return _response(await self._service.memory.register(message, http_calls.peer(request)))

    async def _infer(self, request: web.Request, body: memoryview) -> web.Response:
        named = request.match_info
        with self._calls.counted():
            length = _json_bytes(request, len(body))
            asked = rest_tensors.read(body, length, named["name"], named.get("version", ""))
        request_id, flow = calls.loggable(asked.request.message.id), self._calls.flow(http_calls.peer(request))

        async def infer() -> web.Response:
            given = await self._service.infer(asked.request, None, flow, request_id)
            written, length = rest_tensors.written(given, asked)
            if length is None:
                return web.Response(body=written, content_type="application/json")
            headers = {rest_tensors.LENGTH: str(length)}
            return web.Response(body=written, content_type="application/octet-stream", headers=headers)

        return await _guarded(request_id, infer())


def _check_origin(request: web.Request) -> None:
    """Raise `Refused` (ORIGIN_REFUSED) for a page in a browser.

    Any page could otherwise call a server on its reader's own machine, where nobody needs a token.
    """
    if origin := request.headers.get("Origin"):
        raise Refused(Reason.ORIGIN_REFUSED, origin=origin[:_LONGEST_ORIGIN])


async def _read(request: web.Request, most: int, room: Callable[[], Awaitable[None]]) -> bytes | Refused:
    encoding = ", ".join(request.headers.getall("Content-Encoding", ()))
    if encoding.lower() not in _PLAIN:
        return Refused(Reason.BODY_COMPRESSED, encoding=encoding)
    pieces: list[bytes] = []
    size, received = request.content_length or 0, 0
    try:
        while size <= most:
            await room()
            if not (piece := await request.content.readany()):
                return b"".join(pieces)
            pieces.append(piece)
            received += len(piece)
            size = max(size, received)
    except Exception:  # noqa: BLE001  the caller has gone, or its chunks are none
        return rest_json.unfit(seen="it ends early, or has a broken chunk", expected="as many bytes as its headers say")
    finally:
        pieces.clear()  # the request keeps the exception, and with it this frame
    if most == wire.MOST_BESIDE_IMAGE:
        return wire.too_large(size)
    return Refused(Reason.BODY_TOO_LARGE, bytes=size, most=most)


def _json_bytes(request: web.Request, size: int) -> int:
    """Return how many bytes of a body of that size are JSON. Raises `Refused`: BODY_INVALID."""
    given = request.headers.get(rest_tensors.LENGTH, str(size))
    if not (given.isascii() and given.isdecimal() and len(given) <= len(str(size)) and int(given) <= size):
        seen = f"the header {rest_tensors.LENGTH} is {given!r}, and the body has {size} bytes"
        raise rest_json.unfit(seen=seen, expected="the number of bytes of JSON before the binary data")
    return int(given)


async def _guarded(request_id: str, answering: Awaitable[web.Response]) -> web.Response:
    """Respond with what a call responds, its refusal, or an opaque id for a bug."""
    started = time.monotonic()
    try:
        return await answering
    except Refused as refusal:
        return _refusal(refusal, request_id, seconds=round(time.monotonic() - started, 4))
    except Exception:
        log.exception("bug", request_id=request_id)
        return _failure(Refused(Reason.INTERNAL), request_id)


def _refusal(refusal: Refused, request_id: str, **facts: object) -> web.Response:
    log.info("refused", request_id=request_id, reason=refusal.reason, facts=refusal.facts, **facts)
    return _failure(refusal, request_id)


def _failure(refusal: Refused, request_id: str) -> web.Response:
    failure = http_calls.failure(refusal, request_id)
    response = _json({"error": failure.text}, failure.status)
    response.headers.update(failure.headers)
    return response


async def _unknown(request: web.Request) -> web.Response:
    refusal = Refused(Reason.PATH_NOT_FOUND, method=request.method, path=request.path)
    return _refusal(refusal, uuid.uuid4().hex)

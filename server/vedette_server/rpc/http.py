"""The HTTP port: metrics for Prometheus, liveness and readiness for orchestrators."""

import asyncio
import ssl
import uuid
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from vedette_server.access.access import Access, Credentials
from vedette_server.access.certificates import Certificates
from vedette_server.access.files import Kept
from vedette_server.access.policy import Verb
from vedette_server.addresses import Tcp
from vedette_server.contract.refusal import Refused
from vedette_server.monitor.metrics import Metrics
from vedette_server.rpc import errors

log = structlog.get_logger()

_MOST_CONNECTIONS = 128
_HANDSHAKE_SECONDS = 5.0
_IDLE_SECONDS = 60.0  # without a complete request, after which a connection is closed

_VERBS = {"/metrics": Verb.METRICS, "/livez": Verb.HEALTH, "/readyz": Verb.HEALTH}
_STATUS = {errors.Code.UNAUTHENTICATED: 401, errors.Code.PERMISSION_DENIED: 403, errors.Code.RESOURCE_EXHAUSTED: 429}


class HttpServer:
    """Server of /metrics, /livez and /readyz."""

    def __init__(self, metrics: Metrics, ready: Callable[[], bool], access: Access | None = None) -> None:
        """Without `access`, allow everyone to read everything."""
        self._metrics = metrics
        self._ready = ready
        self._access = access or Access()
        app = web.Application(middlewares=[self._guarded])
        routes = [web.get("/metrics", self._page), web.get("/livez", self._livez), web.get("/readyz", self._readyz)]
        app.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=_IDLE_SECONDS)
        self._answered: set[object] = set()  # connections with a response in progress
        self._server: asyncio.Server | None = None

    async def start(self, address: Tcp) -> str:
        """Listen, and return the URL. Raises `OSError` if the address is unavailable."""
        await self._runner.setup()
        kept = self._access.certificates
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept,
                address.host,
                address.port,
                ssl=_newest(kept) if kept else None,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if kept else None,
            )
        except OSError as error:
            msg = f"cannot listen on {address}: {error.strerror or error}"
            raise OSError(msg) from error
        return f"{'https' if kept else 'http'}://{Tcp(address.host, self._server.sockets[0].getsockname()[1])}"

    def _accept(self) -> asyncio.BaseProtocol:
        """Accept a new connection."""
        server = self._runner.server
        assert server is not None  # noqa: S101  set up before anything is accepted
        asyncio.get_running_loop().call_soon(self._give_way, server)  # after a burst of accepts
        return server()

    def _give_way(self, server: web.Server) -> None:
        """Close the oldest idle connections above the limit."""
        is_open = {one: one.transport for one in server.connections if one.transport and not one.transport.is_closing()}
        for one in sorted(is_open, key=self._answered.__contains__)[: max(len(is_open) - _MOST_CONNECTIONS, 0)]:
            is_open[one].abort()

    async def stop(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Admit a request, or respond with the reason for refusing it."""
        if (verb := _VERBS.get(request.path)) is None:
            return await handler(request)
        try:
            self._access.begin(_shown(request), verb).admit()
        except Refused as refusal:
            log.info("refused", path=request.path, reason=refusal.reason, facts=refusal.facts)
            self._metrics.refused("", "", refusal.reason)
            return _refusal(refusal)
        self._answered.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._answered.discard(request.protocol)

    async def _page(self, request: web.Request) -> web.Response:
        self._metrics.tidy()
        self._metrics.files(self._access.stale, self._access.ends)
        body, content_type = await asyncio.to_thread(self._metrics.page, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)


def _shown(request: web.Request) -> Credentials:
    """Return the credentials that a request presents."""
    connection = request.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True) if connection else None
    return Credentials(tuple(request.headers.getall("Authorization", ())), certificate, request.remote or "")


def _refusal(refusal: Refused) -> web.Response:
    row, headers = errors.TABLE[refusal.reason], {}
    if row.code is errors.Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if row.retry:
        headers["Retry-After"] = str(max(1, round(errors.retry_seconds(refusal))))
    told = errors.status(refusal, uuid.uuid4().hex).message
    return web.Response(text=f"{refusal.reason}: {told}\n", status=_STATUS[row.code], headers=headers)


def _newest(kept: Kept[Certificates]) -> ssl.SSLContext:
    """Return a context that gives each new connection the newest certificates."""

    def swap(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = kept.get().context

    front = kept.get().front()
    front.sni_callback = swap  # called at every handshake, with or without a server name
    return front

"""The HTTP port: metrics for Prometheus, liveness and readiness for orchestrators, the Open Inference Protocol."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import structlog
from aiohttp import web

from vedette_server.access.access import Access
from vedette_server.access.certificates import Certificates
from vedette_server.access.files import Kept
from vedette_server.access.policy import Verb
from vedette_server.addresses import Tcp
from vedette_server.contract.refusal import Refused
from vedette_server.monitor.metrics import Metrics
from vedette_server.rpc import http_calls
from vedette_server.rpc.http_calls import Handler
from vedette_server.rpc.http_connections import Connections, Port

log = structlog.get_logger()

_HANDSHAKE_SECONDS = 5.0
_IDLE_SECONDS = 60.0  # without a complete request, after which a connection is closed


class HttpServer:
    """Server of /metrics, /livez and /readyz, and of the paths of others."""

    def __init__(
        self, metrics: Metrics, ready: Callable[[], bool], access: Access | None = None, port: Port | None = None
    ) -> None:
        """Without `access`, allow everyone to read everything; `port` has further paths."""
        self._metrics = metrics
        self._ready = ready
        self._access = access or Access()
        self._connections = Connections(port.writing if port else lambda _peer: contextlib.nullcontext())
        app = web.Application()
        for path, verb, page in (
            ("/metrics", Verb.METRICS, self._page),
            ("/livez", Verb.HEALTH, self._livez),
            ("/readyz", Verb.HEALTH, self._readyz),
        ):
            app.router.add_get(path, self._connections.handling(self._guarded(verb, page)))
        for method, path, handler in port.routes(self._connections) if port else ():
            app.router.add_route(method, path, self._connections.handling(handler))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            auto_decompress=False,  # a few bytes can expand to a million times as many
            handler_cancellation=True,  # of a caller that has gone
            shutdown_timeout=1.0,  # for responses that are not read
        )
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
        asyncio.get_running_loop().call_soon(self._connections.give_way, server)  # after a burst of accepts
        return server()

    async def stop(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()
        await self._runner.cleanup()

    def _guarded(self, verb: Verb, page: Handler) -> Handler:
        """Return a handler that admits a request, or responds with the reason for refusing it."""

        async def handle(request: web.Request) -> web.Response:
            try:
                self._access.begin(http_calls.shown(request), verb).admit()
            except Refused as refusal:
                log.info("refused", path=request.path, reason=refusal.reason, facts=refusal.facts)
                self._metrics.refused("", "", refusal.reason)
                failure = http_calls.failure(refusal)
                return web.Response(text=f"{failure.text}\n", status=failure.status, headers=failure.headers)
            with self._connections.answering(request):
                return await page(request)

        return handle

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


def _newest(kept: Kept[Certificates]) -> ssl.SSLContext:
    """Return a context that gives each new connection the newest certificates."""

    def swap(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = kept.get().context

    front = kept.get().front()
    front.sni_callback = swap  # called at every handshake, with or without a server name
    return front

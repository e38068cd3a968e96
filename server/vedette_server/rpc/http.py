"""The HTTP port: metrics for Prometheus, liveness and readiness for orchestrators."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from vedette_server.addresses import Tcp
from vedette_server.monitor.metrics import Metrics


class HttpServer:
    """Serves /metrics, /livez and /readyz."""

    def __init__(self, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._ready = ready
        app = web.Application()
        routes = [web.get("/metrics", self._page), web.get("/livez", self._livez), web.get("/readyz", self._readyz)]
        app.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, address: Tcp) -> str:
        """Listen; returns its URL. Raises `OSError` if the address cannot be had."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            msg = f"cannot listen on {address}: {error.strerror or error}"
            raise OSError(msg) from error
        return f"http://{Tcp(address.host, self._runner.addresses[0][1])}"

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        self._metrics.tidy()
        body, content_type = await asyncio.to_thread(self._metrics.page, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

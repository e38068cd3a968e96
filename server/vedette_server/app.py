"""The server, composed: repository, engine, monitor, gRPC, HTTP; how it starts, serves, drains and stops."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine

import structlog

from vedette_server.engine.engine import Engine
from vedette_server.engine.served import PoolSettings
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository import repository
from vedette_server.rpc.http import HttpServer
from vedette_server.rpc.server import RpcServer
from vedette_server.settings import Settings

log = structlog.get_logger()

PREDICTOR = "vedette_server.predictor.predictor:load"


class App:
    """One server. `run` returns after it was told to stop and everything it admitted was answered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        models = repository.read(settings.repository, settings.plugins)
        metrics = Metrics(models)
        pool = PoolSettings(
            factory=PREDICTOR,
            workers=settings.workers,
            threads=settings.threads_per_worker(len(models)),
            device=settings.device,
            max_queued=settings.max_queued,
            max_queued_bytes=settings.max_queued_bytes,
        )
        self._engine = Engine(models, pool, metrics, settings.max_request_seconds)
        self._rpc = RpcServer(self._engine, max(model.contract.limits.max_bytes for model in models))
        self._http = HttpServer(metrics, lambda: self._engine.ready)
        self._told_to_stop = asyncio.Event()
        self._forced = asyncio.Event()

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain, stop. A second signal ends the draining."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self._start()
        follow = asyncio.create_task(self._follow())
        await self._told_to_stop.wait()
        follow.cancel()
        await self._stop()

    def stop(self) -> None:
        """Tell the server to stop; told again, it does not wait for what it admitted."""
        (self._forced if self._told_to_stop.is_set() else self._told_to_stop).set()

    async def _start(self) -> None:
        host, _, port = self._settings.listen.rpartition(":")
        bound = await self._rpc.start(self._settings.listen)
        http_host, _, http_port = self._settings.http.rpartition(":")
        http_bound = await self._http.start(http_host.strip("[]"), int(http_port))
        log.info("listening", grpc=f"{host}:{bound or port}", http=f"http://{http_host}:{http_bound}")
        self._engine.run()

    async def _follow(self) -> None:
        """Keep health checks in step with the engine."""
        serving = False
        while True:
            await self._engine.changed.wait()
            self._engine.changed.clear()
            if self._engine.ready != serving:
                serving = self._engine.ready
                await self._rpc.tell(serving=serving)
                log.info("serving" if serving else "not_serving")

    async def _stop(self) -> None:
        log.info("draining", seconds=self._settings.drain_seconds)
        await self._rpc.tell(serving=False)
        if not await self._unless_forced(self._engine.drain(self._settings.drain_seconds)):
            log.warning("drain_ended_early")
        await self._rpc.stop(1.0)
        await self._engine.stop()
        await self._http.stop()
        log.info("stopped")

    async def _unless_forced(self, draining: Coroutine[object, object, bool]) -> bool:
        """Wait for the drain, or for the second signal."""
        drain = asyncio.ensure_future(draining)
        forced = asyncio.ensure_future(self._forced.wait())
        done, pending = await asyncio.wait({drain, forced}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return drain in done and drain.result()

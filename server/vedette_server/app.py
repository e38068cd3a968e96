"""The composition of the server from repository, engine, monitor, gRPC and HTTP, and its life cycle."""

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Coroutine, Sequence

import structlog

from vedette_server import addresses, environment
from vedette_server.access.access import Access
from vedette_server.engine.control import Control
from vedette_server.engine.engine import Engine
from vedette_server.engine.settings import PoolSettings
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.shelf import Shelf
from vedette_server.rpc.http import HttpServer
from vedette_server.rpc.server import RpcServer
from vedette_server.settings import Settings
from vedette_server.watch.probe import Probe

log = structlog.get_logger()

PREDICTOR = "vedette_server.predictor.predictor:load"


def _log_violations(found: Sequence[str]) -> None:
    log.error("invariant_broken", found=list(found))


class App:
    """One server. `run` returns after it was stopped and has answered everything that it admitted."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shelf = Shelf(settings.repository, settings.plugins)
        self._shelf.look()
        models = self._shelf.versions
        metrics = Metrics(triton=settings.triton_metrics)
        pool = PoolSettings(
            factory=PREDICTOR,
            workers=settings.workers,
            threads=settings.threads_per_worker(len(models)),
            devices=settings.devices,
            max_queued=settings.max_queued,
            max_queued_bytes=settings.max_queued_bytes,
            golden_seconds=settings.golden_seconds,
            hang_seconds=settings.hang_seconds,
            stuck_seconds=settings.max_request_seconds,
            memory_bytes=settings.worker_memory_bytes,
            violated=_log_violations if settings.check_invariants else None,
        )
        self._engine = Engine(pool, metrics, Probe(metrics, settings.diagnose_share), settings.max_request_seconds)
        most = max(model.contract.limits.max_bytes for model in models)
        self._access = Access(settings.sources, metrics.reloaded)
        self._control = Control(self._shelf, self._engine)
        control = self._control if settings.model_control else None
        self._rpc = RpcServer(self._engine, most, settings.max_streams, self._access, control=control)
        self._http = HttpServer(metrics, lambda: self._engine.ready, self._access, self._rpc.rest)
        self._told_to_stop = asyncio.Event()
        self._forced = asyncio.Event()
        self._reread = asyncio.Event()  # set when the repository must be read again

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain, stop. A second signal ends the draining.

        SIGHUP reloads the repository and the access files; SIGQUIT makes every process dump its stacks to stderr.
        Neither stops the server.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGQUIT, self._dump)
        try:
            await self._start()
            await self._until_told_to_stop()
        finally:
            await self._stop()

    def stop(self) -> None:
        """Stop the server; a second call stops it without waiting for admitted requests."""
        (self._forced if self._told_to_stop.is_set() else self._told_to_stop).set()

    def _reload(self) -> None:
        self._access.reload()
        self._reread.set()

    def _dump(self) -> None:
        faulthandler.dump_traceback(all_threads=True)
        self._engine.dump()

    async def _start(self) -> None:
        if ignored := environment.links():
            log.debug("variables_ignored", of="Kubernetes' Services", names=ignored)
        await self._access.fetch()
        listening = await self._rpc.start(addresses.grpc(self._settings.listen))
        self._engine.set_aside(self._shelf.refused)
        for model in self._shelf.versions:
            self._engine.load(model)
        http = await self._http.start(addresses.tcp(self._settings.http))
        log.info("listening", grpc=listening, http=http, services=list(self._rpc.services))

    async def _until_told_to_stop(self) -> None:
        """Follow the engine and the repository until stopped.

        A bug there ends the server rather than its supervision.
        """
        followed = (
            self._follow(),
            self._engine.watch(),
            self._access.follow(),
            self._rpc.ended(),
            self._told_to_stop.wait(),
            self._poll(self._settings.poll_seconds or None),
        )
        tasks = {asyncio.create_task(one) for one in followed}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()

    async def _poll(self, seconds: float | None) -> None:
        """Read the repository again every `seconds` (None: never), and on request."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reread.wait(), seconds)
            self._reread.clear()
            await self._control.look()

    async def _follow(self) -> None:
        """Keep health checks in sync with the engine."""
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
        """Wait for the drain, or for the second signal; return whether the drain completed."""
        drain = asyncio.ensure_future(draining)
        forced = asyncio.ensure_future(self._forced.wait())
        done, pending = await asyncio.wait({drain, forced}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return drain in done and drain.result()

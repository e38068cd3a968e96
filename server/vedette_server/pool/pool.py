"""The workers of one model version: kept at their number, each admitted only after its probation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import structlog

from vedette_server.pool.messages import Start
from vedette_server.pool.process import Worker, WorkerStartError

log = structlog.get_logger()

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0  # seconds between two starts in the same place


class ProbationError(Exception):
    """A worker is up, and does not answer as it must; the message says how, for the operator."""


Probation: TypeAlias = Callable[[Worker], Awaitable[None]]  # raises ProbationError


class Pool:
    """Keeps `size` workers running and hands out the idle ones."""

    def __init__(self, start: Start, size: int, probation: Probation, changed: Callable[[], None]) -> None:
        self._start = start
        self._size = size
        self._probation = probation
        self._changed = changed
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._keepers: list[asyncio.Task[None]] = []
        self.workers: list[Worker] = []  # those in rotation
        self.restarts = 0
        self.last_failure: str | None = None  # why there is no worker, while there is none

    def run(self) -> None:
        """Start the workers, and from then on replace each that ends."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._size)]

    async def _keep(self) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            try:
                worker = await Worker.spawn(self._start)
                async with contextlib.AsyncExitStack() as stack:
                    stack.push_async_callback(worker.stop)
                    await self._probation(worker)
                    await self._in_rotation(worker)
                backoff = _FIRST_BACKOFF
            except (WorkerStartError, ProbationError) as error:
                self.last_failure = str(error)
                log.error("worker_failed_to_start", folder=self._start.folder, error=str(error))  # noqa: TRY400  a reason, not a bug
                self._changed()
            except Exception as error:
                self.last_failure = repr(error)
                log.exception("worker_failed_to_start", folder=self._start.folder)
                self._changed()
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LONGEST_BACKOFF)
            self.restarts += 1

    async def _in_rotation(self, worker: Worker) -> None:
        self.workers.append(worker)
        self._idle.put_nowait(worker)
        self.last_failure = None
        self._changed()
        try:
            status = await worker.ended()
            log.error("worker_lost", pid=worker.pid, status=status)
            self.last_failure = f"worker {worker.pid} ended with status {status}"
        finally:
            self.workers.remove(worker)
            self._changed()

    @contextlib.asynccontextmanager
    async def idle_worker(self) -> AsyncIterator[Worker]:
        """Wait for an idle worker and have it alone for a while."""
        while not (worker := await self._idle.get()).alive:
            pass
        try:
            yield worker
        finally:
            if worker.alive:
                self._idle.put_nowait(worker)

    async def stop(self) -> None:
        """End all workers."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

"""The workers of one model version: kept at full number, each admitted only after its probation."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias

import structlog

from vedette_server.contract.loading import Check
from vedette_server.pool.ends import End
from vedette_server.pool.forkserver import Forkserver
from vedette_server.pool.messages import Start
from vedette_server.pool.process import Worker, WorkerStartError

log = structlog.get_logger()

_DUMP_SECONDS = 0.2  # for a hung worker to dump its stacks before it is killed
OVERSLEPT_SECONDS = 0.5  # delay of a timer beyond which this process counts as suspended
FAILED = "failed_to_start"  # a cause of losses: the model was refused, or failed its probation
# Seconds between starts in the same place after a failed start. A worker that has served is replaced at once.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 30.0


class ProbationError(Exception):
    """A worker started but failed its probation; the message says why, for the operator."""

    def __init__(self, message: str, check: Check | None = None) -> None:
        """`check` is the check that the model failed, if it was one."""
        super().__init__(message)
        self.check = check


Probation: TypeAlias = Callable[[Worker], Awaitable[None]]  # raises ProbationError
Vigil: TypeAlias = Callable[[Worker], Coroutine[None, None, None]]  # runs while a worker is in rotation


class Pool:
    """Keeps one worker running for each of `starts`, and knows which of them have room."""

    def __init__(
        self,
        starts: Sequence[Start],
        forkserver: Forkserver,
        hang_seconds: float,
        probation: Probation,
        vigil: Vigil,
        changed: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`changed` is called when a worker comes, goes or has room; `clock` is monotonic."""
        self._starts = starts
        self._forkserver = forkserver
        self._hang_seconds = hang_seconds
        self._probation = probation
        self._vigil = vigil
        self._changed = changed
        self.clock = clock  # of its workers too: the time of their forks, and of their silence
        self._keepers: list[asyncio.Task[None]] = []
        self.workers: list[Worker] = []  # in rotation
        self.restarts = 0
        self.losses: Counter[str] = Counter()  # by cause: an `End`, or `FAILED`
        self.check: Check | None = None  # failed by the last worker that was lost, if any
        self.last_failure: str | None = None  # reason for having no worker, while there is none
        self._start_seconds = 0.0  # from the last worker's fork until it entered rotation
        # When the replacement of a lost worker is due; None: none was lost, or starts fail.
        self._back_at: float | None = None

    def run(self) -> None:
        """Start the workers, and replace each that ends."""
        self._keepers = [asyncio.create_task(self._keep(start)) for start in self._starts]

    async def _keep(self, start: Start) -> None:
        backoff = 0.0
        while True:
            try:
                worker = await Worker.spawn(start, self._forkserver, self._changed, self.clock)
                async with contextlib.AsyncExitStack() as stack:
                    stack.push_async_callback(worker.stop)
                    watch = asyncio.create_task(self._watch(worker))
                    stack.callback(watch.cancel)
                    await self._probation(worker)
                    self._start_seconds = self.clock() - worker.forked
                    await self._in_rotation(worker)
                backoff = 0.0
            except (WorkerStartError, ProbationError) as error:
                self.last_failure, self._back_at = str(error), None
                self._note_failure(error.check)
                log.error("worker_failed_to_start", folder=start.folder, error=str(error), check=error.check)  # noqa: TRY400  a reason, not a bug
                self._changed()
            except Exception as error:
                self.last_failure, self._back_at = repr(error), None
                self._note_failure(None)
                log.exception("worker_failed_to_start", folder=start.folder)
                self._changed()
            await asyncio.sleep(backoff)
            backoff = min(max(2 * backoff, _FIRST_BACKOFF), _LONGEST_BACKOFF)
            self.restarts += 1

    def _note_failure(self, check: Check | None) -> None:
        self.check = check
        self.losses[End.OUT_OF_MEMORY if check is Check.OUT_OF_MEMORY else FAILED] += 1

    async def _watch(self, worker: Worker) -> None:
        """End a worker that has made no progress for too long, whichever stage hangs.

        Only time in which this process was awake counts. After a suspension, of the process or the machine, it has
        missed its workers' signs of life and waits for another.
        """
        while (silent := worker.silent_seconds) < self._hang_seconds:
            due = self.clock() + self._hang_seconds - silent
            await asyncio.sleep(self._hang_seconds - silent)
            if self.clock() > due + OVERSLEPT_SECONDS:
                log.warning("gateway_overslept", seconds=round(self.clock() - due, 1))
                worker.excuse()
        log.error("worker_hangs", pid=worker.pid, seconds=round(silent, 1))
        worker.dump()
        await asyncio.sleep(_DUMP_SECONDS)
        worker.give_up()

    async def _in_rotation(self, worker: Worker) -> None:
        self.workers.append(worker)
        self.last_failure = self.check = None
        self._changed()
        vigil = asyncio.create_task(self._vigil(worker))
        try:
            status = await worker.ended()
            cause = worker.cause(status)
            log.error("worker_lost", pid=worker.pid, status=status, cause=cause)
            self.losses[cause] += 1
            self.check = Check.OUT_OF_MEMORY if cause is End.OUT_OF_MEMORY else None
            self.last_failure = f"worker {worker.pid} ended with status {status} ({cause})"
            self._back_at = self.clock() + self._start_seconds
        finally:
            vigil.cancel()
            self.workers.remove(worker)
            self._changed()

    @property
    def back_in(self) -> float | None:
        """Estimated seconds until a lost worker is replaced; 0 if there is a worker, None if none is due."""
        if self.workers:
            return 0.0
        return None if self._back_at is None else max(self._back_at - self.clock(), 0.0)

    @property
    def idle(self) -> Worker | None:
        """A worker with nothing to infer."""
        return self.idle_since(-math.inf)

    def idle_since(self, forked: float) -> Worker | None:
        """Return a worker with nothing to infer that was forked after `forked`."""
        workers = (one for one in self.workers if one.forked > forked)
        return next((worker for worker in workers if worker.room and not worker.batches), None)

    @property
    def youngest(self) -> float:
        """The fork time of the youngest worker, on the monotonic clock."""
        return max((worker.forked for worker in self.workers), default=-math.inf)

    @property
    def roomy(self) -> Worker | None:
        """A worker that can take another batch, preferably an idle one."""
        return self.idle or next((worker for worker in self.workers if worker.room), None)

    async def stop(self) -> None:
        """Stop all workers."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

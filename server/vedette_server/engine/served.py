"""One model version in service: its pool, its queue, its golden images, its state."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import EncodedImage, ImageSpec
from vedette_server.contract.loading import Check, LoadRefusedError, refuse
from vedette_server.contract.options import Options, defaults
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import Monitor
from vedette_server.pool.channel import SharedImage
from vedette_server.pool.messages import Start
from vedette_server.pool.pool import Pool, ProbationError
from vedette_server.pool.process import Worker, WorkerBugError, WorkerLostError
from vedette_server.repository.golden import difference
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()

_MOST_LOSSES = 2


class State(StrEnum):
    """Whether a version answers."""

    LOADING = "loading"
    READY = "ready"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class PoolSettings:
    """How a version's workers run, and how much may wait for them."""

    factory: str
    workers: int
    threads: int  # of each worker
    device: str
    max_queued: int
    max_queued_bytes: int


@dataclass(eq=False)
class _Waiting:
    spec: ImageSpec
    image: SharedImage
    options: Options
    answer: asyncio.Future[Answer]
    queued: float = field(default_factory=time.monotonic)
    queue_seconds: float = 0.0
    losses: int = 0  # of workers that ended with it


class ServedVersion:
    """Takes queries for one model version, first come first served, and gives each to the next idle worker."""

    def __init__(self, model: ModelVersion, settings: PoolSettings, monitor: Monitor, changed: asyncio.Event) -> None:
        self.model = model
        self._settings = settings
        self._monitor = monitor
        self._changed = changed
        start = Start(settings.factory, str(model.folder), model.contract, settings.device, settings.threads)
        self._pool = Pool(start, settings.workers, self._probation, self._note)
        self._waiting: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._arrival = asyncio.Event()
        self._lanes: list[asyncio.Task[None]] = []

    def run(self) -> None:
        """Start the workers and the dispatch to them."""
        if waivers := self.model.contract.waivers:
            log.warning("checks_waived", model=self.model.name, version=self.model.version, waivers=waivers)
        self._pool.run()
        self._lanes = [asyncio.create_task(self._lane()) for _ in range(self._settings.workers)]
        self._note()

    @property
    def state(self) -> State:
        """Whether this version answers now."""
        if self._pool.workers:
            return State.READY
        return State.UNAVAILABLE if self._pool.last_failure else State.LOADING

    @property
    def state_reason(self) -> str:
        """Why it does not answer, for callers: what went wrong in detail is in the log."""
        match self.state:
            case State.READY:
                return ""
            case State.LOADING:
                return "its workers are loading or answering their golden images"
            case State.UNAVAILABLE:
                return "no worker came up, or all were lost; the server's log says why; they are being restarted"

    async def answer(
        self, spec: ImageSpec, image: SharedImage, options: Options, seconds: float
    ) -> tuple[Answer, float]:
        """Have one image answered within `seconds`; returns the answer and the seconds it waited for a worker.

        Raises `Refused`: OVERLOADED, DEADLINE_EXCEEDED, IMAGE_POISONOUS, SHUTTING_DOWN, INTERNAL, or what is wrong
        with the image.
        """
        settings = self._settings
        if len(self._waiting) >= settings.max_queued or self._queued_bytes + image.size > settings.max_queued_bytes:
            raise Refused(Reason.OVERLOADED, model=self.model.name, queued=len(self._waiting))
        item = _Waiting(spec, image, options, asyncio.get_running_loop().create_future())
        self._enqueue(item, self._waiting.append)
        try:
            async with asyncio.timeout(seconds):
                return await item.answer, item.queue_seconds
        except TimeoutError:
            raise Refused(Reason.DEADLINE_EXCEEDED, seconds=f"{seconds:.3f}") from None
        finally:
            self._withdraw(item)

    def _withdraw(self, item: _Waiting) -> None:
        """Take an item off the queue whose caller has gone, so that it no longer counts there."""
        if item in self._waiting:
            self._waiting.remove(item)
            self._queued_bytes -= item.image.size
            self._note()

    async def _lane(self) -> None:
        """Serve one item after another, each with the first worker that is idle; there is a lane for each worker."""
        while True:
            async with self._pool.idle_worker() as worker:
                item = await self._next()
                if worker.alive:
                    await self._serve(worker, item)
                else:  # it was lost while it was idle
                    self._enqueue(item, self._waiting.appendleft)

    def _enqueue(self, item: _Waiting, put: Callable[[_Waiting], None]) -> None:
        put(item)
        self._queued_bytes += item.image.size
        self._arrival.set()
        self._note()

    async def _next(self) -> _Waiting:
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        item = self._waiting.popleft()
        self._queued_bytes -= item.image.size
        self._note()
        return item

    async def _serve(self, worker: Worker, item: _Waiting) -> None:
        """Have one item answered; nothing that happens to it ends the lane."""
        if item.answer.done():  # its caller has gone in this very moment
            return
        item.queue_seconds = time.monotonic() - item.queued
        try:
            answer = await worker.predict(item.spec, item.image, item.options)
        except WorkerLostError:
            self._lost_with(item)
        except Refused as refusal:
            _settle(item, refusal)
        except WorkerBugError as error:
            log.error("predictor_raised", model=self.model.name, version=self.model.version, error=str(error))  # noqa: TRY400  its traceback is the message
            _settle(item, Refused(Reason.INTERNAL))
        else:
            _settle(item, answer)

    def _lost_with(self, item: _Waiting) -> None:
        """Retry an item that was lost with its worker, once: one that kills two workers is poisonous."""
        item.losses += 1
        if item.answer.done():
            return
        if item.losses < _MOST_LOSSES:
            self._enqueue(item, self._waiting.appendleft)
        else:
            _settle(item, Refused(Reason.IMAGE_POISONOUS, losses=item.losses))

    async def _probation(self, worker: Worker) -> None:
        """Let a new worker answer the golden images, through the same channel as everything else."""
        if not self.model.golden:
            log.warning("no_golden_images", model=self.model.name, version=self.model.version)
        for golden in self.model.golden:
            image = SharedImage(golden.data)
            try:
                answer = await worker.predict(EncodedImage(), image, defaults(self.model.contract))
            except (Refused, WorkerBugError, WorkerLostError) as error:
                msg = f"golden image {golden.name} was not answered: {error}"
                raise ProbationError(msg) from error
            finally:
                image.close()
            if wrong := difference(golden, answer):
                self._golden_changed(wrong)
        log.info("worker_ready", model=self.model.name, version=self.model.version, pid=worker.pid)

    def _golden_changed(self, wrong: str) -> None:
        try:
            refuse(Check.GOLDEN_CHANGED, wrong, self.model.contract.waivers)
        except LoadRefusedError as error:
            raise ProbationError(str(error)) from error
        log.warning("golden_changed_and_waived", model=self.model.name, version=self.model.version, seen=wrong)

    async def stop(self) -> None:
        """End the lanes and the workers; whoever still waits is told to try elsewhere."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        for item in self._waiting:
            _settle(item, Refused(Reason.SHUTTING_DOWN))
        await self._pool.stop()

    def _note(self) -> None:
        self._changed.set()
        self._monitor.state(self.model, len(self._pool.workers), len(self._waiting), self._pool.restarts)


def _settle(item: _Waiting, result: Answer | Refused) -> None:
    """Give an item's caller its result, if it still waits."""
    if item.answer.done():
        return
    if isinstance(result, Refused):
        item.answer.set_exception(result)
    else:
        item.answer.set_result(result)

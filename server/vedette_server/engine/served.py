"""One model version in service: its pool, its queue, its golden images, its state."""

import asyncio
import functools
import math
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.files import declare
from vedette_server.contract.loading import CHECKS, Check, LoadRefusedError, refuse
from vedette_server.contract.options import defaults
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.estimate import Estimate, resized
from vedette_server.engine.ledger import Ledger, Run
from vedette_server.engine.query import Monitor
from vedette_server.engine.queue import Item
from vedette_server.explain.explain import usual
from vedette_server.explain.findings import Code
from vedette_server.explain.usual import Usual
from vedette_server.pool.forkserver import Forkserver
from vedette_server.pool.messages import Start
from vedette_server.pool.pool import Pool, ProbationError
from vedette_server.pool.process import Loss, Worker, WorkerBugError, WorkerLostError
from vedette_server.repository import baseline
from vedette_server.repository.golden import Golden, agreed, difference, tolerance
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()

_IDLE_SECONDS = 0.02  # between two looks whether a worker is idle
_MOST_ALIKE = 2  # workers that one image may take with it in one way, for which it is to blame
_BLAMED = {
    Loss.CRASHED: Reason.IMAGE_POISONOUS,
    Loss.OUT_OF_MEMORY: Reason.WORKER_OUT_OF_MEMORY,
    Loss.MISUNDERSTOOD: Reason.INTERNAL,
}
_MOST_LOSSES = 10  # that it may be lost with in all, whoever is to blame


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
    devices: Sequence[str]  # over which the workers are spread
    max_queued: int
    max_queued_bytes: int
    golden_seconds: float = 60.0  # between two proofs that a worker still sees; 0: only at its start
    hang_seconds: float = 60.0  # after which a worker that does nothing of what it has to do is replaced
    stuck_seconds: float = 30.0  # without an answer, after which a version that owes one is not ready
    memory_bytes: int | None = None  # that each worker may use; None: any
    violated: Callable[[Sequence[str]], None] | None = None  # told which invariants do not hold; None: never checked


def why(check: Check) -> str:
    """Why a version is unavailable, for callers: the check that it does not pass. What was seen is in the log."""
    return f"{check}: {CHECKS[check].meaning} The server's log says what was seen."


class ServedVersion:
    """Takes images for one model version and gives each, when its turn has come, to a worker that has room."""

    def __init__(
        self,
        model: ModelVersion,
        settings: PoolSettings,
        forkserver: Forkserver,
        monitor: Monitor,
        changed: asyncio.Event,
        predecessor: ModelVersion | None = None,
    ) -> None:
        """`predecessor` is the version before, whose golden images are answered too, for comparison."""
        self.model = model
        self._predecessor = predecessor  # None also once it was compared with
        self._settings = settings
        self._monitor = monitor
        self._changed = changed
        starts = [
            Start(settings.factory, str(model.folder), model.contract, device, settings.threads)
            for index in range(settings.workers)
            for device in [settings.devices[index % len(settings.devices)]]
        ]
        self._pool = Pool(starts, forkserver, settings.hang_seconds, self._probation, self._vigil, self._note)
        self._ledger = Ledger()
        self._estimate = Estimate(model.contract.resize)
        self._free_at: dict[Worker, float] = {}  # when each is expected to be through with what it has
        self._owes_since: float | None = None  # monotonic; None: there is nothing to answer, or somebody to do it
        self.stuck = False  # it has answered nothing for too long, though it has something to answer
        self.last_traffic = -math.inf  # when something but a diagnosis was put into the queue; monotonic
        # What their golden images showed last, where it is waived that this must be nothing.
        self._failing: weakref.WeakKeyDictionary[Worker, str] = weakref.WeakKeyDictionary()
        self.turn = asyncio.Lock()  # of lossless streams to read a frame, while it is crowded
        self.usual = Usual()  # what its golden images and its baseline show

    def run(self) -> None:
        """Start the workers."""
        if waivers := self.model.contract.waivers:
            log.warning("checks_waived", model=self.model.name, version=self.model.version, waivers=waivers)
        self._pool.run()
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
                if check := self._pool.check:
                    return why(check)
                return "no worker came up, or all were lost; the server's log says why; they are being restarted"

    @property
    def refused(self) -> bool:
        """Whether no worker comes up because the model does not pass a check: to wait for it is in vain."""
        return self._pool.check is not None and not self._pool.workers and self._pool.back_in is None

    @property
    def takes_queries(self) -> bool:
        """Whether it answers, or is about to again: lost workers are being replaced, and what comes may wait."""
        return self._pool.back_in is not None

    def look(self) -> None:
        """Notice whether it has answered nothing for too long, as time alone tells."""
        silent = 0.0 if self._owes_since is None else time.monotonic() - self._owes_since
        if silent > self._settings.stuck_seconds and not self.stuck:
            log.error("stuck", model=self.model.name, version=self.model.version, seconds=round(silent, 1))
            self.stuck = True
            self._changed.set()

    def excuse(self) -> None:
        """Count from now on since when it answers nothing: this process was stopped, and has heard of no answer."""
        self._owes_since = None
        self._note()

    @property
    def golden_failing(self) -> str:
        """What the golden images showed when they were last inferred, where that is waived; empty: all is well."""
        return next(filter(None, map(self._failing.get, self._pool.workers)), "")

    @property
    def workers(self) -> int:
        """How many workers it has when all is well."""
        return self._settings.workers

    @property
    def pids(self) -> list[int]:
        """The processes in rotation."""
        return [worker.pid for worker in self._pool.workers]

    @property
    def running_pids(self) -> list[int]:
        """The processes that infer something now."""
        return [worker.pid for worker in self._pool.workers if worker.batches]

    @property
    def held_bytes(self) -> int:
        """The bytes of the images that wait or run."""
        return self._ledger.queue.bytes + sum(len(item.data) for item in self._ledger.running)

    @property
    def restarts(self) -> int:
        """How many workers were replaced."""
        return self._pool.restarts

    def admit(self, item: Item) -> None:
        """Let an image wait for its turn.

        Raises `Refused`, OVERLOADED or MODEL_NOT_READY, for what cannot be answered by its deadline.
        """
        late = self._expected(item) > item.deadline - time.monotonic()
        # To try costs nothing where nothing else is to be done, and estimates can be wrong.
        idle = not self._ledger.queue and self._pool.idle is not None
        if late and not self._pool.workers:
            raise Refused(Reason.MODEL_NOT_READY, model=self.model.name, why=self.state_reason)
        if self._ledger.queue.singles >= self._settings.max_queued or (late and not idle):
            raise self._overloaded(item)
        self.put(item)

    def put(self, item: Item) -> None:
        """The same for what is never too late and bounded in number elsewhere, as the frames of streams are."""
        if not self.takes(len(item.data), streamed=bool(item.source)):
            raise self._overloaded(item)
        item.cost = self._estimate.of(item.size)
        if item.options.undo is None:
            self.last_traffic = time.monotonic()
        self._ledger.admit(item)
        item.answer.add_done_callback(lambda _done: self._withdraw(item))
        self._note()

    @property
    def crowded(self) -> bool:
        """Whether half of what streams may have waiting waits."""
        return self._ledger.queue.bytes > self._most(streamed=True) / 2

    def takes(self, size: int, *, streamed: bool) -> bool:
        """Whether there is room for an image of so many bytes to wait."""
        return self._ledger.queue.bytes + size <= self._most(streamed=streamed)

    def _most(self, *, streamed: bool) -> int:
        """The bytes that may wait. Streams leave some for single images: they can wait, and would take it all."""
        most = self._settings.max_queued_bytes
        return max(most // 2, self.model.contract.limits.max_bytes) if streamed else most

    def _expected(self, item: Item) -> float:
        """Seconds until an image would be answered, with one image's time to spare: what is late was for nothing."""
        return self._seconds_until_turn(item, time.monotonic()) + 2 * self._estimate.of(item.size)

    def _overloaded(self, item: Item) -> Refused:
        expected, left = self._expected(item), item.deadline - time.monotonic()
        retry = max(expected - left, self._estimate.of(item.size))
        facts = {"expected": f"{expected:.2f}", "left": f"{left:.2f}", "retry_seconds": f"{retry:.3f}"}
        return Refused(
            Reason.OVERLOADED, model=self.model.name, queued=len(self._ledger.queue), limit=item.limit, **facts
        )

    def _withdraw(self, item: Item) -> None:
        """Take an image off the queue that nobody waits for any more."""
        if self._ledger.withdraw(item):
            self._note()

    def _seconds_until_turn(self, item: Item, now: float) -> float:
        """How long an image would wait for a worker."""
        workers = self._pool.workers
        running = sum(max(self._free_at.get(worker, now) - now, 0.0) for worker in workers)
        waiting = (running + self._ledger.queue.seconds_before(item.flow, item.priority)) / max(len(workers), 1)
        return waiting + (self._pool.back_in or 0.0)

    def _dispatch(self) -> None:
        """Give workers that have room what is next."""
        with self._ledger.guarded(self._ledger.queue.items):  # of which none is next, if this raises
            while (item := self._ledger.queue.next(self._pool.youngest)) is not None:
                worker = self._pool.idle_since(item.since) if item.lost else self._pool.roomy
                if worker is None:
                    return
                with self._ledger.guarded([item]):
                    self._serve(item, worker)

    def _serve(self, item: Item, worker: Worker) -> None:
        """Give a worker the item whose turn it is, unless that has become hopeless."""
        cost = item.cost if len(self._ledger.queue) > 1 else 0.0  # where nothing else waits, it is tried
        if time.monotonic() + cost > item.deadline:
            self._ledger.settle(item, item.late())
        else:
            self._give(worker, self._batch(item, worker.max_batch))

    def _batch(self, first: Item, most: int) -> list[Item]:
        """What goes to a worker at once with `first`: images of its padded size, while the tightest deadline holds."""
        batch, rule = [first], self.model.contract.resize
        if first.lost or first.options.undo is not None:  # whose size may be another than the header's
            return batch
        for item in self._ledger.queue.in_turn() if most > 1 else ():
            done = time.monotonic() + sum(one.cost for one in batch) + item.cost
            alike = resized(item.size, rule) == resized(first.size, rule) and not item.lost
            alike &= item.options.panoptic_threshold == first.options.panoptic_threshold and item.options.undo is None
            if item is not first and alike and done <= min(item.deadline, *(one.deadline for one in batch)):
                batch.append(item)
            if len(batch) == most:
                break
        return batch

    def _give(self, worker: Worker, batch: Sequence[Item]) -> None:
        """Send a batch to a worker: it has all of it, or, if this raises, nothing."""
        works = [(item.spec, item.data, item.options) for item in batch]
        replies = worker.submit(works, alone=batch[0].lost)
        now = time.monotonic()
        for item, reply in zip(batch, replies, strict=True):
            self._ledger.run(item, Run(worker, reply))
            item.started = now
            reply.add_done_callback(functools.partial(self._answered, item))
        self._free_at[worker] = max(self._free_at.get(worker, now), now) + sum(item.cost for item in batch)
        if batch[0].options.undo is None:  # diagnoses are no traffic
            self._monitor.batch(self.model, len(batch))

    def _answered(self, item: Item, reply: asyncio.Future[Answer]) -> None:
        """A worker is through with an item, or was lost with it."""
        with self._ledger.guarded([item]):
            worker = self._ledger.running[item].worker
            self._conclude(item, reply)
            self._through_with(worker)
        self._note()

    def _conclude(self, item: Item, reply: asyncio.Future[Answer]) -> None:
        error = reply.exception()
        if not isinstance(error, WorkerLostError):
            self._owes_since = None  # an answer, even if it is a refusal; `_note` counts from now on
        match error:
            case None:
                answer = reply.result()
                self._ledger.settle(item, answer)
                if item.options.undo is None:  # a diagnosis leaves a part of the work out
                    self._learn(answer)
            case WorkerLostError():
                self._lost_with(item, error.loss)
            case Refused():
                self._ledger.settle(item, error)
            case WorkerBugError():
                name, version = self.model.name, self.model.version
                log.error("predictor_raised", model=name, version=version, request_id=item.request_id, error=str(error))
                self._ledger.settle(item, Refused(Reason.INTERNAL))
            case _:
                raise error

    def _through_with(self, worker: Worker) -> None:
        """A worker has one item less: it has begun with its next one just now, if it has one."""
        rest = [item.cost for item, run in self._ledger.running.items() if run.worker is worker]
        if rest:
            self._free_at[worker] = time.monotonic() + sum(rest)
        else:
            self._free_at.pop(worker, None)

    def _learn(self, answer: Answer) -> None:
        times = answer.times
        seconds = times.decode + times.preprocess + times.forward + times.postprocess
        self._estimate.learn((answer.height, answer.width), seconds)

    def _lost_with(self, item: Item, loss: Loss) -> None:
        """Retry what was lost with its worker, alone: what two workers are lost to in the same way is refused.

        Where memory was lacking, the next one is a new worker, so that nothing else can have taken it.
        """
        item.losses.append(loss)
        if loss is Loss.OUT_OF_MEMORY:
            item.since = time.monotonic()
        alike = item.losses.count(loss)
        if loss in _BLAMED and alike >= _MOST_ALIKE:
            self._ledger.settle(item, Refused(_BLAMED[loss], losses=alike))
        elif len(item.losses) >= _MOST_LOSSES:
            self._ledger.settle(item, Refused(Reason.WORKERS_LOST, losses=len(item.losses)))
        else:
            self._ledger.retry(item)

    async def _probation(self, worker: Worker) -> None:
        """Let a new worker prove that it sees before it serves."""
        if not self.model.golden:
            log.warning("no_golden_images", model=self.model.name, version=self.model.version)
        await self._answer_golden(worker)
        if predecessor := self._predecessor:
            self._predecessor = None
            await self._compare_with(predecessor, worker)
        log.info("worker_ready", model=self.model.name, version=self.model.version, pid=worker.pid)

    async def _vigil(self, worker: Worker) -> None:
        """Let a worker that serves prove it again and again; what no longer sees is replaced."""
        try:
            while self._settings.golden_seconds:
                await asyncio.sleep(self._settings.golden_seconds)
                await self._answer_golden(worker)
        except ProbationError as error:
            if worker.alive:
                log.error("worker_fails_golden", pid=worker.pid, error=str(error))  # noqa: TRY400  a reason, not a bug
                worker.dismiss()

    async def _until_idle(self, worker: Worker) -> None:
        """Wait until a worker has nothing else to do; if that takes too long, until it has room."""
        patience = time.monotonic() + self._settings.golden_seconds

        def ready() -> bool:
            return not worker.alive or (worker.room and (time.monotonic() > patience or not worker.batches))

        while not ready():  # noqa: ASYNC110  workers tell when they have room, and not when time has passed
            await asyncio.sleep(_IDLE_SECONDS)

    async def _answer_golden(self, worker: Worker) -> None:
        """Have a worker answer the golden images, through the same channel as everything else.

        Nothing of it is told to the monitor as traffic. Raises `ProbationError`, unless GOLDEN_CHANGED is waived.
        """
        failing, cause, answers = "", None, []
        allowed = tolerance(self.model.contract.precision)
        for golden in self.model.golden:
            await self._until_idle(worker)
            answer = await self._answer_one(golden, worker)
            answers.append(answer)
            if wrong := difference(golden, answer, allowed):
                failing, cause = failing or wrong, cause or _cause(answer)
                self._golden_changed(wrong, cause)
            if golden is self.model.golden[-1]:  # the first ones warm the model up
                self._learn(answer)
        self._failing[worker] = failing
        limits = baseline.limits(self.model)
        self.usual = usual(answers, self.model.contract, sees=not failing, limits=limits)
        if self.model.golden:
            self._monitor.golden(self.model, cause)

    async def _answer_one(self, golden: Golden, worker: Worker) -> Answer:
        """Have a worker answer one golden image. Raises `ProbationError`."""
        try:
            return await worker.predict(*declare(golden.data, self.model.contract), defaults(self.model.contract))
        except (Refused, WorkerBugError, WorkerLostError) as error:
            msg = f"golden image {golden.name} was not answered: {error}"
            raise ProbationError(msg) from error

    async def _compare_with(self, predecessor: ModelVersion, worker: Worker) -> None:
        """Tell how far this version agrees with the one before: a wrong class order shows before any traffic comes."""
        names, its = predecessor.contract.class_names, self.model.contract.class_names
        found = expected = 0
        for golden in predecessor.golden:
            try:
                answer = await self._answer_one(golden, worker)
            except ProbationError as error:
                if not worker.alive:
                    raise
                # It need not take what the one before took.
                log.warning("not_compared", model=self.model.name, version=self.model.version, why=str(error))
            else:
                found += agreed(golden, names, answer, its)
                expected += len(golden.objects)
        if not expected:
            return
        share = 1 - found / expected
        log.info(
            "compared", model=self.model.name, version=self.model.version, with_=predecessor.version, differs=share
        )
        self._monitor.disagrees(self.model, predecessor, share)

    def _golden_changed(self, wrong: str, cause: Code) -> None:
        try:
            refuse(Check.GOLDEN_CHANGED, wrong, self.model.contract.waivers)
        except LoadRefusedError as error:
            self._monitor.golden(self.model, cause)
            raise ProbationError(str(error), error.check) from error
        log.warning("golden_changed_and_waived", model=self.model.name, version=self.model.version, seen=wrong)

    def dump(self) -> None:
        """Have every worker write its stacks to stderr."""
        for worker in self._pool.workers:
            worker.dump()

    async def drain(self) -> None:
        """Wait until everything that was taken is answered."""
        await self._ledger.empty.wait()

    async def stop(self) -> None:
        """End the workers; whoever still waits is told to try elsewhere."""
        for item in self._ledger.queue.items:
            self._ledger.settle(item, Refused(Reason.SHUTTING_DOWN))
        await self._pool.stop()
        left = self._ledger.admitted - self._ledger.settled
        self._check([f"{left} items are not settled after the last worker has ended"] if left else [])

    def _check(self, violations: Sequence[str]) -> None:
        if violations and self._settings.violated:
            self._settings.violated(violations)

    @property
    def _owes(self) -> bool:
        """Whether something waits, or runs where no worker is left that could answer anything else."""
        busy = {run.worker for run in self._ledger.running.values()}
        return bool(self._ledger.queue) or (bool(busy) and busy.issuperset(self._pool.workers))

    def _note(self) -> None:
        """Something has changed: go on with what can go on, and tell whoever wants to know."""
        self._dispatch()
        if not (owes := self._owes):
            self._owes_since = None
        if self._owes_since is None:
            self.stuck = False
            self._owes_since = time.monotonic() if owes else None
        self._check(self._ledger.violations())
        self._changed.set()
        self._monitor.state(
            self.model,
            workers=len(self._pool.workers),
            wanted=self._settings.workers,
            queued=len(self._ledger.queue),
            running=len(self._ledger.running),
            restarts=self._pool.restarts,
        )
        self._monitor.lost(self.model, self._pool.losses)
        self._monitor.owes(self.model, self._owes_since)


def _cause(answer: Answer) -> Code:
    """Why a golden image is answered otherwise than it must be, as far as its own answer tells."""
    broken = answer.evidence.not_finite or answer.evidence.dropped
    return Code.NON_FINITE_VALUES if broken else Code.GOLDEN_FAILING

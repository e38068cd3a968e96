"""Admission, dispatch and settlement of one version's images."""

import asyncio
import functools
import math
from collections.abc import Callable, Sequence

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.estimate import Estimate, resized
from vedette_server.engine.ledger import Ledger, Run
from vedette_server.engine.query import Monitor
from vedette_server.engine.queue import Item
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import Standing
from vedette_server.pool.ends import Loss
from vedette_server.pool.pool import Pool
from vedette_server.pool.process import Worker, WorkerBugError, WorkerLostError
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()

_MOST_ALIKE = 2  # workers that one image may take with it in one way, for which it is to blame
_BLAMED = {
    Loss.CRASHED: Reason.IMAGE_POISONOUS,
    Loss.OUT_OF_MEMORY: Reason.WORKER_OUT_OF_MEMORY,
    Loss.MISUNDERSTOOD: Reason.INTERNAL,
}
_MOST_LOSSES = 10  # that it may be lost with in all, whoever is to blame


class Scheduler:
    """Takes images for one model version and gives each, when its turn has come, to a worker that has room."""

    def __init__(
        self,
        model: ModelVersion,
        settings: PoolSettings,
        pool: Pool,
        ledger: Ledger,
        estimate: Estimate,
        standing: Standing,
        monitor: Monitor,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when there may be something to dispatch, and to tell of."""
        self._model = model
        self._settings = settings
        self._pool = pool
        self._ledger = ledger
        self._estimate = estimate
        self._standing = standing
        self._monitor = monitor
        self._changed = changed
        self._clock = pool.clock
        self._free_at: dict[Worker, float] = {}  # when each is expected to be through with what it has
        self.workers = settings.workers  # how many there are when all is well
        self.last_traffic = -math.inf  # when something but a diagnosis was put into the queue; monotonic
        self.turn = asyncio.Lock()  # of lossless streams to read a frame, while it is crowded

    @property
    def held_bytes(self) -> int:
        """The bytes of the images that wait or run."""
        return self._ledger.queue.bytes + sum(len(item.image.data) for item in self._ledger.running)

    def admit(self, item: Item) -> None:
        """Let an image wait for its turn.

        Raises `Refused`: DEADLINE_EXCEEDED, OVERLOADED or MODEL_NOT_READY, for what cannot be answered by its deadline.
        """
        late = self._expected(item) > item.deadline - self._clock()
        # To try costs nothing where nothing else is to be done, and estimates can be wrong.
        idle = not self._ledger.queue and self._pool.idle is not None
        if late and not self._pool.workers:
            raise Refused(Reason.MODEL_NOT_READY, model=self._model.name, why=self._standing.reason)
        if self._ledger.queue.singles >= self._settings.max_queued or (late and not idle):
            raise self._overloaded(item)
        self.put(item)

    def put(self, item: Item) -> None:
        """The same for what is never too late and bounded in number elsewhere, as the frames of streams are."""
        if not self.takes(len(item.image.data), streamed=bool(item.source)):
            raise self._overloaded(item)
        item.cost = self._estimate.of(item.size)
        if item.options.undo is None:
            self.last_traffic = self._clock()
        self._ledger.admit(item)
        item.answer.add_done_callback(lambda _done: self._withdraw(item))
        self._changed()

    @property
    def crowded(self) -> bool:
        """True if half of the streams' share of the queue is taken."""
        return self._ledger.queue.bytes > self._most(streamed=True) / 2

    def takes(self, size: int, *, streamed: bool) -> bool:
        """Return whether the queue has room for an image of so many bytes."""
        return self._ledger.queue.bytes + size <= self._most(streamed=streamed)

    def _most(self, *, streamed: bool) -> int:
        """The bytes that may wait. Streams leave some for single images: they can wait, and would take it all."""
        most = self._settings.max_queued_bytes
        return max(most // 2, self._model.contract.limits.max_bytes) if streamed else most

    def _expected(self, item: Item) -> float:
        """Seconds until an image would be answered, with one image's time to spare: what is late was for nothing."""
        workers, now = self._pool.workers, self._clock()
        running = sum(max(self._free_at.get(worker, now) - now, 0.0) for worker in workers)
        waiting = (running + self._ledger.queue.seconds_before(item.flow, item.priority)) / max(len(workers), 1)
        return waiting + (self._pool.back_in or 0.0) + 2 * self._estimate.of(item.size)

    def _overloaded(self, item: Item) -> Refused:
        expected, left = self._expected(item), item.deadline - self._clock()
        if left <= 0:
            return item.late()
        retry = max(expected - left, self._estimate.of(item.size))
        facts = {"expected": f"{expected:.2f}", "left": f"{left:.2f}", "retry_seconds": f"{retry:.3f}"}
        facts |= {"model": self._model.name, "limit": item.limit}
        return Refused(Reason.OVERLOADED, queued=len(self._ledger.queue), **facts)

    def _withdraw(self, item: Item) -> None:
        """Take an image off the queue that nobody waits for any more."""
        if self._ledger.withdraw(item):
            self._changed()

    def dispatch(self) -> None:
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
        if self._clock() + cost > item.deadline:
            self._ledger.settle(item, item.late())
        else:
            self._give(worker, self._batch(item, worker.max_batch))

    def _batch(self, first: Item, most: int) -> list[Item]:
        """Return `first` and the images to batch with it: of its padded size, while the tightest deadline holds."""
        batch, rule = [first], self._model.contract.resize
        if first.lost or first.options.undo is not None:  # whose size may be another than the header's
            return batch
        for item in self._ledger.queue.in_turn() if most > 1 else ():
            done = self._clock() + sum(one.cost for one in batch) + item.cost
            alike = resized(item.size, rule) == resized(first.size, rule) and not item.lost
            alike &= item.options.panoptic_threshold == first.options.panoptic_threshold and item.options.undo is None
            if item is not first and alike and done <= min(item.deadline, *(one.deadline for one in batch)):
                batch.append(item)
            if len(batch) == most:
                break
        return batch

    def _give(self, worker: Worker, batch: Sequence[Item]) -> None:
        """Send a batch to a worker: it has all of it, or, if this raises, nothing."""
        works = [(item.image, item.options) for item in batch]
        now = self._clock()  # before the worker can begin, so that no time counts as waiting and as work
        replies = worker.submit(works, alone=batch[0].lost)
        for item, reply in zip(batch, replies, strict=True):
            self._ledger.run(item, Run(worker, reply))
            item.started = now
            reply.add_done_callback(functools.partial(self._answered, item))
        self._free_at[worker] = max(self._free_at.get(worker, now), now) + sum(item.cost for item in batch)
        if batch[0].options.undo is None:  # diagnoses are no traffic
            self._monitor.batch(self._model, len(batch))

    def _answered(self, item: Item, reply: asyncio.Future[Answer]) -> None:
        """A worker is through with an item, or was lost with it."""
        with self._ledger.guarded([item]):
            worker = self._ledger.running[item].worker
            self._conclude(item, reply)
            self._through_with(worker)
        self._changed()

    def _conclude(self, item: Item, reply: asyncio.Future[Answer]) -> None:
        error = reply.exception()
        if not isinstance(error, WorkerLostError):
            self._standing.answered()
        match error:
            case None:
                answer = reply.result()
                self._ledger.settle(item, answer)
                if item.options.undo is None:  # a diagnosis leaves a part of the work out
                    self._estimate.learn_from(answer)
            case WorkerLostError():
                self._lost_with(item, error.loss)
            case Refused():
                self._ledger.settle(item, error)
            case WorkerBugError():
                name, version = self._model.name, self._model.version
                log.error("predictor_raised", model=name, version=version, request_id=item.request_id, error=str(error))
                self._ledger.settle(item, Refused(Reason.INTERNAL))
            case _:
                raise error

    def _through_with(self, worker: Worker) -> None:
        """A worker has one item less: it has begun with its next one just now, if it has one."""
        rest = [item.cost for item, run in self._ledger.running.items() if run.worker is worker]
        if rest:
            self._free_at[worker] = self._clock() + sum(rest)
        else:
            self._free_at.pop(worker, None)

    def _lost_with(self, item: Item, loss: Loss) -> None:
        """Retry what was lost with its worker, alone: what two workers are lost to in the same way is refused.

        Where memory was lacking, the next one is a new worker, so that nothing else can have taken it.
        """
        item.losses.append(loss)
        if loss is Loss.OUT_OF_MEMORY:
            item.since = self._clock()
        alike = item.losses.count(loss)
        if loss in _BLAMED and alike >= _MOST_ALIKE:
            self._ledger.settle(item, Refused(_BLAMED[loss], losses=alike))
        elif len(item.losses) >= _MOST_LOSSES:
            self._ledger.settle(item, Refused(Reason.WORKERS_LOST, losses=len(item.losses)))
        else:
            self._ledger.retry(item)

    def give_up(self) -> None:
        """Tell whoever still waits to try elsewhere."""
        for item in self._ledger.queue.items:
            self._ledger.settle(item, Refused(Reason.SHUTTING_DOWN))

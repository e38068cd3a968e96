"""One worker process, as the gateway holds it."""

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TypeAlias

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import Buffer, ImageSpec
from vedette_server.contract.loading import Check
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Refused
from vedette_server.pool import device, oom
from vedette_server.pool.channel import ChannelBlockedError, ChannelClosedError, GatewayEnd
from vedette_server.pool.forkserver import ForkError, Forkserver, Process
from vedette_server.pool.messages import Alive, Batch, Done, Failed, FromWorker, Job, LoadFailed, Ready, Refusal, Start
from vedette_server.pool.slots import Slot

log = structlog.get_logger()

DEPTH = 2  # batches that a worker has before it is through with them: one is inferred, the next is prepared meanwhile
_MOST_BATCHES = 4  # that it has in all, with those that are being encoded
_LOAD_SECONDS = 600.0  # for a predictor to be loaded: the largest, from a slow disk
_STOP_SECONDS = 5.0  # for a worker to end by itself after its channel was closed
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)

_kills = oom.Kills()  # the kernel's count is one for all workers

Work: TypeAlias = tuple[ImageSpec, Buffer, Options]


class WorkerStartError(Exception):
    """A worker did not come up; the message says why, for the operator."""

    def __init__(self, message: str, check: Check | None = None) -> None:
        """`check` is what the model did not pass, where it is that."""
        super().__init__(message)
        self.check = check


class End(StrEnum):
    """Why a worker ended, as far as that can be known."""

    OUT_OF_MEMORY = "out_of_memory"
    KILLED = "killed"  # by a signal from outside
    HUNG = "hung"  # it did nothing of what it had to do
    DISMISSED = "dismissed"  # it no longer answered as it must
    DEVICE_FAILED = "device_failed"  # nothing can be computed on its GPU any more
    CRASHED = "crashed"


class Loss(Enum):
    """How a worker ended while it had a job."""

    CRASHED = auto()  # by itself, or because it hung: the job may be to blame
    OUT_OF_MEMORY = auto()  # the job may be to blame, or whatever else was in memory
    KILLED = auto()  # by a signal from outside, or dismissed: the job is not to blame
    MISUNDERSTOOD = auto()  # it said what the gateway cannot read: a bug


_LOSSES = {
    End.OUT_OF_MEMORY: Loss.OUT_OF_MEMORY,
    End.KILLED: Loss.KILLED,
    End.HUNG: Loss.CRASHED,
    End.DISMISSED: Loss.KILLED,
    End.DEVICE_FAILED: Loss.CRASHED,
    End.CRASHED: Loss.CRASHED,
}


class WorkerLostError(Exception):
    """A worker ended while it had a job."""

    def __init__(self, message: str, loss: Loss) -> None:
        super().__init__(message)
        self.loss = loss


class WorkerBugError(Exception):
    """A predictor raised on a job; the message is its traceback, for the operator."""


@dataclass(eq=False)
class _Underway:
    """A job that a worker has."""

    slot: int | None  # None: the model is through with it, so that only its encoding is to come
    answer: asyncio.Future[Answer]
    batch: int


@dataclass(eq=False)
class _Memory:
    """The slots of one worker."""

    free: list[int] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    def give_back(self, job: _Underway) -> None:
        if job.slot is not None:
            self.free.append(job.slot)
            job.slot = None

    def forget(self, slots: Sequence[int]) -> None:
        """Take slots back whose memory has to be new when they are used again."""
        for number in slots:
            self.slots[number].close()
        self.free += slots

    def take(self) -> int:
        if not self.free:
            self.slots.append(Slot())
            return len(self.slots) - 1
        return self.free.pop()


class Worker:
    """A running worker process, with its predictor loaded."""

    def __init__(self, process: Process, channel: GatewayEnd, changed: Callable[[], None]) -> None:
        self._process = process
        self.forked = time.monotonic()
        self._channel = channel
        self._changed = changed  # called when there is room for another batch
        self._ids = itertools.count(1)
        self._underway: dict[int, _Underway] = {}
        self._memory = _Memory()
        self._sign = time.monotonic()  # when it last did something; that it lives suffices while it has nothing to do
        self._hung = False
        self._dismissed = False
        self._limited = oom.limited()
        self._end: End | None = None  # once it is known
        self._alone = False  # whether what it has was lost with another worker
        self._listening: asyncio.Task[None] | None = None
        self.alive = True
        self.max_batch = 1

    @classmethod
    async def spawn(cls, start: Start, forkserver: Forkserver, changed: Callable[[], None]) -> "Worker":
        """Have a process forked and wait until its predictor is loaded. Raises `WorkerStartError`."""
        try:
            process, channel = await forkserver.fork()
        except ForkError as error:
            raise _unforked(error) from error
        worker = cls(process, channel, changed)
        worker._limited |= forkserver.memory_bytes is not None
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                await worker._load(start)
        except TimeoutError as error:
            worker.dump()
            await worker.stop()
            msg = f"worker {worker.pid} has not loaded its predictor within {_LOAD_SECONDS:.0f} s"
            raise WorkerStartError(msg) from error
        except BaseException:
            await worker.stop()
            raise
        worker._listening = asyncio.create_task(worker._listen())
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def batches(self) -> int:
        """How many batches it is not through with."""
        return len({job.batch for job in self._underway.values() if job.slot is not None})

    @property
    def room(self) -> bool:
        """Whether it can take another batch. Beside what another worker was lost with, it is given nothing."""
        batches = self.batches
        behind = len({job.batch for job in self._underway.values()}) >= _MOST_BATCHES
        return self.alive and not behind and (not batches or (batches < DEPTH and not self._alone))

    @property
    def silent_seconds(self) -> float:
        """Since when it has been seen to do nothing, though it has something to do."""
        return time.monotonic() - self._sign

    def excuse(self) -> None:
        """Count its silence from now on."""
        self._sign = time.monotonic()

    async def _load(self, start: Start) -> None:
        try:
            self._channel.send(start)
            reply = await self._channel.receive()
        except ChannelClosedError as error:
            status = await self._process.wait()
            check = Check.OUT_OF_MEMORY if self.cause(status) is End.OUT_OF_MEMORY else None
            msg = f"worker {self.pid} ended while loading, with status {status}"
            raise WorkerStartError(f"{check}: {msg}" if check else msg, check) from error
        if isinstance(reply, LoadFailed):
            raise WorkerStartError(reply.error, reply.check)
        assert isinstance(reply, Ready)  # noqa: S101  the protocol's only other reply
        self.max_batch = reply.max_batch
        self._sign = time.monotonic()

    def submit(self, works: Sequence[Work], *, alone: bool = False) -> list[asyncio.Future[Answer]]:
        """Give it one batch; there must be room. `alone` keeps it from getting another one meanwhile.

        It takes all of them, or none if this raises: `MessageTooLargeError`, or `OSError` where memory is lacking.
        Each future gets an answer, or raises `Refused` for what is wrong with the image, `WorkerBugError` for what is
        wrong with the predictor, `WorkerLostError` if the process ends meanwhile.
        """
        slots = [self._memory.take() for _ in works]
        try:
            jobs = [self._job(number, work) for number, work in zip(slots, works, strict=True)]
            self._send(jobs)
        except BaseException:
            self._memory.forget(slots)  # the worker may not have their memory
            raise
        if not self._underway:
            self._sign = time.monotonic()  # what it does from now on is this
        batch, self._alone = next(self._ids), alone
        sent = [_Underway(number, asyncio.get_running_loop().create_future(), batch) for number in slots]
        self._underway.update(zip((job.job_id for job in jobs), sent, strict=True))
        return [job.answer for job in sent]

    def _job(self, number: int, work: Work) -> Job:
        """Put an image into a slot."""
        spec, data, options = work
        fresh = self._memory.slots[number].write(data)
        return Job(next(self._ids), number, len(data), fresh, spec, options)

    def _send(self, jobs: Sequence[Job]) -> None:
        slots = [self._memory.slots[job.slot] for job in jobs]
        try:
            self._channel.send(Batch(tuple(jobs)), [slot.fd for slot in slots if slot.fd is not None])
        except ChannelBlockedError:
            self.give_up()
        except ChannelClosedError:
            pass  # `_listen` finds that out too, and tells every future
        for slot in slots:
            slot.given()

    def has(self, answer: asyncio.Future[Answer]) -> bool:
        """Whether it was sent the job of this future, and its end would be told to that."""
        listens = self._listening is not None and not self._listening.done()
        return listens and any(job.answer is answer for job in self._underway.values())

    async def predict(self, spec: ImageSpec, data: Buffer, options: Options) -> Answer:
        """Have one image answered; raises what `submit` says."""
        (future,) = self.submit([(spec, data, options)])
        return await future

    async def _listen(self) -> None:
        """Take what the worker says, until it is gone; then tell everyone who waits for it."""
        misunderstood = False
        try:
            while True:
                self._take(await self._channel.receive())
        except ChannelClosedError:
            pass
        except Exception:  # whatever it is, nobody must wait for this worker any more
            log.exception("worker_misunderstood", pid=self.pid)
            misunderstood = True
        self._kill()
        status = await self._process.wait()
        loss = Loss.MISUNDERSTOOD if misunderstood else _LOSSES[self.cause(status)]
        error = WorkerLostError(f"worker {self.pid}, status {status}", loss)
        for job in self._underway.values():
            if not job.answer.done():
                job.answer.set_exception(error)
        self._underway.clear()
        self._changed()

    def _take(self, message: FromWorker) -> None:
        match message:
            case Alive(through=through):
                if through or not self._underway:  # a loop that goes round while a stage beside it hangs does nothing
                    self._sign = time.monotonic()
                for job_id in through:
                    if job := self._underway.get(job_id):
                        self._memory.give_back(job)
                if through:
                    self._changed()
            case Done(job_id=job_id, answer=answer):
                self._settle(job_id, answer)
            case Refusal(job_id=job_id, reason=reason, facts=facts):
                self._settle(job_id, Refused(reason, **facts))
            case Failed(job_id=job_id, error=trace):
                self._settle(job_id, WorkerBugError(trace))

    def _settle(self, job_id: int, result: Answer | Exception) -> None:
        job = self._underway.pop(job_id)
        self._sign = time.monotonic()
        self._memory.give_back(job)
        if not job.answer.done():
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
        self._changed()

    def dump(self) -> None:
        """Have the process write its stacks to stderr."""
        self._process.send_signal(signal.SIGQUIT)

    def give_up(self) -> None:
        """End a process that hangs; what it has is lost, and to blame."""
        self._hung = True
        self._kill()

    def dismiss(self) -> None:
        """End a process that can no longer be trusted; what it has is lost, and not to blame."""
        self._dismissed = True
        self._kill()

    def cause(self, status: int) -> End:
        """Why it ended with this status; asked again, the same."""
        if self._end is None:
            by_us = self._hung or self._dismissed
            if oom.ended(status, _kills, by_us=by_us, limit=self._limited):
                self._end = End.OUT_OF_MEMORY
            elif by_us:
                self._end = End.HUNG if self._hung else End.DISMISSED
            elif status == device.EXIT_STATUS:
                self._end = End.DEVICE_FAILED
            else:
                self._end = End.KILLED if status in _FROM_OUTSIDE else End.CRASHED
        return self._end

    def _kill(self) -> None:
        """End the process, if it has not ended."""
        self.alive = False
        self._process.send_signal(signal.SIGKILL)

    async def ended(self) -> int:
        """Wait until the process has ended; returns its exit status, negative for a signal."""
        status = await self._process.wait()
        self.alive = False
        return status

    async def stop(self) -> None:
        """End the process: close its channel, and kill it if it does not go by itself."""
        self.alive = False
        self._channel.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            self._kill()
            await self._process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            if self._listening:
                await self._listening
            for slot in self._memory.slots:
                slot.close()
            self._process.close()


def _unforked(error: ForkError) -> WorkerStartError:
    """Why there was no process, for the operator."""
    lacked = error.status is not None and oom.ended(error.status, _kills, by_us=False, limit=oom.limited())
    check = Check.OUT_OF_MEMORY if lacked else None
    return WorkerStartError(f"{check}: {error}" if check else str(error), check)

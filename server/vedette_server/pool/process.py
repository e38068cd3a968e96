"""The gateway's handle on one worker process."""

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

DEPTH = 2  # unfinished batches per worker: one is inferred while the next is prepared
_MOST_BATCHES = 4  # in flight per worker, including those being encoded
_LOAD_SECONDS = 600.0  # for loading the largest predictor from a slow disk
_STOP_SECONDS = 5.0  # for a worker to exit after its channel closes
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)

_kills = oom.Kills()  # shared by all workers, because the kernel counts per group

Work: TypeAlias = tuple[ImageSpec, Buffer, Options]


class WorkerStartError(Exception):
    """A worker failed to start; the message says why, for the operator."""

    def __init__(self, message: str, check: Check | None = None) -> None:
        """`check` is the check that the model failed, if it was one."""
        super().__init__(message)
        self.check = check


class End(StrEnum):
    """The cause of a worker's end, as far as can be known."""

    OUT_OF_MEMORY = "out_of_memory"
    KILLED = "killed"  # by a signal from outside
    HUNG = "hung"  # made no progress
    DISMISSED = "dismissed"  # failed a golden image, or was otherwise distrusted
    DEVICE_FAILED = "device_failed"  # its GPU can no longer compute
    CRASHED = "crashed"


class Loss(Enum):
    """The way in which a worker ended during a job."""

    CRASHED = auto()  # crashed or hung: the job may be to blame
    OUT_OF_MEMORY = auto()  # the job or other memory use may be to blame
    KILLED = auto()  # by a signal from outside, or dismissed: the job is innocent
    MISUNDERSTOOD = auto()  # sent a message that the gateway cannot read: a bug


_LOSSES = {
    End.OUT_OF_MEMORY: Loss.OUT_OF_MEMORY,
    End.KILLED: Loss.KILLED,
    End.HUNG: Loss.CRASHED,
    End.DISMISSED: Loss.KILLED,
    End.DEVICE_FAILED: Loss.CRASHED,
    End.CRASHED: Loss.CRASHED,
}


class WorkerLostError(Exception):
    """A worker ended during a job."""

    def __init__(self, message: str, loss: Loss) -> None:
        super().__init__(message)
        self.loss = loss


class WorkerBugError(Exception):
    """A predictor raised on a job; the message is its traceback, for the operator."""


@dataclass(eq=False)
class _Underway:
    """A job in flight on a worker."""

    slot: int | None  # None: the model is done with it, and only encoding remains
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
        """Take back slots that need new memory before they are reused."""
        for number in slots:
            self.slots[number].close()
        self.free += slots

    def take(self) -> int:
        if not self.free:
            self.slots.append(Slot())
            return len(self.slots) - 1
        return self.free.pop()


class Worker:
    """A running worker process with a loaded predictor."""

    def __init__(self, process: Process, channel: GatewayEnd, changed: Callable[[], None]) -> None:
        self._process = process
        self.forked = time.monotonic()
        self._channel = channel
        self._changed = changed  # called when there is room for another batch
        self._ids = itertools.count(1)
        self._underway: dict[int, _Underway] = {}
        self._memory = _Memory()
        self._sign = time.monotonic()  # time of its last progress; while idle, being alive counts
        self._hung = False
        self._dismissed = False
        self._limited = oom.limited()
        self._end: End | None = None  # once known
        self._alone = False  # whether its current batch was lost with another worker before
        self._listening: asyncio.Task[None] | None = None
        self.alive = True
        self.max_batch = 1

    @classmethod
    async def spawn(cls, start: Start, forkserver: Forkserver, changed: Callable[[], None]) -> "Worker":
        """Fork a process and wait until its predictor is loaded. Raises `WorkerStartError`."""
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
            msg = f"worker {worker.pid} did not load its predictor within {_LOAD_SECONDS:.0f} s"
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
        """The number of batches whose inference is unfinished."""
        return len({job.batch for job in self._underway.values() if job.slot is not None})

    @property
    def room(self) -> bool:
        """True if it can take another batch. A batch that was lost with another worker gets a worker to itself."""
        batches = self.batches
        behind = len({job.batch for job in self._underway.values()}) >= _MOST_BATCHES
        return self.alive and not behind and (not batches or (batches < DEPTH and not self._alone))

    @property
    def silent_seconds(self) -> float:
        """The seconds without visible progress while it has something to do."""
        return time.monotonic() - self._sign

    def excuse(self) -> None:
        """Restart the count of its silence."""
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
        """Send one batch, for which there must be room. `alone` keeps other batches away meanwhile.

        It takes the whole batch, or none of it if this raises: `MessageTooLargeError`, or `OSError` if memory is
        lacking. Each future yields an answer, or raises `Refused` for a fault of the image, `WorkerBugError` for a
        fault of the predictor, or `WorkerLostError` if the process ends first.
        """
        slots = [self._memory.take() for _ in works]
        try:
            jobs = [self._job(number, work) for number, work in zip(slots, works, strict=True)]
            self._send(jobs)
        except BaseException:
            self._memory.forget(slots)  # the worker may not have received their memory
            raise
        if not self._underway:
            self._sign = time.monotonic()  # its silence counts from here
        batch, self._alone = next(self._ids), alone
        sent = [_Underway(number, asyncio.get_running_loop().create_future(), batch) for number in slots]
        self._underway.update(zip((job.job_id for job in jobs), sent, strict=True))
        return [job.answer for job in sent]

    def _job(self, number: int, work: Work) -> Job:
        """Copy an image into a slot."""
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
            pass  # `_listen` notices it too, and fails every future
        for slot in slots:
            slot.given()

    def has(self, answer: asyncio.Future[Answer]) -> bool:
        """Return whether it has this future's job, so that its end would fail the future."""
        listens = self._listening is not None and not self._listening.done()
        return listens and any(job.answer is answer for job in self._underway.values())

    async def predict(self, spec: ImageSpec, data: Buffer, options: Options) -> Answer:
        """Answer one image. Raises like `submit`."""
        (future,) = self.submit([(spec, data, options)])
        return await future

    async def _listen(self) -> None:
        """Receive messages until the worker is gone, then fail the futures of its jobs."""
        misunderstood = False
        try:
            while True:
                self._take(await self._channel.receive())
        except ChannelClosedError:
            pass
        except Exception:  # whatever it is, nobody may wait for this worker any longer
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
                if through or not self._underway:  # an idle loop beside a hung stage is not progress
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
        """Make the process dump its stacks to stderr."""
        self._process.send_signal(signal.SIGQUIT)

    def give_up(self) -> None:
        """Kill a hung process; its jobs are lost, and blamed."""
        self._hung = True
        self._kill()

    def dismiss(self) -> None:
        """Kill a distrusted process; its jobs are lost, but not blamed."""
        self._dismissed = True
        self._kill()

    def cause(self, status: int) -> End:
        """Return the cause of its end, given the exit status; repeated calls return the same."""
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
        """Kill the process if it is still running."""
        self.alive = False
        self._process.send_signal(signal.SIGKILL)

    async def ended(self) -> int:
        """Wait until the process has ended; return its exit status, negative for a signal."""
        status = await self._process.wait()
        self.alive = False
        return status

    async def stop(self) -> None:
        """Stop the process: close its channel, and kill it if it does not exit."""
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
    """Return the error for a worker that could not be forked, for the operator."""
    lacked = error.status is not None and oom.ended(error.status, _kills, by_us=False, limit=oom.limited())
    check = Check.OUT_OF_MEMORY if lacked else None
    return WorkerStartError(f"{check}: {error}" if check else str(error), check)

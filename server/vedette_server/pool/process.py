"""The gateway's handle on one worker process."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import TypeAlias

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import SentImage
from vedette_server.contract.loading import Check
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Refused
from vedette_server.pool.channel import ChannelBlockedError, ChannelClosedError, GatewayEnd
from vedette_server.pool.ends import LOSSES, End, Ending, Loss, lacked_memory
from vedette_server.pool.forkserver import ForkError, Forkserver, Process
from vedette_server.pool.jobs import Jobs, Work
from vedette_server.pool.messages import Alive, Batch, Done, Failed, FromWorker, Job, LoadFailed, Ready, Refusal, Start

log = structlog.get_logger()

_LOAD_SECONDS = 600.0  # for loading the largest predictor from a slow disk
_STOP_SECONDS = 5.0  # for a worker to exit after its channel closes

Notice: TypeAlias = Callable[[], None]  # that something has changed


class WorkerStartError(Exception):
    """A worker failed to start; the message says why, for the operator."""

    def __init__(self, message: str, check: Check | None = None) -> None:
        """`check` is the check that the model failed, if it was one."""
        super().__init__(message)
        self.check = check


class WorkerLostError(Exception):
    """A worker ended during a job."""

    def __init__(self, message: str, loss: Loss) -> None:
        super().__init__(message)
        self.loss = loss


class WorkerBugError(Exception):
    """A predictor raised on a job; the message is its traceback, for the operator."""


class Worker:
    """A running worker process with a loaded predictor."""

    def __init__(
        self, process: Process, channel: GatewayEnd, ending: Ending, changed: Notice, clock: Callable[[], float]
    ) -> None:
        """`ending` is to find out how it ends; `clock` is monotonic."""
        self._process = process
        self._clock = clock
        self.forked = clock()
        self._channel = channel
        self._changed = changed  # called when there is room for another batch
        self._jobs = Jobs()
        self._sign = clock()  # time of its last progress; while idle, being alive counts
        self._ending = ending
        self._listening: asyncio.Task[None] | None = None
        self.alive = True
        self.max_batch = 1

    @classmethod
    async def spawn(cls, start: Start, forkserver: Forkserver, changed: Notice, clock: Callable[[], float]) -> "Worker":
        """Fork a process and wait until its predictor is loaded. Raises `WorkerStartError`."""
        try:
            process, channel = await forkserver.fork()
        except ForkError as error:
            raise _unforked(error) from error
        worker = cls(process, channel, Ending(limited=forkserver.memory_bytes is not None), changed, clock)
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
        return self._jobs.batches

    @property
    def room(self) -> bool:
        """True if it can take another batch."""
        return self.alive and self._jobs.room

    @property
    def silent_seconds(self) -> float:
        """The seconds without visible progress while it has something to do."""
        return self._clock() - self._sign

    def excuse(self) -> None:
        """Restart the count of its silence."""
        self._sign = self._clock()

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
        self._sign = self._clock()

    def submit(self, works: Sequence[Work], *, alone: bool = False) -> list[asyncio.Future[Answer]]:
        """Send one batch, for which there must be room. `alone` keeps other batches away meanwhile.

        It takes the whole batch, or none of it if this raises: `MessageTooLargeError`, or `OSError` if memory is
        lacking. Each future yields an answer, or raises `Refused` for a fault of the image, `WorkerBugError` for a
        fault of the predictor, or `WorkerLostError` if the process ends first.
        """
        with self._jobs.written(works) as (jobs, fds):
            self._send(jobs, fds)
        if not self._jobs:
            self._sign = self._clock()  # its silence counts from here
        return self._jobs.add(jobs, alone=alone)

    def _send(self, jobs: Sequence[Job], fds: Sequence[int]) -> None:
        try:
            self._channel.send(Batch(tuple(jobs)), fds)
        except ChannelBlockedError:
            self.give_up()
        except ChannelClosedError:
            pass  # `_listen` notices it too, and fails every future

    def has(self, answer: asyncio.Future[Answer]) -> bool:
        """Return whether it has this future's job, so that its end would fail the future."""
        listens = self._listening is not None and not self._listening.done()
        return listens and self._jobs.has(answer)

    async def predict(self, image: SentImage, options: Options) -> Answer:
        """Answer one image. Raises like `submit`."""
        (future,) = self.submit([(image, options)])
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
        loss = Loss.MISUNDERSTOOD if misunderstood else LOSSES[self.cause(status)]
        self._jobs.fail(WorkerLostError(f"worker {self.pid}, status {status}", loss))
        self._changed()

    def _take(self, message: FromWorker) -> None:
        match message:
            case Alive(through=through):
                if through or not self._jobs:  # an idle loop beside a hung stage is not progress
                    self._sign = self._clock()
                for job_id in through:
                    self._jobs.inferred(job_id)
                if through:
                    self._changed()
            case Done(job_id=job_id, answer=answer):
                self._settle(job_id, answer)
            case Refusal(job_id=job_id, reason=reason, facts=facts):
                self._settle(job_id, Refused(reason, **facts))
            case Failed(job_id=job_id, error=trace):
                self._settle(job_id, WorkerBugError(trace))

    def _settle(self, job_id: int, result: Answer | Exception) -> None:
        self._jobs.settle(job_id, result)
        self._sign = self._clock()
        self._changed()

    def dump(self) -> None:
        """Make the process dump its stacks to stderr."""
        self._process.send_signal(signal.SIGQUIT)

    def give_up(self) -> None:
        """Kill a hung process; its jobs are lost, and blamed."""
        self._ending.begin(End.HUNG)
        self._kill()

    def dismiss(self) -> None:
        """Kill a distrusted process; its jobs are lost, but not blamed."""
        self._ending.begin(End.DISMISSED)
        self._kill()

    def cause(self, status: int) -> End:
        """Return the cause of its end, given the exit status; repeated calls return the same."""
        return self._ending.cause(status)

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
            self._jobs.close()
            self._process.close()


def _unforked(error: ForkError) -> WorkerStartError:
    """Return the error for a worker that could not be forked, for the operator."""
    lacked = error.status is not None and lacked_memory(error.status)
    check = Check.OUT_OF_MEMORY if lacked else None
    return WorkerStartError(f"{check}: {error}" if check else str(error), check)

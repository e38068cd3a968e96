"""One worker process, as the gateway holds it."""

import asyncio
import contextlib
import itertools
import socket
import sys

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import ImageSpec
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Refused
from vedette_server.pool.channel import ChannelClosedError, GatewayEnd, SharedImage
from vedette_server.pool.messages import Done, Failed, Job, LoadFailed, Ready, Refusal, Start

_STOP_SECONDS = 5.0  # for a worker to end by itself after its channel was closed


class WorkerStartError(Exception):
    """A worker did not come up; the message says why, for the operator."""


class WorkerLostError(Exception):
    """A worker ended while it had a job."""


class WorkerBugError(Exception):
    """A predictor raised on a job; the message is its traceback, for the operator."""


class Worker:
    """A running worker process, with its predictor loaded. It takes one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process, channel: GatewayEnd) -> None:
        self._process = process
        self._channel = channel
        self._job_ids = itertools.count(1)
        self.alive = True

    @classmethod
    async def spawn(cls, start: Start) -> "Worker":
        """Start a process and wait until its predictor is loaded. Raises `WorkerStartError`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  the standard library's own
        channel = await GatewayEnd.open(ours)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "vedette_server.pool.worker", str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # a terminal's Ctrl-C is for the gateway, which drains first
                )
        except BaseException:
            channel.close()
            raise
        worker = cls(process, channel)
        try:
            await worker._load(start)
        except BaseException:
            await worker.stop()
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def _load(self, start: Start) -> None:
        try:
            self._channel.send(start)
            reply = await self._channel.receive()
        except ChannelClosedError as error:
            msg = f"worker {self.pid} ended while loading, with status {await self._process.wait()}"
            raise WorkerStartError(msg) from error
        if isinstance(reply, LoadFailed):
            raise WorkerStartError(reply.error)
        assert isinstance(reply, Ready)  # noqa: S101  the protocol's only other reply

    async def predict(self, spec: ImageSpec, image: SharedImage, options: Options) -> Answer:
        """Have one image answered.

        Raises `Refused` for what is wrong with the image, `WorkerBugError` for what is wrong with the predictor,
        `WorkerLostError` if the process ends meanwhile.
        """
        job = Job(next(self._job_ids), spec, options)
        try:
            self._channel.send(job, image)
            reply = await self._channel.receive()
        except ChannelClosedError as error:
            msg = f"worker {self.pid} ended during a job"
            raise self._lost(msg) from error
        except asyncio.CancelledError:
            self._lost("")  # its reply would be taken for the next job's
            raise
        match reply:
            case Done(job_id=job.job_id, answer=answer):
                return answer
            case Refusal(job_id=job.job_id, reason=reason, facts=facts):
                raise Refused(reason, **facts)
            case Failed(job_id=job.job_id, error=trace):
                raise WorkerBugError(trace)
            case other:
                msg = f"worker {self.pid} answered job {job.job_id} with {type(other).__name__}"
                raise self._lost(msg)

    def _lost(self, reason: str) -> WorkerLostError:
        """Give the process up: whatever still runs in it is of no use any more."""
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return WorkerLostError(reason)

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
            self._lost("")
            await self._process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise

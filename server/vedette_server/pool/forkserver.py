"""The fork server as the gateway holds it: where workers come from.

Importing torch and Detectron2 is nine tenths of a worker's start, and most of its memory. One process does that once,
for the workers of all versions; each is forked from it in some hundredths of a second and shares that memory.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
from dataclasses import dataclass

import structlog

from vedette_server.pool import forks
from vedette_server.pool.channel import GatewayEnd

log = structlog.get_logger()

_FORK_SECONDS = 5.0  # for a fork, beyond which the process hangs
_REST_SECONDS = 1.0  # before another is started in the place of one that ended
_TRIES = 2  # for one fork: the process may end meanwhile
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl.h


class ForkError(Exception):
    """There is no worker process to be had."""

    def __init__(self, status: int | None) -> None:
        """`status` is how the fork server ended; None: it lives."""
        how = "could not fork a worker" if status is None else f"ended with status {status}"
        super().__init__(f"the fork server {how}")
        self.status = status


class Process:
    """A forked process, whose parent is this one, known by a descriptor: that never comes to mean another."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert ended is not None  # noqa: S101  it is only for WNOHANG
        self._status.set_result(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)

    async def wait(self) -> int:
        """Wait until it has ended; returns its exit status, negative for a signal."""
        return await asyncio.shield(self._status)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Let go of it, once it has ended."""
        os.close(self._pidfd)


def _process(pid: int) -> Process:
    if not pid:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return Process(pid)


@dataclass(frozen=True)
class _Running:
    """A fork server that has imported what it needs, and our end of its socket."""

    process: asyncio.subprocess.Process
    pidfd: int  # by which it is killed: `Process.kill` would take its status before asyncio learns it
    control: socket.socket

    @classmethod
    async def launch(cls, module: str, memory_bytes: int | None) -> "_Running":
        """Start one, and wait until it is ready. Raises `ForkError` if it ends before."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  the standard library's own
        limit = () if memory_bytes is None else (str(memory_bytes),)
        with theirs, contextlib.ExitStack() as unless_launched:
            unless_launched.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "vedette_server.pool.forks", str(theirs.fileno()), module, *limit),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ | forks.ENVIRONMENT,
                start_new_session=True,  # a terminal's Ctrl-C is for the gateway, which drains first
            )
            unless_launched.pop_all()
        running = cls(process, os.pidfd_open(process.pid), ours)
        try:
            await running.receive(len(forks.READY))
        except BaseException as error:
            status = await running.end()
            if isinstance(error, ConnectionError):
                raise ForkError(status) from error
            raise
        return running

    async def receive(self, count: int) -> bytes:
        """Receive so many bytes. Raises `ConnectionError` if it ends before."""
        received = b""
        while len(received) < count:
            part = await asyncio.get_running_loop().sock_recv(self.control, count - len(received))
            if not part:
                raise ConnectionResetError
            received += part
        return received

    async def fork(self) -> tuple[Process, GatewayEnd]:
        """Have a worker forked. Raises `OSError` or `TimeoutError` if that fails."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  the standard library's own
        with theirs:
            channel = await GatewayEnd.open(ours)
            try:
                socket.send_fds(self.control, [forks.FORK], [theirs.fileno()])
                theirs.close()  # the worker's end is its own alone
                async with asyncio.timeout(_FORK_SECONDS):
                    (pid,) = forks.PID.unpack(await self.receive(forks.PID.size))
                return _process(pid), channel
            except BaseException:
                channel.close()
                raise

    async def end(self) -> int:
        """End it, if it has not ended; returns its status. The workers stay."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        return await self.process.wait()


class Forkserver:
    """Keeps one fork server running, and has workers forked."""

    def __init__(self, factory: str, memory_bytes: int | None = None) -> None:
        """The module of `factory` is imported. Each worker may use `memory_bytes` of its own; None: any."""
        self._module = factory.partition(":")[0]
        self.memory_bytes = memory_bytes
        self._turn = asyncio.Lock()  # one fork at a time: answers have no names
        self._running: _Running | None = None
        self._watching: asyncio.Task[None] | None = None

    async def fork(self) -> tuple[Process, GatewayEnd]:
        """A new worker process, and our end of its channel. Raises `ForkError`."""
        async with self._turn:
            for _ in range(_TRIES):
                running = await self._have()
                try:
                    return await running.fork()
                except (OSError, TimeoutError):  # it has ended, or hangs, or there is no process to be had
                    await self._drop()
                except BaseException:
                    await self._drop()  # what it would still say would be taken for the answer to another
                    raise
        raise ForkError(None)

    async def _have(self) -> _Running:
        """The fork server, started if there is none. Raises `ForkError` if it ends before it is ready."""
        if self._running is None:
            _adopt_orphans()
            self._running = await _Running.launch(self._module, self.memory_bytes)
            self._watching = asyncio.create_task(self._watch(self._running))
        return self._running

    async def _watch(self, running: _Running) -> None:
        """Start another as soon as this one has ended, before it is needed."""
        status = await running.process.wait()
        log.error("fork_server_lost", pid=running.process.pid, status=status)
        await asyncio.sleep(_REST_SECONDS)
        async with self._turn:
            if self._running is running:
                self._running = None
                await running.end()
                with contextlib.suppress(ForkError):  # the next worker tries again
                    await self._have()

    async def _drop(self) -> None:
        """End the fork server; the next one is started when it is needed."""
        if self._watching:
            self._watching.cancel()
        if running := self._running:
            self._running = None
            await running.end()

    async def stop(self) -> None:
        """End it."""
        await self._drop()


def _adopt_orphans() -> None:
    """Become the parent of workers, which are orphans of the fork server's making."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

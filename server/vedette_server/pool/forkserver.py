"""The gateway's handle on the fork server, the source of workers.

Importing torch and Detectron2 takes nine tenths of a worker's start and most of its memory. One process does it once
for the workers of all versions. Forking a worker takes a few hundredths of a second and shares that memory.
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

_FORK_SECONDS = 5.0  # for a fork; a slower fork server counts as hung
_REST_SECONDS = 1.0  # before a fork server that ended is replaced
_TRIES = 2  # per fork: the fork server may end meanwhile
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in Linux's prctl.h


class ForkError(Exception):
    """No worker process could be created."""

    def __init__(self, status: int | None) -> None:
        """`status` is the exit status of the fork server; None if it is alive."""
        how = "could not fork a worker" if status is None else f"ended with status {status}"
        super().__init__(f"the fork server {how}")
        self.status = status


class Process:
    """A forked child of this process, identified by a pidfd, which is never reused for another process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert ended is not None  # noqa: S101  None occurs only with WNOHANG
        self._status.set_result(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)

    async def wait(self) -> int:
        """Wait for its end; return the exit status, negative for a signal."""
        return await asyncio.shield(self._status)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Release the pidfd after the process has ended."""
        os.close(self._pidfd)


def _process(pid: int) -> Process:
    if not pid:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return Process(pid)


@dataclass(frozen=True)
class _Running:
    """A fork server that has finished its imports, and our end of its socket."""

    process: asyncio.subprocess.Process
    pidfd: int  # used to kill it: `Process.kill` would reap the status before asyncio does
    control: socket.socket

    @classmethod
    async def launch(cls, module: str, memory_bytes: int | None) -> "_Running":
        """Start a fork server, and wait until it is ready. Raises `ForkError` if it ends first."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  standard library signature
        limit = () if memory_bytes is None else (str(memory_bytes),)
        with theirs, contextlib.ExitStack() as unless_launched:
            unless_launched.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "vedette_server.pool.forks", str(theirs.fileno()), module, *limit),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ | forks.ENVIRONMENT,
                start_new_session=True,  # the terminal's Ctrl-C is for the gateway, which drains first
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
        """Receive `count` bytes. Raises `ConnectionError` if the process ends first."""
        received = b""
        while len(received) < count:
            part = await asyncio.get_running_loop().sock_recv(self.control, count - len(received))
            if not part:
                raise ConnectionResetError
            received += part
        return received

    async def fork(self) -> tuple[Process, GatewayEnd]:
        """Fork a worker. Raises `OSError` or `TimeoutError` on failure."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  standard library signature
        with theirs:
            channel = await GatewayEnd.open(ours)
            try:
                socket.send_fds(self.control, [forks.FORK], [theirs.fileno()])
                theirs.close()  # only the worker may hold the worker's end
                async with asyncio.timeout(_FORK_SECONDS):
                    (pid,) = forks.PID.unpack(await self.receive(forks.PID.size))
                return _process(pid), channel
            except BaseException:
                channel.close()
                raise

    async def end(self) -> int:
        """End the process if it is still running; return its status. Workers are unaffected."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        return await self.process.wait()


class Forkserver:
    """Keeps one fork server running and forks workers from it."""

    def __init__(self, factory: str, memory_bytes: int | None = None) -> None:
        """Import the module of `factory`. Each worker may use `memory_bytes` of private memory; None: unlimited."""
        self._module = factory.partition(":")[0]
        self.memory_bytes = memory_bytes
        self._turn = asyncio.Lock()  # one fork at a time: replies carry no ids
        self._running: _Running | None = None
        self._watching: asyncio.Task[None] | None = None

    async def fork(self) -> tuple[Process, GatewayEnd]:
        """Fork a worker; return the process and our end of its channel. Raises `ForkError`."""
        async with self._turn:
            for _ in range(_TRIES):
                running = await self._have()
                try:
                    return await running.fork()
                except (OSError, TimeoutError):  # it has ended, hangs, or cannot create a process
                    await self._drop()
                except BaseException:
                    await self._drop()  # its late reply would be taken for that of the next fork
                    raise
        raise ForkError(None)

    async def _have(self) -> _Running:
        """Return the fork server, starting it if necessary. Raises `ForkError` if it ends before it is ready."""
        if self._running is None:
            _adopt_orphans()
            self._running = await _Running.launch(self._module, self.memory_bytes)
            self._watching = asyncio.create_task(self._watch(self._running))
        return self._running

    async def _watch(self, running: _Running) -> None:
        """Start a replacement as soon as this one ends, before it is needed."""
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
        """End the fork server; the next one starts on demand."""
        if self._watching:
            self._watching.cancel()
        if running := self._running:
            self._running = None
            await running.end()

    async def stop(self) -> None:
        """End the fork server."""
        await self._drop()


def _adopt_orphans() -> None:
    """Make this process the parent of orphans, which forked workers are."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

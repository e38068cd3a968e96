"""A process that stands by: it has imported what a predictor needs, and becomes the next worker in no time.

Importing torch and Detectron2 is nine tenths of the start of a worker. A spare has done that, and has no model: it can
become a worker of any version. It costs the memory of the imports, once for all versions.
"""

import asyncio
import contextlib
import socket
import sys

import structlog

from vedette_server.pool.channel import GatewayEnd

log = structlog.get_logger()

_REST_SECONDS = 1.0  # before the next one is started: the worker that was needed goes first

Launched = tuple[asyncio.subprocess.Process, GatewayEnd]


async def launch(factory: str, memory_bytes: int | None) -> Launched:
    """Start a process that imports the factory's module and then waits for its start; and our end of its channel.

    Of memory of its own it may use so many bytes; None: any.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003  the standard library's own
    channel = await GatewayEnd.open(ours)
    module = factory.partition(":")[0]
    limit = () if memory_bytes is None else (str(memory_bytes),)
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "vedette_server.pool.worker", str(theirs.fileno()), module, *limit),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the gateway, which drains first
            )
    except BaseException:
        channel.close()
        raise
    return process, channel


class Spares:
    """Keeps so many processes standing by for the workers of one factory, of all versions."""

    def __init__(self, factory: str, count: int, memory_bytes: int | None = None) -> None:
        """`memory_bytes` are what each may use of its own; None: any."""
        self._factory = factory
        self.memory_bytes = memory_bytes
        self._count = count
        self._standing: list[Launched] = []
        self._filling: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether one stands by."""
        return any(process.returncode is None for process, _ in self._standing)

    async def take(self) -> Launched:
        """A process for a worker: one that stands by, or else a new one."""
        while self._standing:
            process, channel = self._standing.pop(0)
            if process.returncode is None:
                self.fill()
                return process, channel
            channel.close()
        return await launch(self._factory, self.memory_bytes)

    def fill(self) -> None:
        """Have the places that are empty filled again, after a rest."""
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        while len(self._standing) < self._count:
            await asyncio.sleep(_REST_SECONDS)
            try:
                self._standing.append(await launch(self._factory, self.memory_bytes))
            except OSError as error:  # it is an advantage, and no need
                log.warning("no_spare", error=str(error))
                return

    async def stop(self) -> None:
        """End those that stand by."""
        if self._filling:
            self._filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filling
        for process, channel in self._standing:
            channel.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._standing.clear()

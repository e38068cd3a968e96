"""Open streams of all services: how many there may be, and the course of each until somebody ends it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.stream import Stream, Told


class OpenStreams:
    """Limits the number of open streams, and runs each of them."""

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._open = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a stream as open. Raises `Refused`: TOO_MANY_STREAMS."""
        if self._open >= self._most:
            raise Refused(Reason.TOO_MANY_STREAMS, most=self._most)
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self._open += more
        self._engine.monitor.streams(self._open)

    async def run(self, stream: Stream, read: Callable[[], Awaitable[None]]) -> AsyncGenerator[Told, None]:
        """Yield what becomes of a stream's frames while `read` feeds them to it.

        Raises whatever ends `read`, and `Refused`: SHUTTING_DOWN.
        """

        async def feed() -> None:
            try:
                await read()
            finally:
                await stream.finish()

        reading = asyncio.create_task(feed())
        stopping = asyncio.create_task(self._stop(reading))
        try:
            async for event in stream.told():
                yield event
            await asyncio.wait({reading})
            if reading.cancelled():
                raise Refused(Reason.SHUTTING_DOWN)
            reading.result()  # raises what ended it, unless that was the caller
        finally:
            reading.cancel()
            stopping.cancel()

    async def _stop(self, reading: asyncio.Task[None]) -> None:
        """Cancel reading once the server stops, so that a late frame cannot delay it."""
        await self._engine.stopping.wait()
        reading.cancel()

"""Open streams of all services: how many there may be, and the course of each until somebody ends it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.stream import Stream, Told

REST_SECONDS = 60.0  # without a frame, after which a stream gives its place to another that needs one


class OpenStreams:
    """Limits the number of open streams, and runs each of them."""

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._open: set[Stream] = set()
        self._reading: dict[Stream, asyncio.Task[None]] = {}

    @contextlib.contextmanager
    def counted(self, stream: Stream) -> Iterator[None]:
        """Count a stream as open. Raises `Refused`: TOO_MANY_STREAMS."""
        if len(self._open) >= self._most:
            self._end_longest_rested()
        self._open.add(stream)
        self._engine.monitor.streams(len(self._open))
        try:
            yield
        finally:
            self._open.discard(stream)
            self._engine.monitor.streams(len(self._open))

    def _end_longest_rested(self) -> None:
        """Take the place of a stream that rests. Raises `Refused`: TOO_MANY_STREAMS."""
        longest = max(self._open, key=lambda stream: stream.rested_seconds)
        if longest.rested_seconds < REST_SECONDS:
            raise Refused(Reason.TOO_MANY_STREAMS, most=self._most)
        self._open.discard(longest)
        self._reading[longest].cancel()

    async def run(self, stream: Stream, read: Callable[[], Awaitable[None]]) -> AsyncGenerator[Told, None]:
        """Yield what becomes of a stream's frames while `read` feeds them to it.

        Raises whatever ends `read`, and `Refused`: SHUTTING_DOWN, STREAM_RESTED.
        """

        async def feed() -> None:
            try:
                await read()
            finally:
                await stream.finish()

        self._reading[stream] = reading = asyncio.create_task(feed())
        stopping = asyncio.create_task(self._stop(reading))
        try:
            async for event in stream.told():
                yield event
            await asyncio.wait({reading})
            if reading.cancelled() and stream not in self._open:
                raise Refused(Reason.STREAM_RESTED, seconds=f"{stream.rested_seconds:.0f}")
            if reading.cancelled():
                raise Refused(Reason.SHUTTING_DOWN)
            reading.result()  # raises what ended it, unless that was the caller
        finally:
            del self._reading[stream]
            reading.cancel()
            stopping.cancel()

    async def _stop(self, reading: asyncio.Task[None]) -> None:
        """Cancel reading once the server stops, so that a late frame cannot delay it."""
        await self._engine.stopping.wait()
        reading.cancel()

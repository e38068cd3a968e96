"""Bridges from a caller's frames to a connection that may be replaced meanwhile.

gRPC reads requests in a thread or task of its own, which is cut off with its connection. It must therefore not run the
caller's iterator. That runs here, one frame ahead, and the frame waits until a connection takes it. A generator is
closed when nobody reads any more.
"""

import asyncio
import contextlib
import inspect
import threading
import types
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Self

from vedette_client.streaming import Entry, Sendable, Session

_LEAVE_SECONDS = 1.0  # for the caller's iterable to yield its next frame and close, when a stream is left


def _read(frames: Iterable[Sendable], session: Session, put: Callable[[Entry], bool]) -> None:
    """Prepare each frame and pass it to `put`, until that returns False."""
    iterator = iter(frames)
    try:
        for item in iterator:
            entry = session.prepare(item)
            if entry is not None and not put(entry):
                return
    finally:
        if isinstance(iterator, types.GeneratorType):
            iterator.close()


class Pump:
    """Runs an iterable in a thread."""

    def __init__(self, frames: Iterable[Sendable], session: Session) -> None:
        self._frames = frames
        self._session = session
        self._next: Entry | None = None
        self._changed = threading.Condition()  # guards the next frame, the end of frames, and the current connection
        self._stopped = False
        self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="vedette-frames", daemon=True)

    def __enter__(self) -> Self:
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Stop reading. A slow iterable ends in its own time."""
        with self._changed:
            self._stopped = True
            self._session.connect()
            self._changed.notify_all()
        self._thread.join(_LEAVE_SECONDS)

    def _run(self) -> None:
        try:
            _read(self._frames, self._session, self._put)
        except BaseException as error:  # noqa: BLE001  the caller's own, re-raised in the caller
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _put(self, entry: Entry) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._next is None or self._stopped)
            if not self._stopped:
                self._next = entry
                self._changed.notify_all()
            return not self._stopped

    def requests(self) -> Iterator[bytes]:
        """Return the messages of a new connection, until the frames end or another connection replaces it."""
        with self._changed:
            connection = self._session.connect()
            self._changed.notify_all()
        return self._requests(connection)

    def _requests(self, connection: int) -> Iterator[bytes]:
        yield from self._session.begin(connection)
        while messages := self._send(connection):
            yield from messages

    def _send(self, connection: int) -> list[bytes]:
        """Wait for the next frame, and return its messages; none if the connection has nothing more to send."""
        session = self._session
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: not session.current(connection) or (session.has_room and (self._next or self._over))
                )
                if (entry := self._next) is None:
                    session.end(connection)
                    return []
                if (messages := session.send(connection, entry)) is None:
                    return []
                self._next = None
                self._changed.notify_all()
                if messages:
                    return messages

    def told(self) -> None:
        """Note that an event has arrived, so there may be room for another frame."""
        with self._changed:
            self._changed.notify_all()

    def check(self) -> None:
        """Re-raise the exception of the caller's iterable, if any."""
        if self._error:
            raise self._error


class AsyncPump:
    """Runs an iterable: an asynchronous one in a task, any other in a thread, so that it may block."""

    def __init__(self, frames: AsyncIterable[Sendable] | Iterable[Sendable], session: Session) -> None:
        self._frames = frames
        self._session = session
        self._next: Entry | None = None
        self._empty = threading.Semaphore(1)  # slot of the next frame, for the thread
        self._changed = asyncio.Event()  # like `Pump`'s; set once, then replaced
        self._stopped = False
        self._over = False
        self._error: BaseException | None = None
        self._reading: asyncio.Task[None] | None = None
        self.failed = asyncio.Event()  # a frame failed before it was sent

    async def __aenter__(self) -> Self:
        """Start reading."""
        frames = self._frames
        reading = self._run(frames) if isinstance(frames, AsyncIterable) else self._run_thread(frames)
        self._reading = asyncio.create_task(reading)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Stop reading. A slow iterable ends in its own time."""
        assert self._reading  # noqa: S101  created on entry
        self._stopped = True
        self._session.connect()
        self._empty.release()
        self.told()
        if isinstance(self._frames, AsyncIterable):
            self._reading.cancel()
        await asyncio.wait({self._reading}, timeout=_LEAVE_SECONDS)
        self._reading.cancel()

    async def _run(self, frames: AsyncIterable[Sendable]) -> None:
        iterator = aiter(frames)
        try:
            async for item in iterator:
                if (entry := await asyncio.to_thread(self._session.prepare, item)) is not None:
                    await self._until(lambda: self._next is None)
                    self._place(entry)
        except Exception as error:  # noqa: BLE001  the caller's own, re-raised in the caller
            self._error = error
        finally:
            if inspect.isasyncgen(iterator):
                await iterator.aclose()
            self._over = True
            self.told()

    async def _run_thread(self, frames: Iterable[Sendable]) -> None:
        """Read in a thread, and wait until it ends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def put(entry: Entry) -> bool:
            self._empty.acquire()
            if not self._stopped:
                loop.call_soon_threadsafe(self._place, entry)
            return not self._stopped

        def run() -> None:
            try:
                _read(frames, self._session, put)
            except BaseException as error:  # noqa: BLE001  the caller's own, re-raised in the caller
                self._error = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=run, name="vedette-frames", daemon=True).start()
        await ended.wait()
        self._over = True
        self.told()

    def _place(self, entry: Entry) -> None:
        self._next = entry
        self.told()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._changed.wait()

    def told(self) -> None:
        """Note that an event has arrived, so there may be room for another frame."""
        self._changed.set()
        self._changed = asyncio.Event()

    def requests(self) -> AsyncIterator[bytes]:
        """Return the messages of a new connection, until the frames end or another connection replaces it."""
        connection = self._session.connect()
        self.told()
        return self._requests(connection)

    async def _requests(self, connection: int) -> AsyncIterator[bytes]:
        session = self._session
        for message in session.begin(connection):
            yield message
        while True:
            await self._until(
                lambda: not session.current(connection) or (session.has_room and (self._next or self._over))
            )
            if (entry := self._next) is None:
                session.end(connection)
                return
            if (messages := session.send(connection, entry)) is None:
                return
            self._next = None
            self._empty.release()
            self.told()
            if not messages:
                self.failed.set()
            for message in messages:
                yield message

    def check(self) -> None:
        """Re-raise the exception of the caller's iterable, if any."""
        if self._error:
            raise self._error

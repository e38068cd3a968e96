"""Read a caller's frames at one end, for a connection at the other that may be made again meanwhile.

gRPC reads its requests in a thread, or a task, of its own; that one is cut off with its connection and must not be what
runs the caller's iterator. So the iterator is run here, one frame ahead, which stays there until a connection has
taken it. A generator is closed when nobody reads on.
"""

import asyncio
import contextlib
import inspect
import threading
import types
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Self

from vedette_client.streaming import Entry, Sendable, Session

_LEAVE_SECONDS = 1.0  # for the caller's iterable to give its next frame, and to be closed, when a stream is left


def _read(frames: Iterable[Sendable], session: Session, put: Callable[[Entry], bool]) -> None:
    """Prepare each frame and put it where it is taken, until nobody takes any."""
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
        self._changed = threading.Condition()  # the next frame, whether there are any, which connection takes them
        self._stopped = False
        self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="vedette-frames", daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Read no more. An iterable that takes its time ends in its own."""
        with self._changed:
            self._stopped = True
            self._session.connect()
            self._changed.notify_all()
        self._thread.join(_LEAVE_SECONDS)

    def _run(self) -> None:
        try:
            _read(self._frames, self._session, self._put)
        except BaseException as error:  # noqa: BLE001  the caller's own, raised where the caller is
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
        """The messages of a new connection, until there are no more frames, or there is another connection."""
        with self._changed:
            connection = self._session.connect()
            self._changed.notify_all()
        return self._requests(connection)

    def _requests(self, connection: int) -> Iterator[bytes]:
        yield from self._session.begin(connection)
        while messages := self._send(connection):
            yield from messages

    def _send(self, connection: int) -> list[bytes]:
        """Wait for the next frame that is to be written; nothing when the connection has no more to write."""
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
        """The session has been told of a frame: there may be room for another."""
        with self._changed:
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what the caller's iterable raised, if it did."""
        if self._error:
            raise self._error


class AsyncPump:
    """Runs an iterable: an asynchronous one in a task, another in a thread, so that it may take its time."""

    def __init__(self, frames: AsyncIterable[Sendable] | Iterable[Sendable], session: Session) -> None:
        self._frames = frames
        self._session = session
        self._next: Entry | None = None
        self._empty = threading.Semaphore(1)  # the place of the next frame, for the thread
        self._changed = asyncio.Event()  # as `Pump`'s; set once, and then there is another
        self._stopped = False
        self._over = False
        self._error: BaseException | None = None
        self._reading: asyncio.Task[None] | None = None
        self.failed = asyncio.Event()  # a frame has failed without being sent

    async def __aenter__(self) -> Self:
        """Begin to read."""
        frames = self._frames
        reading = self._run(frames) if isinstance(frames, AsyncIterable) else self._run_thread(frames)
        self._reading = asyncio.create_task(reading)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Read no more. An iterable that takes its time ends in its own."""
        assert self._reading  # noqa: S101  made on entering
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
        except Exception as error:  # noqa: BLE001  the caller's own, raised where the caller is
            self._error = error
        finally:
            if inspect.isasyncgen(iterator):
                await iterator.aclose()
            self._over = True
            self.told()

    async def _run_thread(self, frames: Iterable[Sendable]) -> None:
        """Have a thread read, and wait for its end."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def put(entry: Entry) -> bool:
            self._empty.acquire()
            if not self._stopped:
                loop.call_soon_threadsafe(self._place, entry)
            return not self._stopped

        def run() -> None:
            try:
                _read(frames, self._session, put)
            except BaseException as error:  # noqa: BLE001  the caller's own, raised where the caller is
                self._error = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
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
        """The session has been told of a frame: there may be room for another."""
        self._changed.set()
        self._changed = asyncio.Event()

    def requests(self) -> AsyncIterator[bytes]:
        """The messages of a new connection, until there are no more frames, or there is another connection."""
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
        """Raise what the caller's iterable raised, if it did."""
        if self._error:
            raise self._error

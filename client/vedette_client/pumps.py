"""Read a caller's frames at one end, for a connection at the other that may be made again meanwhile.

gRPC reads its requests in a thread, or a task, of its own; that one is cut off with its connection and must not be what
runs the caller's iterator. So the iterator is run here, one frame ahead.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from vedette_client.errors import LocalError
from vedette_client.streaming import Sendable, Session
from vedette_client.wire import Outgoing

_END: Final = object()
_LOOK_SECONDS = 0.1  # between two looks whether anyone still wants frames


class Pump:
    """Runs an iterable in a thread."""

    def __init__(self, frames: Iterable[Sendable]) -> None:
        self._frames = frames
        self._next: queue.Queue[Sendable | object] = queue.Queue(1)
        self._stopped = threading.Event()
        self._connection = 0
        self._held: list[object] = []  # what a connection had taken and could not send
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read no more."""
        self.release()
        self._stopped.set()

    def _run(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    return
        except BaseException as error:  # noqa: BLE001  the caller's own, raised where the caller is
            self._error = error
        self._put(_END)

    def _put(self, item: object) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._next.put(item, timeout=_LOOK_SECONDS)
                return True
        return False

    def requests(self, session: Session) -> Iterator[Outgoing]:
        """The messages of one connection, until there are no more frames, or until `release`."""
        connection = self._connection
        yield session.first()
        while (item := self._take(connection)) is not _END:
            with self._lock:
                if connection != self._connection:
                    self._held.append(item)
                    return
                try:
                    message = session.send(item)  # type: ignore[arg-type]  # what is not the end is a frame
                except LocalError as error:
                    self._error = error
                    return
            yield message

    def _take(self, connection: int) -> object:
        """The next frame for a connection; the end when there are no more, or it was given up."""
        while connection == self._connection:
            if self._held:
                return self._held.pop()
            try:
                item = self._next.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if item is _END:
                self._next.put(_END)  # for the next connection too
            return item
        return _END

    def release(self) -> None:
        """Give a connection up: it sends nothing from now on, and what it had taken is the next one's."""
        with self._lock:
            self._connection += 1

    def check(self) -> None:
        """Raise what the caller's iterable raised, if it did."""
        if self._error:
            raise self._error


class AsyncPump:
    """Runs an iterable, asynchronous or not, in a task."""

    def __init__(self, frames: AsyncIterable[Sendable] | Iterable[Sendable]) -> None:
        self._frames = frames
        self._next: asyncio.Queue[Sendable | object] = asyncio.Queue(1)
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to read."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read no more."""
        if self._task:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            if isinstance(self._frames, AsyncIterable):
                async for frame in self._frames:
                    await self._next.put(frame)
            else:
                for frame in self._frames:
                    await self._next.put(frame)
        except Exception as error:  # noqa: BLE001  the caller's own, raised where the caller is
            self._error = error
        await self._next.put(_END)

    async def requests(self, session: Session) -> AsyncIterator[Outgoing]:
        """The messages of one connection."""
        yield session.first()
        try:
            while (item := await self._next.get()) is not _END:
                yield await asyncio.to_thread(session.send, item)  # type: ignore[arg-type]  # what is not the end is a frame
        except LocalError as error:
            self._error = error
            return
        await self._next.put(_END)  # for the next connection too

    def check(self) -> None:
        """Raise what the caller's iterable raised, if it did."""
        if self._error:
            raise self._error

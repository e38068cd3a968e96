"""Sources that continue whether or not they are read: read as fast as they deliver, and reopened when they drop."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from vedette_client.errors import LocalError
from vedette_client.pyav import cause

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts to reopen a source
_LOOK_SECONDS: Final = 0.1  # between checks that someone still wants items


class Reader(Generic[T]):
    """Runs an iterable in a separate thread, one item ahead, until stopped."""

    def __init__(self, items: Iterable[T], stopped: threading.Event, passed: Callable[[T], None] | None) -> None:
        """Pass an item that is not taken in time to `passed`, and replace it by the next; None: wait instead."""
        self._items = items
        self._stopped = stopped
        self._passed = passed
        self._ready: list[T] = []
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[T]:
        """Yield the items, then raise the iterable's exception, if any."""
        threading.Thread(target=self._run, daemon=True).start()
        while not self._stopped.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended, _LOOK_SECONDS)
                item = self._ready.pop() if self._ready else None
                ended = self._ended and item is None
                self._changed.notify_all()
            if item is not None:
                yield item
            elif ended:
                break
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                if self._stopped.is_set():
                    break
        except Exception as error:  # noqa: BLE001  re-raised in the consumer
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, item: T) -> None:
        with self._changed:
            while self._ready and not self._passed and not self._stopped.is_set():
                self._changed.wait(_LOOK_SECONDS)
            if self._ready and self._passed:
                self._passed(self._ready.pop())
            self._ready.append(item)
            self._changed.notify_all()


class Patience:
    """Policy for reopening a source, and for giving up."""

    def __init__(self, name: str, seconds: float, stopped: threading.Event, notice: Callable[[str], None]) -> None:
        self._name = name
        self._seconds = seconds
        self._stopped = stopped
        self._notice = notice
        self._pause = _FIRST_PAUSE
        self._dropped: float | None = None  # time of the drop, until the source is back

    def came(self) -> None:
        """Note that a frame has arrived."""
        if self._dropped is not None:
            self._notice(f"{self._name} is back after {time.monotonic() - self._dropped:.1f} s")
        self._dropped, self._pause = None, _FIRST_PAUSE

    def open(self, opening: Callable[[], T], why: str) -> T | None:
        """Reopen the source; return None if stopped. Raises `LocalError` when the time is up."""
        if self._dropped is None:
            self._dropped = time.monotonic()
            if self._seconds > 0:
                self._notice(f"{self._name} dropped ({why}); reopening it for {self._seconds:g} s")
        while not self._stopped.is_set():
            left = self._dropped + self._seconds - time.monotonic()
            if left <= 0:
                msg = f"{self._name} dropped ({why}), and could not be reopened within {self._seconds:g} s"
                raise LocalError(msg)
            self._stopped.wait(min(self._pause, left))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            try:
                return opening()
            except LocalError as error:
                why = cause(error)
        return None

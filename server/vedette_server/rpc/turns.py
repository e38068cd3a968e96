"""Turns to start: a few calls at a time, callers in rotation, however many calls each of them makes."""

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Callable


class TurnedAwayError(Exception):
    """The call was turned away: its caller had too many calls waiting."""


class Turns:
    """Lets calls start. A started call counts until it is over or no longer new."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `most` calls that started within the last `seconds` are not over."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._begun: dict[object, float] = {}  # start times, the newest last
        # By caller, in the order of their turns.
        self._waiting: collections.OrderedDict[str, collections.deque[asyncio.Future[None]]] = collections.OrderedDict()
        self.shut = False  # no call starts

    @contextlib.asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Wait for a turn, which lasts until the block ends. Raises `TurnedAwayError`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, collections.deque()).append(turn)
        self.go_on()
        try:
            await turn
            yield
        finally:
            self._begun.pop(turn, None)
            self.go_on()

    def go_on(self) -> None:
        """Start every call that may start."""
        while self._waiting and self._free:
            caller, line = self._waiting.popitem(last=False)
            turn = line.popleft()
            if line:
                self._waiting[caller] = line
            if not turn.done():  # its call was cancelled
                self._begun[turn] = self._clock()
                turn.set_result(None)

    @property
    def _free(self) -> bool:
        since, new = self._clock() - self._seconds, 0
        for begun in reversed(self._begun.values()):
            if begun <= since or new >= self._most:
                break
            new += 1
        return not self.shut and new < self._most

    def turn_away(self) -> None:
        """Turn away half of the longest line, the latest arrivals."""
        line = max(self._waiting.values(), key=len, default=collections.deque())
        for _ in range(-(-len(line) // 2)):
            if not (turn := line.pop()).done():
                turn.set_exception(TurnedAwayError)
        self._waiting = collections.OrderedDict((caller, left) for caller, left in self._waiting.items() if left)

"""Turns to begin: a few at a time, one of each caller after the other, however many calls each makes."""

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Callable


class TurnedAwayError(Exception):
    """A call will not have its turn: its caller had too many waiting."""


class Turns:
    """Lets calls begin. What has begun counts until it is over, or no longer new."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `most` have begun within the last `seconds` and are not over."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._begun: dict[object, float] = {}  # since when, the newest last
        # By caller, who is next first.
        self._waiting: collections.OrderedDict[str, collections.deque[asyncio.Future[None]]] = collections.OrderedDict()
        self.shut = False  # nothing begins

    @contextlib.asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Wait for a turn, which is over when the block ends. Raises `TurnedAwayError`."""
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
        """Let begin what may."""
        while self._waiting and self._free:
            caller, line = self._waiting.popitem(last=False)
            turn = line.popleft()
            if line:
                self._waiting[caller] = line
            if not turn.done():  # its call has been given up
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
        """Give up half of the longest line, those that came last."""
        line = max(self._waiting.values(), key=len, default=collections.deque())
        for _ in range(-(-len(line) // 2)):
            if not (turn := line.pop()).done():
                turn.set_exception(TurnedAwayError)
        self._waiting = collections.OrderedDict((caller, left) for caller, left in self._waiting.items() if left)

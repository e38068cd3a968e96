"""The share of the workers' time that vigilance may take: unlimited while there is no traffic, small otherwise."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

_DESERTED_SECONDS = 2.0  # without traffic, after which a version's workers are there for the taking


class Spent(Protocol):
    """Tells of a version whose workers' time is spent."""

    @property
    def workers(self) -> int:
        """The number of workers."""

    @property
    def last_traffic(self) -> float:
        """Time of the last arrival other than a diagnosis, in seconds."""


class Budget:
    """Spreads the inferences of diagnoses so that traffic hardly notices them."""

    def __init__(self, share: float, now: Callable[[], float] = time.monotonic) -> None:
        """`share` of a version's workers' time, above 0; `now` tells the seconds on the clock of `last_traffic`."""
        self._share = share
        self._now = now
        self._next = 0.0  # when the next one may begin beside traffic

    async def turn(self, version: Spent) -> None:
        """Wait until another inference may begin."""
        while (wait := self.wait(version)) > 0:  # noqa: ASYNC110  it is time that is waited for
            await asyncio.sleep(wait)

    def wait(self, version: Spent) -> float:
        """Seconds until another inference may begin; 0 or less: now."""
        now = self._now()
        return min(self._next - now, version.last_traffic + _DESERTED_SECONDS - now)

    def spend(self, version: Spent, seconds: float) -> None:
        """Tell what an inference took of a worker's time."""
        self._next = max(self._next, self._now()) + seconds / (self._share * max(1, version.workers))

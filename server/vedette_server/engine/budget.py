"""How much of the workers' time vigilance may take: as much as it likes while nobody else comes, else a small share."""

import asyncio
import time

from vedette_server.engine.served import ServedVersion

_DESERTED_SECONDS = 2.0  # without traffic, after which a version's workers are there for the taking


class Budget:
    """Spreads the inferences of diagnoses so that traffic hardly notices them."""

    def __init__(self, share: float) -> None:
        """`share` of a version's workers' time, above 0."""
        self._share = share
        self._next = 0.0  # on the monotonic clock, when the next one may begin beside traffic

    async def turn(self, served: ServedVersion) -> None:
        """Wait until another inference may begin."""
        while (wait := self._wait(served)) > 0:  # noqa: ASYNC110  it is time that is waited for
            await asyncio.sleep(wait)

    def _wait(self, served: ServedVersion) -> float:
        now = time.monotonic()
        return min(self._next - now, served.last_traffic + _DESERTED_SECONDS - now)

    def spend(self, served: ServedVersion, seconds: float) -> None:
        """Tell what an inference took of a worker's time."""
        self._next = max(self._next, time.monotonic()) + seconds / (self._share * max(1, served.workers))

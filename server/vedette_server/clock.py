"""The clock, handed to what decides by it, so that a test or a simulation can set it."""

import datetime as dt
import time


class Clock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """Seconds that only grow, since some time in the past."""
        return time.monotonic()

    def utc(self) -> dt.datetime:
        """The date and time, UTC."""
        return dt.datetime.now(dt.UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


SYSTEM = Clock()

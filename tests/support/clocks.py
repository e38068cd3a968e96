"""A clock that a test or a simulation sets."""

import datetime as dt

from vedette_server.clock import Clock

START = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)  # a Monday, at midnight


class SetClock(Clock):
    """Stands still until it is set, or something sleeps on it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds  # since START

    def monotonic(self) -> float:
        return self.seconds

    def utc(self) -> dt.datetime:
        return START + dt.timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

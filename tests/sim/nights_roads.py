"""Honest traffic as cameras give it: frames that resemble the ones before them, by the hour, the light and the weather.

Each road is a camera with a stream of its own. What it sees is a chain of situations: a sign passes for some 5 to 40
frames, then there is none for a while, now and then for many minutes.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from vedette_server.contract.answer import Answer

from tests.sim.nights_pool import LIGHTS, Pool, Situation

HOUR = 3600.0
SUNRISE, SUNSET = 5.5, 20.5  # hours
BURST = 10.0  # times the usual rate
_LONG_QUIET = 0.04  # share of the gaps between signs that last for minutes


def sun(hour: float) -> float:
    """Brightness of the sky, from 0 by night to 1 at noon."""
    return max(0.0, math.sin(math.pi * (hour - SUNRISE) / (SUNSET - SUNRISE))) if SUNRISE < hour < SUNSET else 0.0


def activity(hour: float) -> float:
    """Amount of traffic, from about 0.2 by night to about 1 at the peaks in the morning and in the evening."""
    peaks = sum(math.exp(-(((hour - peak) / 1.5) ** 2)) for peak in (8.0, 17.5))
    return min(1.0, 0.2 + 0.35 * sun(hour) + 0.55 * peaks)


class Sky:
    """The light and the rain over all roads, hour by hour."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._clouds = 0.0
        self._rain_left = 0

    def next_hour(self) -> tuple[float, bool]:
        """Draw the share of light that the clouds take, 0 to 1, and if it rains."""
        self._clouds = float(np.clip(0.8 * self._clouds + self._rng.normal(0.06, 0.12), 0, 0.7))
        if self._rain_left:
            self._rain_left -= 1
        elif self._rng.random() < 0.04:
            self._rain_left = int(self._rng.integers(1, 6))
        return self._clouds, self._rain_left > 0


@dataclasses.dataclass
class Now:
    """The conditions of a road at a moment."""

    hour: float  # of the day
    clouds: float
    rain: bool
    closed: bool  # no sign passes
    burst: bool


class Road:
    """One camera."""

    def __init__(self, name: str, pool: Pool, seed: int, share: float = 1.0) -> None:
        """`share`: of the usual frames."""
        self.name = name
        self._pool = pool
        self._rng = np.random.default_rng([seed, 2])
        self._offset = float(self._rng.normal(0, 0.4))  # of its exposure, in steps of LIGHTS
        self._pace = float(self._rng.uniform(0.85, 1.2)) * share
        self._taste = int(self._rng.integers(1000))
        self._situation: Situation | None = None
        self._left = self._index = 0
        self._due = 0.0

    def frames(self, start: float, end: float, now: Now) -> Iterator[tuple[float, Answer]]:
        """The frames from `start` to `end`, in seconds: when each comes, and what the model answers."""
        rate = (0.3 + 0.4 * activity(now.hour)) * self._pace * (BURST if now.burst else 1.0)
        self._due = min(max(self._due, start), start + 1 / rate)
        while self._due < end:
            yield self._due, self._answer(now)
            self._due += float(self._rng.uniform(0.8, 1.2)) / rate

    def _answer(self, now: Now) -> Answer:
        if self._left <= 0 or self._situation is None or (now.closed and not self._situation.quiet):
            self._situation = self._next(now)
            self._index = 0
        self._left -= 1
        answers = self._situation.answers
        place = self._index % (2 * len(answers) - 2) if len(answers) > 1 else 0  # to and fro
        self._index += 1
        return self._noisy(answers[min(place, 2 * len(answers) - 2 - place) if len(answers) > 1 else 0])

    def _next(self, now: Now) -> Situation:
        was_quiet = self._situation is None or self._situation.quiet
        quiet = now.closed or not was_quiet
        more = BURST if now.burst else 1.0
        if not quiet:
            self._left = int(self._rng.integers(5, 41) * more)
        elif self._rng.random() < _LONG_QUIET:
            self._left = int(self._rng.integers(100, 400) * more)
        else:
            self._left = 1 + int(self._rng.geometric(activity(now.hour) / 25) * more)
        if now.closed:
            self._left = min(self._left, 60)  # another view of the empty road, and the light as it goes
        light = (sun(now.hour) ** 0.6) * (1 - now.clouds) * (len(LIGHTS) - 1) + self._offset + self._rng.normal(0, 0.4)
        choice = self._pool.of(int(np.clip(round(light), 0, len(LIGHTS) - 1)), rain=now.rain, quiet=quiet)
        if self._rng.random() < 0.5:  # every road has signs that are seen there more often
            return choice[self._taste % len(choice)]
        return choice[int(self._rng.integers(len(choice)))]

    def _noisy(self, answer: Answer) -> Answer:
        """The same, with the checksum that a sensor's noise gives to each frame."""
        if answer.pixels is None:
            return answer
        pixels = dataclasses.replace(answer.pixels, checksum=int(self._rng.integers(2**32)))
        return dataclasses.replace(answer, pixels=pixels)

"""Events of the simulated days, and the player that shows them to a simulated server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette_server.contract.answer import Answer
from vedette_server.repository.repository import BASELINE, ModelVersion

from tests.sim.nights_pool import Pool
from tests.sim.nights_roads import HOUR, Now, Road, Sky
from tests.sim.nights_server import Scrape, Server, copy_of
from tests.support.clocks import SetClock

ROADS = ("ring north", "ring south", "bridge", "market")
NEW_ROAD = "harbour"
DAY = 24 * HOUR
CLOSED = "ring south"
_SINGLES = 0.05  # images that come by themselves, for each frame of a road
_READY_SECONDS, _OVERLAP = 40.0, 300.0  # until a version's workers are ready, and that both versions are served
_DOWN_SCRAPES = 2  # that fail while the server starts again

_Frame = tuple[float, str, Answer]  # when it comes, its stream, and what the model answers

# What a fault makes of a road's answer.
Fault = Callable[[str, Answer], Answer]


@dataclass(frozen=True)
class Day:
    """The extraordinary events of a day; hours of the day, from and to."""

    name: str
    rain: tuple[float, float] = (0, 0)
    closed: tuple[float, float] = (0, 0)  # the road CLOSED
    burst: tuple[float, float] = (0, 0)
    restarts: tuple[float, ...] = ()
    new_stream: float | None = None
    swap: float | None = None
    baseline: float | None = None  # the hour at which the version that is served is given a baseline


DAYS = (
    Day("nothing out of the ordinary"),
    Day("rain for five hours", rain=(9, 14)),
    Day("a road closed for five hours", closed=(9, 14)),
    Day("a burst: ten times the traffic for 20 minutes", burst=(17, 17 + 1 / 3)),
    Day("a restart by night and one by day", restarts=(3, 11)),
    Day("a new stream", new_stream=8.25),
    Day("a version swap, without a baseline", swap=10),
    Day("the new version is given its baseline", baseline=9),
    Day("rain by night, a road closed from dusk on", rain=(0, 6), closed=(18, 23)),
)
ALL_AT_ONCE = Day(
    "all on one day",
    rain=(2, 5),
    closed=(9, 14),
    burst=(17, 17 + 1 / 3),
    restarts=(11,),
    new_stream=12.25,
    swap=20,
    baseline=22,
)


def _within(hour: float, span: tuple[float, float]) -> bool:
    return span[0] <= hour < span[1]


class Nights:
    """A server under traffic, day after day."""

    def __init__(
        self,
        version: ModelVersion,
        pool: Pool,
        folder: Path,
        seed: int,
        *,
        baseline: bytes | None = None,
        pace: float = 1.0,
        start: float = 0.0,
        interval: int = 30,
    ) -> None:
        """Begin at `start`, with `pace` times the usual frames and a scrape each `interval`, in seconds.

        `baseline`: what the file of a version holds that has a baseline.
        """
        self.clock = SetClock(start)
        self.fault: Fault | None = None
        self.frames = 0
        self._interval = interval
        self._version, self._folder, self._baseline = version, folder, baseline
        first = self._copy(1)
        self._give_baseline(first)
        self.server = Server(self.clock, first, seed)
        self._pool, self._seed, self._pace = pool, seed, pace
        self._roads = [self._road(name) for name in ROADS]
        self._singles = Road("", pool, seed, pace * _SINGLES)
        self._sky = Sky(seed)
        self._weather = self._sky.next_hour()
        self._down = 0  # scrapes that fail yet
        self._leaving: tuple[ModelVersion, float] | None = None  # a version that is replaced, and when it is unloaded
        self._coming: tuple[ModelVersion, float] | None = None  # one that replaces it, and when frames go there

    def _copy(self, number: int) -> ModelVersion:
        return copy_of(self._version, self._folder / str(number), number)

    def _road(self, name: str) -> Road:
        return Road(name, self._pool, self._seed + sum(map(ord, name)), self._pace)

    def _give_baseline(self, version: ModelVersion) -> None:
        if self._baseline:
            (version.folder / BASELINE).write_bytes(self._baseline)

    def scrape(self) -> Scrape | None:
        """The scrape at this time; None if it fails."""
        return None if self._down else self.server.scrape()

    def step(self, day: Day) -> None:
        """Play the time until the next scrape."""
        start = self.clock.seconds
        hour = start % DAY / HOUR
        if start % HOUR == 0:
            self._weather = self._sky.next_hour()
        if self._down:
            self._down -= 1
            if not self._down:
                self.server.restart(_READY_SECONDS)
        self._happen(day, start)
        busy = _within(hour, day.burst)
        if not self._down:
            self._play(self._frames(day, start), busy=busy)
        self.clock.seconds = start + self._interval
        if not self._down:
            self.server.tick(len(self._roads), busy=busy)

    def _frames(self, day: Day, start: float) -> list[_Frame]:
        """The frames of all roads until the next scrape, in their order."""
        hour, (clouds, rain) = start % DAY / HOUR, self._weather
        frames = []
        for road in (*self._roads, self._singles):
            now = Now(
                hour,
                clouds,
                rain=rain or _within(hour, day.rain),
                closed=_within(hour, day.closed) and road.name == CLOSED,
                burst=_within(hour, day.burst) and bool(road.name),
            )
            frames += [(when, road.name, answer) for when, answer in road.frames(start, start + self._interval, now)]
        return sorted(frames, key=lambda frame: frame[0])

    def _play(self, frames: Sequence[_Frame], *, busy: bool) -> None:
        for when, source, answer in frames:
            self.clock.seconds = when
            self.server.frame(source, self.fault(source, answer) if self.fault else answer, busy=busy)
        self.frames += len(frames)

    def _happen(self, day: Day, start: float) -> None:
        """Play the events until the next scrape, and the consequences of earlier ones."""
        before, after = (time % DAY / HOUR for time in (start, start + self._interval))

        def now(event: float | None) -> bool:
            return event is not None and before <= event < (after or 24)

        if any(map(now, day.restarts)):
            self._down = _DOWN_SCRAPES
        if now(day.new_stream):
            self._roads.append(self._road(NEW_ROAD))
        if now(day.swap):
            coming = self._copy(self.server.version.version + 1)
            self.server.load(coming, _READY_SECONDS)
            self._coming = coming, start + _READY_SECONDS
        if self._coming and start >= self._coming[1]:
            self._leaving = self.server.version, start + _OVERLAP
            self.server.swapped(self.server.version, self._coming[0])
            self._coming = None
        if self._leaving and start >= self._leaving[1]:
            self.server.unload(self._leaving[0])
            self._leaving = None
        if now(day.baseline):
            self._give_baseline(self.server.version)

"""The reference: days of which the product's own code makes the baseline, as `vedette-server baseline` would."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vedette_server.baseline.profile import Window
from vedette_server.baseline.scrape import Page
from vedette_server.capture import write
from vedette_server.repository.repository import ModelVersion

from tests.sim.nights_days import DAY, Day, Nights
from tests.sim.nights_pool import Pool
from tests.sim.nights_roads import HOUR
from tests.sim.nights_server import Scrape

WINDOW = 300  # seconds
_LEAD = 600.0  # seconds before the capture begins


@dataclass(frozen=True)
class Reference:
    """When the baseline is captured, and how."""

    what: str
    days: tuple[Day, ...]
    hours: tuple[float, float]  # since the first day's midnight
    by_hour: bool = False


_RAINS = (Day("rain by day", rain=(11, 16)), Day("rain by night", rain=(0, 5)))
REFERENCES: Mapping[str, Reference] = {
    "days": Reference("two days, 5 hours of rain on each", _RAINS, (0, 48)),
    "by-hour": Reference("the same two days, separately by the hour", _RAINS, (0, 48), by_hour=True),
    "morning": Reference("two hours of a dry morning", (Day("a morning"),), (9, 11)),
    "week-by-hour": Reference(
        "seven days with the rain that came, separately by the hour", (Day("any"),) * 7, (0, 168), by_hour=True
    ),
    "day": Reference("one day, 5 hours of rain", _RAINS[:1], (0, 24)),
}


def capture(
    version: ModelVersion, pool: Pool, folder: Path, seed: int, reference: Reference, pace: float
) -> tuple[bytes, list[Window]]:
    """Play the reference days and capture the baseline; returns what its file holds, and the windows."""
    began, ended = (
        hours * HOUR - len(reference.days) * DAY for hours in reference.hours
    )  # they end where day 0 begins
    lead = _LEAD if reference.hours[0] else 0
    nights = Nights(version, pool, folder, seed, pace=pace, start=began - lead)
    windows, before = [], None
    while nights.clock.seconds < ended:
        nights.step(reference.days[int(nights.clock.seconds // DAY) + len(reference.days)])
        if nights.clock.seconds >= began and (nights.clock.seconds - began) % WINDOW == 0:
            page = _page(nights.server.scrape())
            if before is not None:
                windows.append(Window(int((nights.clock.seconds - WINDOW) % DAY // HOUR), page.since(before)))
            before = page
    path = write(nights.server.version, windows, WINDOW, reference.what, by_hour=reference.by_hour, clock=nights.clock)
    return path.read_bytes(), windows


def _page(scrape: Scrape) -> Page:
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for (name, labels), value in scrape.items():
        samples.setdefault(name, {})[labels] = value
    return Page(samples)

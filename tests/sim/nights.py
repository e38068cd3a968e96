"""`make nights`: who is woken on honest days and nights. Simulated time; the product's own code, baseline and rules.

Answers are real, of the bundled model to drawn scenes. Simulated cameras see them in chains, at simulated times, on a
clock that never waits; the product explains and counts them; every 30 simulated seconds its metrics are collected, and
Prometheus' own engine (`promtool test rules`) evaluates the rules along these scrapes, day by day, with 13 hours of the
days before for what looks far back. Firing is counted without inhibition and grouping, which only make it less.
"""

import collections
import concurrent.futures
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from vedette_server.contract.answer import Answer, Detections
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.sim import nights_others, nights_page
from tests.sim.nights_days import CLOSED, DAY, DAYS, Day, Fault, Nights
from tests.sim.nights_pool import Pool, Size, pool
from tests.sim.nights_prometheus import FIRING, Sample, Scrapes
from tests.sim.nights_reference import REFERENCES, capture
from tests.sim.nights_roads import HOUR

RULES = Path(__file__).parents[2] / "deploy/prometheus/vedette.rules.yml"
SEED, REFERENCE_SEED = 1, 1001
BEFORE = 13 * HOUR  # that the rules are given of the days before


@dataclass(frozen=True)
class Firing:
    """An alert that began to fire on a day."""

    labels: Mapping[str, str]
    times: int
    hour: float  # of the day, when it first began
    minutes: float  # that it fired in all

    @property
    def severity(self) -> str:
        return self.labels["severity"]

    def __str__(self) -> str:
        of = " ".join(self.labels[name] for name in ("cause", "stream", "class") if self.labels.get(name))
        clock = f"{int(self.hour):02}:{int(self.hour % 1 * 60):02}"
        return f"{self.labels['alertname']} ({self.severity}) {of}, {self.times}x from {clock}, {self.minutes:.0f} min"


@dataclass
class Report:
    """The outcome of a day."""

    day: Day
    frames: int
    firing: list[Firing]
    windows: list[Sample] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """Count how often alerts of a severity began to fire."""
        return sum(one.times for one in self.firing if one.severity == severity)


def silenced(_source: str, answer: Answer) -> Answer:
    """The same, had the threshold been 1."""
    nothing = Detections(
        boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int32)
    )
    evidence = replace(answer.evidence, suppressed=answer.evidence.suppressed + len(answer.detections))
    return replace(answer, threshold=1.0, detections=nothing, evidence=evidence)


def darkened(answers: Pool) -> Fault:
    """One camera is covered."""
    black = answers.black[0]
    return lambda source, answer: _with_checksum(black, answer) if source == CLOSED else answer


def _with_checksum(black: Answer, answer: Answer) -> Answer:
    assert black.pixels is not None
    assert answer.pixels is not None
    return replace(black, pixels=replace(black.pixels, checksum=answer.pixels.checksum))


FAULTS: Mapping[str, Callable[[Pool], Fault]] = {"threshold": lambda _answers: silenced, "black": darkened}


@dataclass(frozen=True)
class Setting:
    """The settings of simulated nights."""

    size: Size = field(default_factory=Size)
    pace: float = 1.0  # share of the usual frames
    interval: int = 30  # seconds between two scrapes, and between two evaluations
    reference: str = "days"
    rules: Path = RULES


SHORT = Setting(Size(signs=5, signs_pictures=2, quiet=3, quiet_pictures=2), pace=0.4, interval=60, reference="day")


class Play:
    """Plays days before Prometheus, after a baseline was captured."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting, self._folder = setting, folder
        self._rules = folder / "vedette.rules.yml"  # as they are now, whatever happens to them meanwhile
        self._rules.write_text(setting.rules.read_text())
        self._version = repository.find(BUNDLED_REPOSITORY, "roadsigns")
        self._pool = pool(self._version, setting.size)
        reference = REFERENCES[setting.reference]
        self._baseline, self.windows = capture(
            self._version, self._pool, folder / "reference", REFERENCE_SEED, reference, setting.pace
        )

    def _nights(self, start: float) -> tuple[Nights, Scrapes]:
        setting = self._setting
        nights = Nights(
            self._version,
            self._pool,
            Path(tempfile.mkdtemp(dir=self._folder)),
            SEED,
            baseline=self._baseline,
            pace=setting.pace,
            start=start,
            interval=setting.interval,
        )
        return nights, Scrapes(self._rules, setting.interval)

    def days(self, days: Sequence[Day], tell: Callable[[str], None] = lambda _line: None) -> list[Report]:
        """Play whole days; each is judged while the next is played."""
        nights, scrapes = self._nights(0)
        reports = []
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            for number, day in enumerate(days):
                frames, began = nights.frames, scrapes.count
                self._play(nights, scrapes, day, DAY)
                span = range(began, scrapes.count)
                reports.append((day, nights.frames - frames, executor.submit(self._judge, scrapes, number, span)))
                tell(f"day {number}, {day.name}: {nights.frames - frames} frames")
            return [Report(day, frames, *judged.result()) for day, frames, judged in reports]

    def fault(self, name: str, hours: tuple[float, float, float]) -> Report:
        """Play a part of a day; hours: when it begins, when the fault comes into the traffic, when it ends."""
        began, comes, ends = (hour * HOUR for hour in hours)
        nights, scrapes = self._nights(began)
        day = Day(f"fault {name}, from {hours[1]:g}:00 on")
        self._play(nights, scrapes, day, comes - began)
        nights.fault = FAULTS[name](self._pool)
        self._play(nights, scrapes, day, ends - comes)
        return Report(day, nights.frames, *self._judge(scrapes, 0, range(scrapes.count), hours[0]))

    def _play(self, nights: Nights, scrapes: Scrapes, day: Day, seconds: float) -> None:
        for _ in range(int(seconds / self._setting.interval)):
            nights.step(day)
            scrapes.add(nights.scrape())

    def _judge(self, scrapes: Scrapes, number: int, span: range, hour: float = 0) -> tuple[list[Firing], list[Sample]]:
        """Evaluate a span that begins at an hour: the firings, and how often each statistic was beyond its limits."""
        interval = scrapes.interval
        first = max(0, span.start - int(BEFORE / interval))
        seconds = len(span) * interval
        asked = (
            f"count_over_time(nights:begins[{seconds}s])",
            f"min_over_time(nights:begins[{seconds}s])",
            f"count_over_time({FIRING}[{seconds}s])",
            f"count_over_time(nights:windows[{seconds}s])",
        )
        path = self._folder / f"day{number}.yml"
        found = scrapes.ask(path, range(first, span.stop), hour * HOUR + (first + 1) * interval, asked)
        times, begins, lengths, windows = (found[expression] for expression in asked)
        since, scraped = ({_key(one): one.value for one in samples} for samples in (begins, lengths))
        firing = [
            Firing(
                one.labels,
                int(one.value),
                hour + since[_key(one)] / HOUR - (span.start - first) * interval / HOUR,
                scraped[_key(one)] * interval / 60,
            )
            for one in times
        ]
        return sorted(firing, key=lambda one: one.hour), windows


def _key(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items())


def alerts(reports: Sequence[Report]) -> Table:
    """The alerts that fired, day by day."""
    columns = ("day", "out of the ordinary", "frames", "critical", "warning", "info", "what fired")
    table = Table(*columns, title="Who is woken on honest days")
    for number, report in enumerate(reports):
        counts = [str(report.count(severity)) for severity in ("critical", "warning", "info")]
        table.add_row(str(number), report.day.name, str(report.frames), *counts, "\n".join(map(str, report.firing)))
    return table


def statistics(reports: Sequence[Report]) -> Table:
    """The share of evaluations at which each statistic was beyond its limits."""
    table = Table(
        "statistic",
        "of",
        "windows",
        "above",
        "below",
        "share beyond",
        title="Windows beyond their limits, at each evaluation",
    )
    sums: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for report in reports:
        for one in report.windows:
            level = "a stream" if one.labels.get("stream") else "the model"
            sums[one.labels["statistic"], level][one.labels["side"]] += int(one.value)
    for (statistic, level), counts in sorted(sums.items()):
        share = (counts["above"] + counts["below"]) / counts["any"]
        table.add_row(statistic, level, *(str(counts[side]) for side in ("any", "above", "below")), f"{share:.2%}")
    return table


def held(reports: Sequence[Report]) -> bool:
    """True if no alert paged, and at most one a day warned."""
    return all(not report.count("critical") and report.count("warning") <= 1 for report in reports)


@click.command()
@click.option("--hours", default=216, show_default=True, help="Simulated hours: whole days.")
@click.option("--reference", type=click.Choice(list(REFERENCES)), default=Setting.reference, show_default=True)
@click.option("--interval", default=Setting.interval, show_default=True, help="Seconds between two scrapes.")
@click.option("--rules", type=click.Path(exists=True, path_type=Path), default=RULES, show_default=True)
@click.option("--fault", type=click.Choice(list(FAULTS)), help="Instead: four hours with a fault from 11:00 on.")
@click.option("--write", is_flag=True, help="Put the tables into deploy/docs/statistics.md.")
def main(hours: int, reference: str, interval: int, rules: Path, fault: str | None, *, write: bool) -> None:
    """Simulate and print; ends with 1 if somebody was paged, or warned more than once a day."""
    console, began = Console(width=170), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        play = Play(Setting(reference=reference, interval=interval, rules=rules), Path(folder))
        if fault:
            reports = [play.fault(fault, (9, 11, 13))]
        else:
            days = [DAYS[number % len(DAYS)] for number in range(hours // 24)]
            reports = play.days(days, tell=lambda line: click.echo(line, err=True))
    tables = {
        "nights": alerts(reports),
        "beyond": statistics(reports),
        "others": nights_others.table(play.windows),
    }
    for table in tables.values():
        console.print(table)
    if write:
        nights_page.write(tables)
    totals = ", ".join(f"{sum(one.count(name) for one in reports)} {name}" for name in ("critical", "warning", "info"))
    frames = sum(report.frames for report in reports)
    lasted = (
        f"{4 if fault else 24 * len(reports)} simulated hours, played in {(time.monotonic() - began) / 60:.0f} minutes"
    )
    console.print(f"Baseline: {REFERENCES[reference].what}. {frames} frames in {lasted}.")
    console.print(f"{totals}: {'held' if held(reports) else 'MISSED'}")
    sys.exit(not held(reports))


if __name__ == "__main__":
    main()

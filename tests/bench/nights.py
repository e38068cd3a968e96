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

from tests.bench.nights_days import ALL_AT_ONCE, CLOSED, DAYS, HOUR, Day, Fault, Nights
from tests.bench.nights_pool import Pool, Size, pool
from tests.bench.nights_prometheus import FIRING, INTERVAL, Sample, Scrapes
from tests.bench.nights_reference import REFERENCES, capture

RULES = Path(__file__).parents[2] / "deploy/prometheus/vedette.rules.yml"
SEED, REFERENCE_SEED = 1, 1001
DAY_SCRAPES, BEFORE_SCRAPES = 24 * 3600 // INTERVAL, 13 * 3600 // INTERVAL
SMALL = Size(signs=5, signs_pictures=2, quiet=3, quiet_pictures=2)

_SECONDS = DAY_SCRAPES * INTERVAL
_ASKED = {
    "times": f"count_over_time(nights:begins[{_SECONDS}s])",
    "first": f"min_over_time(nights:begins[{_SECONDS}s])",
    "scrapes": f"count_over_time({FIRING}[{_SECONDS}s])",
    "windows": f"count_over_time(nights:windows[{_SECONDS}s])",
}


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
    """What a day came to."""

    day: Day
    frames: int
    firing: list[Firing]
    windows: list[Sample] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """How often alerts of a severity began to fire."""
        return sum(one.times for one in self.firing if one.severity == severity)


def silenced(_source: str, answer: Answer) -> Answer:
    """The same, had the threshold been 1."""
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
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


def play(
    days: Sequence[Day],
    *,
    size: Size,
    reference: str,
    pace: float = 1.0,
    rules: Path = RULES,
    fault: tuple[str, float] | None = None,
    tell: Callable[[str], None] = lambda _line: None,
) -> list[Report]:
    """Simulate days; with a fault, by its name, from an hour of the first of them on."""
    version = repository.find(BUNDLED_REPOSITORY, "roadsigns")
    answers = pool(version, size)
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(1) as executor:
        folder = Path(name)
        held = capture(version, answers, folder / "reference", REFERENCE_SEED, REFERENCES[reference], pace)
        tell(f"baseline: {REFERENCES[reference].what}, {len(held)} bytes")
        nights, scrapes = Nights(version, answers, folder / "nights", SEED, baseline=held, pace=pace), Scrapes(rules)
        reports = []
        with nights.clock.driving():
            for number, day in enumerate(days):
                frames = nights.frames
                for _ in range(DAY_SCRAPES):
                    if fault and nights.clock.now == fault[1] * HOUR:
                        nights.fault = FAULTS[fault[0]](answers)
                    scrapes.add(nights.step(day))
                first = max(0, number * DAY_SCRAPES - BEFORE_SCRAPES)
                path = folder / f"day{number}.yml"
                reports.append(
                    (day, nights.frames - frames, executor.submit(_judge, scrapes, path, first, scrapes.count))
                )
                tell(f"day {number}, {day.name}: {nights.frames - frames} frames")
        return [Report(day, frames, *judged.result()) for day, frames, judged in reports]


def _judge(scrapes: Scrapes, path: Path, first: int, end: int) -> tuple[list[Firing], list[Sample]]:
    """What fired on the day that ends at scrape `end`, and how often each statistic was beyond its limits."""
    began = (end - DAY_SCRAPES - first) * INTERVAL
    found = scrapes.ask(path, first, end, first * INTERVAL, list(_ASKED.values()))
    times, first_times, lengths, windows = (found[expression] for expression in _ASKED.values())
    firsts, scraped = ({_key(one): one.value for one in samples} for samples in (first_times, lengths))
    firing = [
        Firing(one.labels, int(one.value), (firsts[_key(one)] - began) / HOUR, scraped[_key(one)] * INTERVAL / 60)
        for one in times
    ]
    return sorted(firing, key=lambda one: one.hour), windows


def _key(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items())


def alerts(reports: Sequence[Report]) -> Table:
    """What fired, day by day."""
    table = Table("day", "frames", "critical", "warning", "info", "what fired", title="Who is woken on honest days")
    for number, report in enumerate(reports):
        what = "\n".join([report.day.name, *(f"  {one}" for one in report.firing)])
        counts = [str(report.count(severity)) for severity in ("critical", "warning", "info")]
        table.add_row(str(number), str(report.frames), *counts, what)
    return table


def statistics(reports: Sequence[Report]) -> Table:
    """How often each statistic lay beyond its limits."""
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
    """Whether nobody was paged, and nobody warned more than once a day."""
    return all(not report.count("critical") and report.count("warning") <= 1 for report in reports)


@click.command()
@click.option("--hours", default=216, show_default=True, help="Simulated hours: whole days.")
@click.option("--reference", type=click.Choice(list(REFERENCES)), default="by-hour", show_default=True)
@click.option("--fault", type=click.Choice(list(FAULTS)), help="Put a fault into the traffic at noon of the first day.")
@click.option("--rules", type=click.Path(exists=True, path_type=Path), default=RULES, show_default=True)
@click.option("--short", is_flag=True, help="Fewer pictures and frames, and everything on one day, as in the test.")
def main(hours: int, reference: str, fault: str | None, rules: Path, *, short: bool) -> None:
    """Simulate and print; ends with 1 if somebody was paged, or warned more than once a day."""
    days = [ALL_AT_ONCE if short else DAYS[number % len(DAYS)] for number in range(hours // 24)]
    reports = play(
        days,
        size=SMALL if short else Size(),
        pace=0.4 if short else 1.0,
        reference=reference,
        rules=rules,
        fault=(fault, 12) if fault else None,
        tell=lambda line: click.echo(line, err=True),
    )
    console = Console(width=150)
    console.print(alerts(reports))
    console.print(statistics(reports))
    totals = ", ".join(f"{sum(one.count(name) for one in reports)} {name}" for name in ("critical", "warning", "info"))
    frames = sum(report.frames for report in reports)
    console.print(
        f"{24 * len(days)} simulated hours, {frames} frames; {totals}; {'held' if held(reports) else 'MISSED'}"
    )
    sys.exit(not held(reports))


if __name__ == "__main__":
    main()

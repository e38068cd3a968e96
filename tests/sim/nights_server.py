"""A simulated server: the product's own findings and metrics, told of simulated answers at simulated times."""

import dataclasses
from pathlib import Path
from typing import TypeAlias

import numpy as np
from vedette_server.contract.answer import Answer
from vedette_server.contract.refusal import Reason
from vedette_server.engine.query import Outcome
from vedette_server.explain.explain import Context, explain
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import ModelVersion
from vedette_server.watch.sources import Key, Sources

from tests.support.clocks import SetClock

WORKERS = 2
_BUSY_SECONDS, _SPREAD = 0.09, 0.3  # a frame's time in a worker: median, and sigma of its logarithm
_GOLDEN_SECONDS = 3600  # between two checks

# The value of each series, by its name and its labels, sorted.
Scrape: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Server:
    """One replica. `restart` forgets all counts, as a process that starts again does."""

    def __init__(self, clock: SetClock, version: ModelVersion, seed: int) -> None:
        self._clock = clock
        self._rng = np.random.default_rng([seed, 4])
        self.version = version  # to which frames go
        self._served: dict[int, tuple[ModelVersion, float]] = {}  # and when its workers are ready
        self._golden_due = 0.0
        self.restart(0)

    def restart(self, seconds: float) -> None:
        self.metrics = Metrics(clock=self._clock)
        self._sources = Sources(self._clock.monotonic)
        self._served.clear()
        self.load(self.version, seconds)

    def load(self, version: ModelVersion, seconds: float) -> None:
        """Load a version, whose workers are ready after so many seconds."""
        self.metrics.loaded(version)
        self._served[version.version] = version, self._clock.seconds + seconds
        self._golden_due = 0.0

    def unload(self, version: ModelVersion) -> None:
        del self._served[version.version]
        self.metrics.unloaded(version)

    def swapped(self, before: ModelVersion, after: ModelVersion) -> None:
        """Frames go to a version that answers the earlier one's golden images alike."""
        self.metrics.disagrees(after, before, 0.0)
        self.version = after

    def tick(self, open_streams: int, *, busy: bool) -> None:
        """Tell the state, as the engine does when it changes."""
        self.metrics.streams(open_streams)
        for version, ready in self._served.values():
            workers = WORKERS if self._clock.seconds >= ready else 0
            waiting = int(self._rng.integers(20, 60)) if busy and version is self.version else 0
            running = min(workers, int(self._rng.integers(0, WORKERS + 1)))
            self.metrics.state(version, workers=workers, wanted=WORKERS, queued=waiting, running=running, restarts=0)
            if workers and self._clock.seconds >= self._golden_due:
                for _ in range(WORKERS):
                    self.metrics.golden(version, None)
        if self._clock.seconds >= self._golden_due:
            self._golden_due = self._clock.seconds + _GOLDEN_SECONDS
        self.metrics.tidy()

    def frame(self, source: str, answer: Answer, *, busy: bool) -> None:
        """A frame of a stream, or an image by itself (""): answered, refused, or dropped for a newer one."""
        name = self.version.name, str(self.version.version)
        chance = self._rng.random() if busy else 1.0
        if self._clock.seconds < self._served[self.version.version][1]:
            self.metrics.refused(*name, Reason.MODEL_NOT_READY)
        elif chance < 0.05:
            self.metrics.refused(*name, Reason.OVERLOADED)
        elif chance < 0.25 and source:
            self.metrics.dropped(*name, source, "SUPERSEDED")
        else:
            self._answered(source, answer, busy=busy)

    def _answered(self, source: str, answer: Answer, *, busy: bool) -> None:
        seen = self._sources.of(Key(self.version.name, self.version.version, source))
        seen.see(answer)
        context = Context(golden_failing="", identical=seen.identical, values=seen.values, suspicion=seen.suspicion)
        findings = explain(answer, self.version.contract, context)
        queue = float(self._rng.exponential(0.3 if busy else 0.005))
        total = queue + _BUSY_SECONDS * float(np.exp(self._rng.normal(0, _SPREAD)))
        self.metrics.batch(self.version, 1)
        outcome = Outcome(
            answer=answer,
            model=self.version,
            queue_seconds=queue,
            total_seconds=total,
            findings=findings,
            source=source,
            age_seconds=total + 0.05 if source else None,
        )
        self.metrics.answered(outcome)

    def scrape(self) -> Scrape:
        """Collect the page without writing it as text, which would take longer than all the rest."""
        families = self.metrics._families.registry.collect()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def copy_of(version: ModelVersion, folder: Path, number: int = 1) -> ModelVersion:
    """The same model as another version, whose baseline lies in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(version, version=number, folder=folder)

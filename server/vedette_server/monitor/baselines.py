"""The baselines of what is served, read from beside each version and shown as gauges."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vedette_server.baseline.stored import Baseline, BaselineRefusedError, Profile, read
from vedette_server.clock import SYSTEM, Clock
from vedette_server.monitor.families import SOURCE, VERSION
from vedette_server.repository.repository import BASELINE, ModelVersion

log = structlog.get_logger()

STATES = ("missing", "refused", "present")


@dataclass
class _Entry:
    """A version, and its baseline as it was read last."""

    model: ModelVersion
    stamp: tuple[int, int] | None = None  # of the file that was read
    state: str = "missing"
    baseline: Baseline | None = field(default=None)

    def refresh(self) -> None:
        """Read the baseline again, if its file is another one."""
        stamp = _stamp(self.model.folder / BASELINE)
        if stamp == self.stamp:
            return
        self.stamp = stamp
        try:
            self.baseline = read(self.model)
            self.state = "present" if self.baseline else "missing"
        except BaselineRefusedError as error:
            self.baseline, self.state = None, "refused"
            log.error("baseline_refused", model=self.model.name, version=self.model.version, why=str(error))  # noqa: TRY400  a reason, not a bug


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


class Baselines(Collector):
    """Shows the baselines; what a version's file says is noticed at the next scrape."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, int], _Entry] = {}

    def loaded(self, model: ModelVersion) -> None:
        """A version is served from now on."""
        self._entries[model.name, model.version] = _Entry(model)

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more."""
        self._entries.pop((model.name, model.version), None)

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        page, hour = _Page(), self._clock.utc().hour
        for entry in list(self._entries.values()):
            entry.refresh()
            page.add(entry.model, entry.state, entry.baseline, hour)
        yield from page.families


class _Page:
    """The families, filled version by version."""

    def __init__(self) -> None:
        def gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"vedette_baseline_{name}", told, labels=labels)

        self._state = gauge("state", "1 for what there is of a baseline.", *VERSION, "vedette_baseline_state")
        self._captured = gauge("captured_timestamp_seconds", "When the capture of the baseline ended.", *VERSION)
        self._window = gauge("window_seconds", "Length of a reference window; 0: groups of images.", *VERSION)
        self._answers = gauge("answers", "Answers that the baseline was made of.", *SOURCE)
        self._limit = gauge(
            "limit",
            "Between which values, in its own unit, a statistic lay while all was well, and its mean.",
            *SOURCE,
            "statistic",
            "bound",
        )
        self._scores = gauge(
            "score_cumulative_ratio", "Share of the detections whose score was at most the edge.", *VERSION, "edge"
        )
        self._best = gauge(
            "best_score_cumulative_ratio",
            "Share of the answers whose best score was at most the edge.",
            *SOURCE,
            "edge",
        )
        self._share = gauge("class_share_ratio", "Share of the detections.", *VERSION, "class")
        self._rate = gauge("class_detections_per_answer", "Detections of a class in each answer.", *VERSION, "class")
        self._presence = gauge(
            "class_presence_ratio", "Share of the reference windows in which a class was detected.", *VERSION, "class"
        )

    @property
    def families(self) -> list[GaugeMetricFamily]:
        return list(vars(self).values())

    def add(self, model: ModelVersion, state: str, baseline: Baseline | None, hour: int) -> None:
        labels = (model.name, str(model.version))
        for one in STATES:
            self._state.add_metric((*labels, one), one == state)
        if baseline is None:
            return
        self._captured.add_metric(labels, baseline.captured)
        self._window.add_metric(labels, baseline.window_seconds)
        for profile in in_force(baseline, hour):
            self._add_profile(labels, profile, baseline.edges)

    def _add_profile(self, labels: tuple[str, str], profile: Profile, edges: list[str]) -> None:
        source = (*labels, profile.stream)
        self._answers.add_metric(source, profile.answers)
        for statistic, limits in profile.statistics.items():
            for bound in ("low", "mean", "high"):
                self._limit.add_metric((*source, statistic, bound), getattr(limits, bound))
        for edge, share in zip(edges, profile.best_score, strict=True):
            self._best.add_metric((*source, edge), share)
        for edge, share in zip(edges if profile.scores else (), profile.scores, strict=True):
            self._scores.add_metric((*labels, edge), share)
        for name, seen in profile.classes.items():
            self._share.add_metric((*labels, name), seen.share)
            self._rate.add_metric((*labels, name), seen.per_answer)
            self._presence.add_metric((*labels, name), seen.presence)


def in_force(baseline: Baseline, hour: int) -> list[Profile]:
    """The profile of each source at an hour: that of all hours, but for how much is empty, where the hour has its own.

    An hour has not seen all weathers: limits of pixels and of distances drawn from it alone would be far too narrow.
    """
    own = {profile.stream: profile for profile in baseline.profiles if profile.hour == hour}
    return [
        msgspec.structs.replace(
            profile, statistics=profile.statistics | {"empty": own[profile.stream].statistics["empty"]}
        )
        if profile.stream in own
        else profile
        for profile in baseline.profiles
        if profile.hour is None
    ]

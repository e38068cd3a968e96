"""Facts of each model version and of each source of its images, since the server's start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vedette_server.alerts.limits import LEAST_DETECTIONS, MARGIN
from vedette_server.baseline.statistics import cumulative, ks, shares, total_variation
from vedette_server.explain.findings import Code

Counts = Mapping[str, float]


@dataclass(frozen=True)
class Limit:
    """Between what a statistic lay when all was well."""

    low: float | None
    mean: float | None
    high: float | None

    def side(self, value: float, margin: float) -> str:
        """On which side a value lies outside, beyond its margin and MARGIN of what lies between; empty: on none."""
        if self.low is not None and self.high is not None:
            margin = max(margin, MARGIN * (self.high - self.low))
        if self.high is not None and value > self.high + margin:
            return "above"
        return "below" if self.low is not None and value < self.low - margin else ""


@dataclass(frozen=True)
class Histogram:
    """Values by the buckets that they fell into; the last edge is infinite."""

    edges: tuple[float, ...]
    cumulative: tuple[float, ...]  # values at or below each edge
    total: float  # of the values themselves

    @property
    def count(self) -> float:
        """The number of values."""
        return self.cumulative[-1] if self.cumulative else 0.0

    @property
    def shares(self) -> list[float]:
        """The share at or below each edge; empty where there is no value."""
        return cumulative(self.cumulative)

    def quantile(self, share: float) -> float:
        """The value that this share lies below, taken to be spread evenly within a bucket, as Prometheus does."""
        wanted, low, before = share * self.count, 0.0, 0.0
        for edge, reached in zip(self.edges[:-1], self.cumulative, strict=False):
            if reached >= wanted:
                return low + (edge - low) * (wanted - before) / (reached - before)
            low, before = edge, reached
        return low


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stream, the images that come one by one, or all of them together."""

    name: str
    answers: float
    reasons: Counts  # of empty answers, the most frequent first
    findings: Counts  # the same
    dropped: Counts  # frames, by reason
    suspected: tuple[str, ...]  # causes, now
    inputs: Counts  # means, by statistic
    limits: Mapping[str, Limit]

    @property
    def empty(self) -> float:
        """The number of empty answers."""
        return sum(self.reasons.values())

    @property
    def share(self) -> float:
        """Of answers that are empty."""
        return self.empty / self.answers if self.answers else 0.0

    @property
    def leading(self) -> str:
        """The most frequent reason; empty: there is none."""
        return next(iter(self.reasons), "")

    @property
    def explained(self) -> float:
        """The share of empty answers that have another reason than quiet."""
        return 1 - self.reasons.get(Code.QUIET_SCENE, 0.0) / self.empty if self.empty else 0.0


@dataclass(frozen=True)
class Distances:
    """Scores and classes against those of the baseline, on as many detections as it takes."""

    scores: float | None  # None: too few detections, or no baseline
    classes: float | None


@dataclass(frozen=True, kw_only=True)
class BaselineFacts:
    """The answers of a version in its healthy period."""

    state: str  # missing, refused, present; empty: the page does not say
    captured: float  # seconds since 1970
    answers: float
    scores: Sequence[float] | None  # shares of detections at or below each edge of the histogram
    best: Sequence[float] | None  # the same of the best scores
    classes: Counts  # shares of detections
    per_answer: Counts  # detections per answer, by class


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a model."""

    model: str
    number: str
    info: Mapping[str, str]  # fingerprint, precision, waivers
    threshold: float
    ready: tuple[float, float]  # workers in rotation, and wanted
    restarts: float
    golden: Counts  # checks by result
    golden_failing: bool
    disagreement: Counts  # by predecessor
    nonfinite: Counts  # rows by stage
    refused: Counts
    violations: Counts
    whole: Source
    sources: tuple[Source, ...]
    scores: Histogram
    best: Histogram
    classes: Counts  # detections
    duration: Histogram
    age: Histogram
    stages: Mapping[str, Histogram]
    baseline: BaselineFacts

    @property
    def detections(self) -> float:
        """The number of detections."""
        return sum(self.classes.values())

    @property
    def distances(self) -> Distances:
        """Scores as Kolmogorov and Smirnov measure them, classes in total variation."""
        enough = self.detections >= LEAST_DETECTIONS
        scores = classes = None
        if enough and self.baseline.scores and len(self.baseline.scores) == len(self.scores.edges):
            scores = ks(self.scores.shares, self.baseline.scores)
        if enough and self.baseline.classes:
            classes = total_variation(shares(self.classes), self.baseline.classes)
        return Distances(scores, classes)

"""Metrics of the answers: emptiness and its reasons, scores, classes, candidates, pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Histogram, Summary

from vedette_server.alerts.inputs import INPUTS
from vedette_server.contract.answer import Answer, Evidence, PixelStatistics
from vedette_server.engine.query import Outcome
from vedette_server.explain.findings import Code
from vedette_server.monitor.families import SOURCE, VERSION, Families
from vedette_server.monitor.streams import OTHER, SINGLE
from vedette_server.repository.repository import ModelVersion

# Trained models' scores crowd near 1, and so do the edges. Literals: 0.15000000000000002 would be another series.
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
_COUNTS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
MOST_CLASSES = 100  # of a version that have series of their own
FATES = ("overlapped", "suppressed", "filtered", "capped", "clipped", "detected")


@dataclass(frozen=True)
class _Source:
    """The series of one source of images, found once."""

    answers: Counter
    best_score: Histogram
    inputs: Sequence[Summary]  # as INPUTS has them

    def see(self, pixels: PixelStatistics) -> None:
        for one, summary in zip(INPUTS.values(), self.inputs, strict=True):
            summary.observe(one.measure(pixels))


class Answers:
    """Counts what was found, and what was not."""

    def __init__(self, families: Families) -> None:
        self._answers = families.counter("vedette_answers", "Images answered.", SOURCE)
        self._empty = families.counter(
            "vedette_empty_answers", "Answers without a detection, by their primary reason.", (*SOURCE, "reason")
        )
        self._findings = families.counter("vedette_findings", "Findings about answers.", (*SOURCE, "finding"))
        self._detections = families.counter("vedette_detections", "Detections, by class.", (*VERSION, "class"))
        self._per_answer = families.histogram(
            "vedette_detections_per_answer", "Detections in an answer.", VERSION, _COUNTS
        )
        self._score = families.histogram(
            "vedette_detection_score", "Scores of detections, by class.", (*VERSION, "class"), SCORES
        )
        self._best = families.histogram(
            "vedette_best_score",
            "The best score of any candidate of an image, before the threshold; 0 where nothing was scored.",
            SOURCE,
            SCORES,
        )
        self._candidates = families.counter(
            "vedette_candidates", "Candidates above the floor, by what became of them.", (*VERSION, "fate")
        )
        self._dropped = families.counter(
            "vedette_nonfinite_rows",
            "Regions and anchors that were dropped because their values are not finite, by stage.",
            (*VERSION, "stage"),
        )
        self._inputs = [families.summary(one.metric, one.told, SOURCE) for one in INPUTS.values()]
        self._folded = families.counter(
            "vedette_labels_folded", "Events counted under _other because a label has too many values.", ("label",)
        )
        self._sources: dict[tuple[str, str, str], _Source] = {}
        self._classes: dict[tuple[str, str], list[str]] = {}  # labels by class id
        for label in ("stream", "class"):
            self._folded.labels(label)

    def loaded(self, model: ModelVersion) -> None:
        """Create the series that will be needed, so that their first event shows as an increase."""
        labels = (model.name, str(model.version))
        names = [name if index < MOST_CLASSES else OTHER for index, name in enumerate(model.contract.class_names)]
        self._classes[labels] = names
        for code in Code:
            self._empty.labels(*labels, SINGLE, code)
            self._findings.labels(*labels, SINGLE, code)
        for name in names:
            self._detections.labels(*labels, name)
            self._score.labels(*labels, name)
        for fate in FATES:
            self._candidates.labels(*labels, fate)
        self._per_answer.labels(*labels)
        self._source((*labels, SINGLE))

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more."""
        labels = (model.name, str(model.version))
        self._classes.pop(labels, None)
        self._sources = {key: source for key, source in self._sources.items() if key[:2] != labels}

    def forget(self, key: tuple[str, str, str]) -> None:
        """A stream's series have gone."""
        self._sources.pop(key, None)

    def folded_stream(self) -> None:
        """A frame is counted under another stream's label."""
        self._folded.labels("stream").inc()

    def _source(self, key: tuple[str, str, str]) -> _Source:
        if key not in self._sources:
            self._empty.labels(*key, Code.QUIET_SCENE)
            self._sources[key] = _Source(
                self._answers.labels(*key),
                self._best.labels(*key),
                [family.labels(*key) for family in self._inputs],
            )
        return self._sources[key]

    def answered(self, outcome: Outcome, stream: str) -> None:
        """Count an answer; `stream` is its label."""
        answer, labels = outcome.answer, (outcome.model.name, str(outcome.model.version))
        source = self._source((*labels, stream))
        source.answers.inc()
        source.best_score.observe(answer.evidence.best_score or 0.0)
        if answer.pixels:
            source.see(answer.pixels)
        if answer.empty:
            self._empty.labels(*labels, stream, outcome.findings[0].code).inc()
        for finding in outcome.findings:
            self._findings.labels(*labels, stream, finding.code).inc()
        self._count_detections(answer, labels)
        self._count_candidates(answer.evidence, len(answer.detections), labels)

    def _count_detections(self, answer: Answer, labels: tuple[str, str]) -> None:
        found, names = answer.detections, self._classes[labels]
        self._per_answer.labels(*labels).observe(len(found))
        for class_id, score in zip(found.class_ids.tolist(), found.scores.tolist(), strict=True):
            name = names[class_id] if 0 <= class_id < len(names) else OTHER  # which it has not named
            self._detections.labels(*labels, name).inc()
            self._score.labels(*labels, name).observe(score)
            if name == OTHER:
                self._folded.labels("class").inc()

    def _count_candidates(self, evidence: Evidence, detected: int, labels: tuple[str, str]) -> None:
        counts = (
            evidence.overlapped,
            evidence.suppressed,
            evidence.filtered,
            evidence.capped,
            evidence.clipped,
            detected,
        )
        for fate, count in zip(FATES, counts, strict=True):
            if count:
                self._candidates.labels(*labels, fate).inc(count)
        for stage, count in evidence.dropped.items():
            self._dropped.labels(*labels, stage).inc(count)

"""Prometheus metrics. They live in the gateway alone; workers report in their answers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from vedette_server.contract.refusal import Reason
from vedette_server.engine.query import Outcome
from vedette_server.explain.findings import Code
from vedette_server.repository.repository import ModelVersion

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_VERSION = ("model", "version")
_STAGES = ("queue", "decode", "preprocess", "forward", "postprocess")


class Metrics:
    """Counts what the engine tells of."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "vedette_requests",
            "Requests by outcome: OK, or the reason of the refusal.",
            (*_VERSION, "outcome"),
            registry=self.registry,
        )
        self._total = Histogram(
            "vedette_request_seconds",
            "Time from a request's admission to its answer.",
            _VERSION,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "vedette_stage_seconds",
            "Time that answered requests spent in each stage.",
            (*_VERSION, "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._detections = Counter(
            "vedette_detections", "Detections in answers, by class.", (*_VERSION, "class"), registry=self.registry
        )
        self._empty = Counter(
            "vedette_empty_answers",
            "Answers without a detection, by their primary reason.",
            (*_VERSION, "reason"),
            registry=self.registry,
        )
        self._workers = Gauge("vedette_workers_ready", "Workers in rotation.", _VERSION, registry=self.registry)
        self._queued = Gauge(
            "vedette_queued_requests", "Requests that wait for a worker.", _VERSION, registry=self.registry
        )
        self._running = Gauge(
            "vedette_running_requests", "Requests that a worker has.", _VERSION, registry=self.registry
        )
        self._restarts = Counter("vedette_worker_restarts", "Worker restarts.", _VERSION, registry=self.registry)
        self._waived = Gauge(
            "vedette_check_waived",
            "1 for each check that the operator has switched off in model.toml.",
            (*_VERSION, "check"),
            registry=self.registry,
        )
        self._restarts_seen: dict[tuple[str, str], int] = {}
        self._dropped = Counter(
            "vedette_frames_dropped",
            "Frames that were dropped by their stream's own policy.",
            (*_VERSION, "reason"),
            registry=self.registry,
        )
        self._suspicions: dict[tuple[str, str, str], str] = {}
        self._suspected = Gauge(
            "vedette_suspected_cause",
            "1 for the cause that the emptiness of a stream, or of single images, is suspected to have.",
            (*_VERSION, "stream", "cause"),
            registry=self.registry,
        )
        self._golden = Counter(
            "vedette_golden_checks",
            "Times that a worker answered the golden images, by result.",
            (*_VERSION, "result"),
            registry=self.registry,
        )
        self._findings = Counter(
            "vedette_findings", "Findings about answers.", (*_VERSION, "finding"), registry=self.registry
        )
        self._streams = Gauge("vedette_streams_open", "Streams that are open.", registry=self.registry)

    def loaded(self, model: ModelVersion) -> None:
        """Create the series that will be needed, so that their first event shows as an increase."""
        labels = (model.name, str(model.version))
        self._requests.labels(*labels, "OK")
        self._total.labels(*labels)
        for code in Code:
            self._empty.labels(*labels, code)
            self._findings.labels(*labels, code)
        for result in ("passed", "failed"):
            self._golden.labels(*labels, result)
        for stage in _STAGES:
            self._stages.labels(*labels, stage)
        for name in model.contract.class_names:
            self._detections.labels(*labels, name)
        for check in model.contract.waivers:
            self._waived.labels(*labels, check).set(1)

    def answered(self, outcome: Outcome) -> None:
        """Count an answer."""
        answer, model = outcome.answer, outcome.model
        labels = (model.name, str(model.version))
        self._requests.labels(*labels, "OK").inc()
        self._total.labels(*labels).observe(outcome.total_seconds)
        times = answer.times
        spent = (outcome.queue_seconds, times.decode, times.preprocess, times.forward, times.postprocess)
        for stage, seconds in zip(_STAGES, spent, strict=True):
            self._stages.labels(*labels, stage).observe(seconds)
        for class_id in answer.detections.class_ids:
            self._detections.labels(*labels, model.contract.class_names[class_id]).inc()
        if not len(answer.detections):
            self._empty.labels(*labels, outcome.findings[0].code).inc()
        for finding in outcome.findings:
            self._findings.labels(*labels, finding.code).inc()

    def refused(self, model: str, version: str, reason: Reason) -> None:
        """Count a refusal."""
        self._requests.labels(model, version, reason).inc()

    def dropped(self, model: str, version: str, reason: str) -> None:
        """Count a dropped frame."""
        self._dropped.labels(model, version, reason).inc()

    def suspected(self, model: ModelVersion, source: str, cause: str | None) -> None:
        """Show the cause that a source's emptiness is suspected to have."""
        labels = (model.name, str(model.version), source)
        if (before := self._suspicions.pop(labels, None)) is not None:
            self._suspected.labels(*labels, before).set(0)
        if cause is not None:
            self._suspicions[labels] = cause
            self._suspected.labels(*labels, cause).set(1)

    def golden(self, model: ModelVersion, *, passed: bool) -> None:
        """Count an inference of the golden images."""
        self._golden.labels(model.name, str(model.version), "passed" if passed else "failed").inc()

    def streams(self, count: int) -> None:
        """Show how many streams are open."""
        self._streams.set(count)

    def state(self, model: ModelVersion, *, workers: int, queued: int, running: int, restarts: int) -> None:
        """Show the state of a version's pool."""
        labels = (model.name, str(model.version))
        self._workers.labels(*labels).set(workers)
        self._queued.labels(*labels).set(queued)
        self._running.labels(*labels).set(running)
        self._restarts.labels(*labels).inc(restarts - self._restarts_seen.get(labels, 0))
        self._restarts_seen[labels] = restarts

    def page(self, accept: str) -> tuple[bytes, str]:
        """The metrics page and its content type, in the format that the scraper's Accept header prefers."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

"""Metrics of serving: outcomes, times, batches, queues, workers, drops."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping

from vedette_server.contract.refusal import VIOLATIONS, Reason
from vedette_server.engine.query import Outcome
from vedette_server.monitor.families import SOURCE, VERSION, Families
from vedette_server.pool.ends import End
from vedette_server.pool.pool import FAILED
from vedette_server.repository.repository import ModelVersion

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGES = ("queue", "decode", "preprocess", "forward", "postprocess")
_LONGEST_EXEMPLAR = 128  # characters of all its labels' names and values, by OpenMetrics
_BATCHES = (1, 2, 4, 8, 16)
_EARLY = (Reason.INTAKE_FULL, Reason.REQUEST_STALLED)  # refused before it is known which model is meant
_OLDEST = 3600.0  # seconds; frames that are older come from a camera whose clock is wrong


class Serving:
    """Counts requests and what became of them."""

    def __init__(self, families: Families, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # that on which the engine tells since when something is
        self.requests = families.counter(
            "vedette_requests", "Requests by outcome: OK, or the reason of the refusal.", (*VERSION, "outcome")
        )
        self._violations = families.counter(
            "vedette_contract_violations",
            "Requests refused because the image contradicts its declaration or the model's contract.",
            (*VERSION, "reason"),
        )
        self.duration = families.histogram(
            "vedette_request_duration_seconds", "Time from a request's admission to its answer.", VERSION, SECONDS
        )
        self.stages = families.histogram(
            "vedette_stage_duration_seconds",
            "Time that answered requests spent in each stage.",
            (*VERSION, "stage"),
            SECONDS,
        )
        self.batches = families.histogram(
            "vedette_batch_images", "Images that were inferred at once.", VERSION, _BATCHES
        )
        self._age = families.histogram(
            "vedette_frame_age_seconds", "Time from a frame's capture to its answer, up to an hour.", VERSION, SECONDS
        )
        self._dropped = families.counter(
            "vedette_frames_dropped", "Frames that were dropped by their stream's own policy.", (*SOURCE, "reason")
        )
        self.queued = families.gauge("vedette_queued_requests", "Requests that wait for a worker.", VERSION)
        self._running = families.gauge("vedette_running_requests", "Requests that a worker has.", VERSION)
        self._ready = families.gauge("vedette_workers_ready", "Workers in rotation.", VERSION)
        self._wanted = families.gauge("vedette_workers_wanted", "Workers in rotation when all is well.", VERSION)
        self._model_ready = families.gauge("vedette_model_ready", "1 if the version answers.", VERSION)
        self._restarts = families.counter("vedette_worker_restarts", "Worker restarts.", VERSION)
        self._lost = families.counter(
            "vedette_workers_lost", "Workers that were lost or did not come up, by cause.", (*VERSION, "cause")
        )
        self._lost_seen: dict[tuple[str, str, str], int] = {}
        self._restarts_seen: dict[tuple[str, str], int] = {}
        self._unanswered = families.gauge(
            "vedette_unanswered_seconds",
            "Time since the version, which has something to answer, has answered anything; 0 if it has nothing.",
            VERSION,
        )
        self._owes_since: dict[tuple[str, str], float | None] = {}  # monotonic
        self._streams = families.gauge("vedette_streams_open", "Streams that are open.")
        for reason in _EARLY:
            self.requests.labels("", "", reason)

    def loaded(self, model: ModelVersion) -> None:
        """Create the series that will be needed, so that their first event shows as an increase."""
        labels = (model.name, str(model.version))
        for outcome in ("OK", *Reason):
            self.requests.labels(*labels, outcome)
        for reason in VIOLATIONS:
            self._violations.labels(*labels, reason)
        for stage in STAGES:
            self.stages.labels(*labels, stage)
        for family in (self.duration, self.batches, self._age):
            family.labels(*labels)
        for cause in (*End, FAILED):
            self._lost.labels(*labels, cause)
        self._unanswered.labels(*labels).set_function(functools.partial(self._unanswered_seconds, labels))

    def _unanswered_seconds(self, labels: tuple[str, str]) -> float:
        """It grows by itself: what is read is what is so now."""
        since = self._owes_since.get(labels)
        return 0.0 if since is None else self._clock() - since

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more."""
        labels = (model.name, str(model.version))
        self._restarts_seen.pop(labels, None)
        self._owes_since.pop(labels, None)
        self._lost_seen = {key: count for key, count in self._lost_seen.items() if key[:2] != labels}

    def owes(self, model: ModelVersion, since: float | None) -> None:
        """Show since when a version answers nothing of what it has to answer."""
        self._owes_since[model.name, str(model.version)] = since

    def lost(self, model: ModelVersion, causes: Mapping[str, int]) -> None:
        """Count the workers that were lost so far."""
        for cause, count in causes.items():
            labels = (model.name, str(model.version), cause)
            self._lost.labels(*labels).inc(count - self._lost_seen.get(labels, 0))
            self._lost_seen[labels] = count

    def set_aside(self, refused: Iterable[tuple[str, str]]) -> None:
        """Versions, by name and number, that cannot be served do not answer."""
        for labels in refused:
            self._model_ready.labels(*labels).set(0)

    def answered(self, outcome: Outcome) -> None:
        """Count an answer."""
        labels = (outcome.model.name, str(outcome.model.version))
        request_id = outcome.request_id
        fits = request_id and len("request_id") + len(request_id) <= _LONGEST_EXEMPLAR
        self.requests.labels(*labels, "OK").inc()
        self.duration.labels(*labels).observe(outcome.total_seconds, {"request_id": request_id} if fits else None)
        times = outcome.answer.times
        spent = (outcome.queue_seconds, times.decode, times.preprocess, times.forward, times.postprocess)
        for stage, seconds in zip(STAGES, spent, strict=True):
            self.stages.labels(*labels, stage).observe(seconds)
        if outcome.age_seconds is not None and outcome.age_seconds <= _OLDEST:
            self._age.labels(*labels).observe(outcome.age_seconds)

    def refused(self, model: str, version: str, reason: Reason) -> None:
        """Count a refusal."""
        self.requests.labels(model, version, reason).inc()
        if reason in VIOLATIONS:
            self._violations.labels(model, version, reason).inc()

    def dropped(self, model: str, version: str, stream: str, reason: str) -> None:
        """Count a dropped frame."""
        self._dropped.labels(model, version, stream, reason).inc()

    def batch(self, model: ModelVersion, size: int) -> None:
        """Count a batch."""
        self.batches.labels(model.name, str(model.version)).observe(size)

    def streams(self, count: int) -> None:
        """Show how many streams are open."""
        self._streams.set(count)

    def state(
        self, model: ModelVersion, *, workers: int, wanted: int, queued: int, running: int, restarts: int
    ) -> None:
        """Show the state of a version's pool."""
        labels = (model.name, str(model.version))
        self._ready.labels(*labels).set(workers)
        self._wanted.labels(*labels).set(wanted)
        self._model_ready.labels(*labels).set(workers > 0)
        self.queued.labels(*labels).set(queued)
        self._running.labels(*labels).set(running)
        self._restarts.labels(*labels).inc(restarts - self._restarts_seen.get(labels, 0))
        self._restarts_seen[labels] = restarts

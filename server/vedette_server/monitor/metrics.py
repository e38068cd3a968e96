"""Prometheus metrics. They live in the gateway alone; workers report in their answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vedette_server.clock import SYSTEM, Clock
from vedette_server.contract.loading import Check
from vedette_server.contract.refusal import Reason
from vedette_server.engine.query import Outcome
from vedette_server.explain.findings import Code
from vedette_server.monitor.answers import Answers
from vedette_server.monitor.baselines import Baselines
from vedette_server.monitor.entry import Entry, Log
from vedette_server.monitor.families import Families
from vedette_server.monitor.serving import Serving
from vedette_server.monitor.streams import Key, Streams
from vedette_server.monitor.triton import Triton
from vedette_server.monitor.versions import Versions
from vedette_server.repository.repository import ModelVersion
from vedette_server.repository.shelf import RefusedVersion


class Metrics:
    """Counts what the engine tells of: its `Monitor`."""

    def __init__(self, *, triton: bool = False, clock: Clock = SYSTEM) -> None:
        """With `triton`, the page has Triton's names too."""
        self._families = Families()
        self._entry = Entry(self._families)
        self._serving = Serving(self._families, clock.monotonic)
        self._answers = Answers(self._families)
        self._versions = Versions(self._families)
        self._baselines = Baselines(clock)
        self._streams = Streams(self._answers.folded_stream, self._forget, clock.monotonic)
        self._refused: Mapping[tuple[str, str], Check] = {}
        self._loaded: set[tuple[str, str]] = set()
        collectors: Iterable[Collector] = (self._baselines, Log(), *([Triton(self._serving)] if triton else []))
        for collector in collectors:
            self._families.registry.register(collector)

    def loaded(self, model: ModelVersion) -> None:
        """A version is served from now on: the series that it will need are there at zero."""
        self._loaded.add((model.name, str(model.version)))
        self._serving.loaded(model)
        self._answers.loaded(model)
        self._versions.loaded(model)
        self._baselines.loaded(model)

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more, and its series go."""
        labels = (model.name, str(model.version))
        self._loaded.discard(labels)
        self._families.forget(model=labels[0], version=labels[1])
        self._streams.unloaded(*labels)
        self._serving.unloaded(model)
        self._answers.unloaded(model)
        self._versions.unloaded(model)
        self._baselines.unloaded(model)

    def _forget(self, key: Key) -> None:
        model, version, stream = key
        self._families.forget(model=model, version=version, stream=stream)
        self._answers.forget(key)

    def answered(self, outcome: Outcome) -> None:
        """Count an answer, but the last ones of a version that has gone: their series would stay for ever."""
        labels = (outcome.model.name, str(outcome.model.version))
        if labels in self._loaded:
            self._serving.answered(outcome)
            self._answers.answered(outcome, self._streams.label(*labels, outcome.source))

    def refused(self, model: str, version: str, reason: Reason) -> None:
        """Count a refusal."""
        self._serving.refused(model, version, reason)

    def dropped(self, model: str, version: str, source: str, reason: str) -> None:
        """Count a dropped frame, likewise; both names are empty where its stream asks for no version that is known."""
        if not model:
            self._serving.dropped("", "", "", reason)
        elif (model, version) in self._loaded:
            self._serving.dropped(model, version, self._streams.label(model, version, source), reason)

    def batch(self, model: ModelVersion, size: int) -> None:
        """Count a batch."""
        self._serving.batch(model, size)

    def suspected(self, model: ModelVersion, source: str, cause: str | None) -> None:
        """Show the cause that a source's emptiness is suspected to have."""
        label = self._streams.label(model.name, str(model.version), source)
        self._versions.suspected(model, label, source, cause)

    def golden(self, model: ModelVersion, cause: Code | None) -> None:
        """Count an inference of the golden images; `cause` is why they failed."""
        self._versions.golden(model, cause)

    def disagrees(self, model: ModelVersion, predecessor: ModelVersion, share: float) -> None:
        """Show how a version answers the golden images of an earlier one."""
        self._versions.disagrees(model, predecessor, share)

    def streams(self, count: int) -> None:
        """Show how many streams are open."""
        self._serving.streams(count)

    def state(
        self, model: ModelVersion, *, workers: int, wanted: int, queued: int, running: int, restarts: int
    ) -> None:
        """Show the state of a version's pool."""
        self._serving.state(model, workers=workers, wanted=wanted, queued=queued, running=running, restarts=restarts)

    def owes(self, model: ModelVersion, since: float | None) -> None:
        """Show since when a version answers nothing of what it has to answer."""
        self._serving.owes(model, since)

    def lost(self, model: ModelVersion, causes: Mapping[str, int]) -> None:
        """Count lost workers."""
        self._serving.lost(model, causes)

    def set_aside(self, versions: Sequence[RefusedVersion]) -> None:
        """Show the versions that cannot be served."""
        now = {(one.name, str(one.version)): one.reason.check for one in versions}
        for name, version in (self._refused.keys() - now.keys()) - self._loaded:
            self._families.forget(model=name, version=version)
        self._versions.set_aside(now)
        self._serving.set_aside(now)
        self._refused = now

    def reloaded(self, file: str, taken: bool) -> None:  # noqa: FBT001  as it is told
        """Count that a file about who may call was read again; not taken: what was there before holds on."""
        self._entry.reloaded(file, taken=taken)

    def files(self, stale: Mapping[str, bool], ends: Mapping[str, float]) -> None:
        """Show which files about who may call cannot be read as they are now, and when certificates end."""
        self._entry.files(stale, ends)

    def tidy(self) -> None:
        """Let go of the series of streams that have not been seen for long."""
        self._streams.forget_idle()

    def described(self) -> Iterator[tuple[Metric, Sequence[str]]]:
        """Every family, with the names of its labels."""
        for family in self._families.registry.collect():
            of_collectors: Sequence[str] = getattr(family, "_labelnames", ())
            yield family, self._families.labels.get(family.name, of_collectors)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The metrics page and its content type, in the format that the scraper's Accept header prefers.

        It may be called from any thread: rendering many series takes a while.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self._families.registry), content_type

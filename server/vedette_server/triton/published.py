"""Our metrics on Triton's own page, under their names and labels, so that rules and dashboards hold there too.

Triton keeps the metrics of all processes. Each instance adds what it has counted since it last published, so that the
sums are right over any number of instances. A histogram's samples are counters there, which PromQL reads alike.
"""

import threading
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from vedette_server.monitor.metrics import Metrics

_PAUSE_SECONDS = 1.0  # between two publications: each series that has changed costs a fifth of a millisecond
_IDLE_SECONDS = 30.0  # after which what time alone changes is published

_Series = tuple[str, tuple[tuple[str, str], ...]]


class Published:
    """Publishes the metrics of one instance from a thread of its own, so that no request waits for it."""

    def __init__(self, backend: Any, metrics: Metrics) -> None:  # noqa: ANN401  a module without types
        self._kinds = backend.MetricFamily
        self._metrics = metrics
        self._families: dict[str, Any] = {}
        self._series: dict[_Series, Any] = {}
        self._told: dict[_Series, float] = {}
        self._changed, self._closing = threading.Event(), threading.Event()
        self._publish()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Something has changed."""
        self._changed.set()

    def close(self) -> None:
        """Publish once more, and end."""
        self._closing.set()
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait(_IDLE_SECONDS)
            self._changed.clear()
            self._publish()
            self._closing.wait(_PAUSE_SECONDS)
        self._publish()

    def _publish(self) -> None:
        self._metrics.tidy()
        for family, _ in self._metrics.described():
            for sample in family.samples:
                self._show(family, sample)

    def _show(self, family: Metric, sample: Sample) -> None:
        key = (sample.name, tuple(sample.labels.items()))
        told = self._told.get(key)
        if told is None:
            self._series[key] = self._family(family, sample.name).Metric(labels=sample.labels)
        if sample.value == (told or 0.0):
            pass
        elif family.type == "gauge":
            self._series[key].set(sample.value)
        else:
            self._series[key].increment(sample.value - (told or 0.0))
        self._told[key] = sample.value

    def _family(self, family: Metric, name: str) -> Any:  # noqa: ANN401  the same
        if name not in self._families:
            kind = self._kinds.GAUGE if family.type == "gauge" else self._kinds.COUNTER
            self._families[name] = self._kinds(name=name, description=family.documentation, kind=kind)
        return self._families[name]

"""The same figures under the names that Triton gives them, for dashboards that exist already.

Names and units are those of Triton's documentation, "Metrics": cumulative microseconds and counts. They lack the suffix
that OpenMetrics asks of counters, and so they are untyped here.
"""

from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import UntypedMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vedette_server.monitor.serving import Serving

_MICROSECONDS = 1e6
_STAGES = {  # Triton's three, of our four
    "queue": "queue",
    "decode": "compute_input",
    "preprocess": "compute_input",
    "forward": "compute_infer",
    "postprocess": "compute_output",
}
Labels = tuple[str, str]  # model, version


class Triton(Collector):
    """Shows our own series again, summed and named as Triton does."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        success, failure = self._requests()
        yield _family("request_success", "Number of successful inference requests", success)
        yield _family("request_failure", "Number of failed inference requests", failure)
        yield _family("count", "Number of inferences performed", success)
        yield _family("exec_count", "Number of model executions performed", _read(self._serving.batches, "_count"))
        total = _read(self._serving.duration, "_sum", _MICROSECONDS)
        yield _family("request_duration_us", "Cumulative inference request duration in microseconds", total)
        for name, times in self._stages().items():
            yield _family(f"{name}_duration_us", f"Cumulative {name} duration in microseconds", times)
        waiting = _read(self._serving.queued, "")
        yield _family("pending_request_count", "Number of pending requests per model", waiting)

    def _requests(self) -> tuple[dict[Labels, float], dict[Labels, float]]:
        success: dict[Labels, float] = {}
        failure: dict[Labels, float] = {}
        for labels, outcome, value in _samples(self._serving.requests, "_total", "outcome"):
            counts = success if outcome == "OK" else failure
            counts[labels] = counts.get(labels, 0.0) + value
        return success, failure

    def _stages(self) -> dict[str, dict[Labels, float]]:
        times: dict[str, dict[Labels, float]] = {}
        for labels, stage, value in _samples(self._serving.stages, "_sum", "stage"):
            mine = times.setdefault(_STAGES[stage], {})
            mine[labels] = mine.get(labels, 0.0) + value * _MICROSECONDS
        return times


def _samples(family: Counter | Gauge | Histogram, suffix: str, label: str = "") -> Iterator[tuple[Labels, str, float]]:
    for metric in family.collect():
        for sample in metric.samples:
            if sample.name == metric.name + suffix and sample.labels["model"]:
                labels = (sample.labels["model"], sample.labels["version"])
                yield labels, sample.labels.get(label, ""), sample.value


def _read(family: Counter | Gauge | Histogram, suffix: str, factor: float = 1.0) -> dict[Labels, float]:
    return {labels: value * factor for labels, _, value in _samples(family, suffix)}


def _family(name: str, told: str, values: dict[Labels, float]) -> Metric:
    family = UntypedMetricFamily(f"nv_inference_{name}", told, labels=("model", "version"))
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family

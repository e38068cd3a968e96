"""Metrics of access: its files, the ends of certificates; and of lines lost by the log."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vedette_server import logs
from vedette_server.monitor.families import Families


class Entry:
    """Shows the files about who may call."""

    def __init__(self, families: Families) -> None:
        self._reloads = families.counter(
            "vedette_access_reloads",
            "Changed files about who may call: taken, or refused, so that what was there before holds on.",
            ("file", "outcome"),
        )
        self._stale = families.gauge(
            "vedette_access_stale",
            "1 if such a file, or address, cannot be read as it is now, and what was there before holds on.",
            ("file",),
        )
        self._ends = families.gauge(
            "vedette_certificate_expiry_timestamp_seconds",
            "When the first certificate ends of those that the server shows, and of those of its clients' authority.",
            ("certificate",),
        )

    def reloaded(self, file: str, *, taken: bool) -> None:
        """Count that a file was read again."""
        self._reloads.labels(file, "taken" if taken else "refused").inc()

    def files(self, stale: Mapping[str, bool], ends: Mapping[str, float]) -> None:
        """Show what the files are like now."""
        for file, is_so in stale.items():
            self._stale.labels(file).set(is_so)
            for outcome in ("taken", "refused"):
                self._reloads.labels(file, outcome)
        for certificate, end in ends.items():
            self._ends.labels(certificate).set(end)


class Log(Collector):
    """Shows what the log has lost, and what it was spared."""

    def collect(self) -> Iterator[Metric]:
        """Both families."""
        told = "Lines of the log that could not be written, and were dropped."
        yield CounterMetricFamily("vedette_log_lines_dropped", told, logs.dropped())
        told = "Lines of the log that were not written because there were too many of their kind in a second."
        yield CounterMetricFamily("vedette_log_lines_suppressed", told, logs.suppressed())

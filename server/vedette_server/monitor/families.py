"""Metric families in one registry, whose series go when what they are about has gone."""

from collections.abc import Sequence
from typing import TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics import MetricWrapperBase

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which no rule here reads

VERSION = ("model", "version")
SOURCE = (*VERSION, "stream")

_Family = TypeVar("_Family", Counter, Gauge, Histogram, Summary)


class Families:
    """Makes metric families, and forgets series of all of them by their labels."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.labels: dict[str, Sequence[str]] = {}  # by a family's name
        self._labelled: list[tuple[MetricWrapperBase, frozenset[str]]] = []

    def counter(self, name: str, told: str, labels: Sequence[str]) -> Counter:
        """A counter; `_total` is added to its name."""
        return self._add(name, Counter(name, told, labels, registry=self.registry), labels)

    def gauge(self, name: str, told: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge."""
        return self._add(name, Gauge(name, told, labels, registry=self.registry), labels)

    def histogram(self, name: str, told: str, labels: Sequence[str], edges: Sequence[float]) -> Histogram:
        """A histogram; `edges` are its buckets' upper ends, without infinity."""
        return self._add(name, Histogram(name, told, labels, buckets=edges, registry=self.registry), labels)

    def summary(self, name: str, told: str, labels: Sequence[str]) -> Summary:
        """A sum and a count: their rates' quotient is the mean."""
        return self._add(name, Summary(name, told, labels, registry=self.registry), labels)

    def _add(self, name: str, family: _Family, labels: Sequence[str]) -> _Family:
        self.labels[name] = labels
        if labels:
            self._labelled.append((family, frozenset(labels)))
        return family

    def forget(self, **labels: str) -> None:
        """Remove every series, of every family, that has all these labels with these values."""
        for family, names in self._labelled:
            if names >= labels.keys():
                family.remove_by_labels(labels)

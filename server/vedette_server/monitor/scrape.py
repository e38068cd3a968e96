"""A page of metrics, read back: what a server has counted, and what it has counted since an earlier page."""

from collections.abc import Mapping
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

_Labels = tuple[tuple[str, str], ...]  # sorted by name


class Page:
    """The samples of one page, by name and labels."""

    def __init__(self, samples: Mapping[str, Mapping[_Labels, float]]) -> None:
        self._samples = samples

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a page in Prometheus' text format. Raises `ValueError` for what is no such page."""
        samples: dict[str, dict[_Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return cls(samples)

    def by(self, name: str, *labels: str, **match: str) -> dict[tuple[str, ...], float]:
        """Sums over the series of a name that match, by the values of `labels`."""
        sums: dict[tuple[str, ...], float] = {}
        for pairs, value in self._samples.get(name, {}).items():
            given = dict(pairs)
            if all(given.get(label, "") == wanted for label, wanted in match.items()):
                key = tuple(given.get(label, "") for label in labels)
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def value(self, name: str, **match: str) -> float:
        """The sum over the series of a name that match; 0 for none."""
        return sum(self.by(name, **match).values())

    def since(self, earlier: "Page") -> "Page":
        """What was counted since an earlier page, of the series that are on this one; for counters alone.

        Raises `ValueError` if something has become less: the server has been started again in between.
        """
        return Page({name: self._differences(name, earlier) for name in self._samples if _counts(name)})

    def _differences(self, name: str, earlier: "Page") -> dict[_Labels, float]:
        before = earlier._samples.get(name, {})  # noqa: SLF001  of its own kind
        differences = {labels: value - before.get(labels, 0.0) for labels, value in self._samples[name].items()}
        if any(value < 0 for value in differences.values()):
            msg = f"{name} has become less: the server was started again in between"
            raise ValueError(msg)
        return differences

    def __add__(self, other: "Page") -> "Page":
        """The sum of two replicas' pages."""
        names = {*self._samples, *other._samples}
        theirs = other._samples
        return Page({name: _added(self._samples.get(name, {}), theirs.get(name, {})) for name in names})


def _counts(name: str) -> bool:
    """Whether a sample counts up, by the suffixes that the formats give such samples."""
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def _added(one: Mapping[_Labels, float], other: Mapping[_Labels, float]) -> dict[_Labels, float]:
    return {labels: one.get(labels, 0.0) + other.get(labels, 0.0) for labels in {*one, *other}}

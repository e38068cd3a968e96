"""The statistics by which answers are held against their baseline; the rules compute the same in PromQL.

Their choice, limits and false-alarm rates are explained in deploy/docs/statistics.md.
"""

import itertools
from collections.abc import Mapping, Sequence

from vedette_server.baseline.stored import Limits

_MOVING_RANGE = (
    1.128  # d2 of two values: Shewhart's control chart for individuals (Montgomery, "Statistical Quality Control")
)


def limits(values: Sequence[float], lowest: float = 0.0, highest: float = float("inf")) -> Limits:
    """The limits of a statistic, from its values in at least two reference windows, in their order.

    They lie one sigma outside of what the reference has shown. Sigma comes from the differences between successive
    windows, so that a reference that holds day and night does not take the step between them for noise.
    """
    sigma = sum(abs(one - other) for one, other in itertools.pairwise(values))
    sigma /= (len(values) - 1) * _MOVING_RANGE
    mean = sum(values) / len(values)
    return Limits(max(lowest, min(values) - sigma), mean, min(highest, max(values) + sigma))


def cumulative(counts: Sequence[float]) -> list[float]:
    """The shares of a cumulative histogram's buckets, of which the last holds all; empty where that is nothing."""
    return [count / counts[-1] for count in counts] if counts and counts[-1] else []


def ks(one: Sequence[float], other: Sequence[float]) -> float:
    """The Kolmogorov-Smirnov distance of two distributions, at the edges of their buckets: 0 to 1."""
    return max(abs(first - second) for first, second in zip(one, other, strict=True))


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each; empty if there is nothing."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the sum of the differences of two mixes' shares: 0 for the same, 1 for nothing in common."""
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other}) / 2

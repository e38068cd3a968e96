"""The verdicts of rejected statistics on the same honest windows."""

import collections
import itertools
import math
from collections.abc import Iterator, Sequence

from rich.table import Table
from scipy.stats import binom
from vedette_server.baseline.profile import Window
from vedette_server.baseline.scrape import Page

LEVEL = 1e-3  # of a two-sided binomial test
JOINED = 3  # windows of 5 minutes
_DRIFTED = 0.2  # the population stability index that is widely taken for drift
_SIZES = (30, 75, 150, 300, 1000, math.inf)  # detections


def table(windows: Sequence[Window]) -> Table:
    """False alarms of the binomial test and of the population stability index, on reference windows."""
    shown = Table("test", "windows", "false alarms", "share", title="What was not chosen, on the honest reference days")
    for count, name in ((1, "5"), (JOINED, "15")):
        verdicts = list(_binomial(_joined(windows, count)))
        _row(
            shown,
            f"binomial at {LEVEL:g}: a stream's empty answers in {name} minutes, against its hour's share",
            verdicts,
        )
    by_size = collections.defaultdict(list)
    for detections, index in _stability(_joined(windows, 1)):
        size = next((low, high) for low, high in itertools.pairwise(_SIZES) if low <= detections < high)
        by_size[size].append(index > _DRIFTED)
    for (low, high), verdicts in sorted(by_size.items()):
        _row(shown, f"stability index of scores above {_DRIFTED}: windows of {low} to {high} detections", verdicts)
    return shown


def _row(shown: Table, name: str, verdicts: Sequence[bool]) -> None:
    shown.add_row(name, str(len(verdicts)), str(sum(verdicts)), f"{sum(verdicts) / len(verdicts):.1%}")


def _joined(windows: Sequence[Window], count: int) -> list[Window]:
    groups = (windows[start : start + count] for start in range(0, len(windows) - count + 1, count))
    return [Window(group[0].hour, sum((one.page for one in group[1:]), group[0].page)) for group in groups]


def _binomial(windows: Sequence[Window]) -> Iterator[bool]:
    """Of each window and stream, whether its share of empty answers differs from that of all windows of its hour."""
    counts: dict[tuple[str, int], list[tuple[int, int]]] = collections.defaultdict(list)
    for window in windows:
        empty = window.page.by("vedette_empty_answers_total", "stream")
        for key, answers in window.page.by("vedette_answers_total", "stream").items():
            if key[0] and answers >= 30:
                counts[key[0], window.hour].append((int(empty.get(key, 0)), int(answers)))
    for seen in counts.values():
        usual = sum(empty for empty, _ in seen) / sum(answers for _, answers in seen)
        for none, all_ in seen:
            tails = binom.cdf(none, all_, usual), binom.sf(none - 1, all_, usual)
            yield bool(2 * min(tails) < LEVEL)


def _stability(windows: Sequence[Window]) -> Iterator[tuple[float, float]]:
    """Of each window the number of detections, and the population stability index of their scores."""
    usual = _bins(sum((one.page for one in windows[1:]), windows[0].page))
    total = sum(usual.values())
    for window in windows:
        seen = _bins(window.page)
        if (detections := sum(seen.values())) >= _SIZES[0]:
            pairs = [(max(seen[le], 0.5) / detections, max(usual[le], 0.5) / total) for le in usual if usual[le]]
            yield detections, sum((one - other) * math.log(one / other) for one, other in pairs)


def _bins(page: Page) -> dict[str, float]:
    """Detections between an edge and the one before."""
    buckets = page.by("vedette_detection_score_bucket", "le")
    edges = sorted((le for (le,) in buckets), key=float)
    below = [0.0, *(buckets[le,] for le in edges)]
    return {le: below[index + 1] - below[index] for index, le in enumerate(edges)}

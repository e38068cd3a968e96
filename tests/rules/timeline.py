"""Series for promtool's tests: what happens in health, in trouble and in health again, one value every STEP."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

STEP = 10  # seconds between samples, and between evaluations

# What a series does in each phase, per step for a counter; the last holds for the phases that follow. None: no sample.
Phases: TypeAlias = tuple[float | None, ...]
Series: TypeAlias = Mapping[str, Phases]
Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One story: nothing fires at the end of the first phase, `fires` at that of the second, nothing in the end."""

    alert: str
    series: Series
    fires: tuple[Labels, ...] = ()  # labels of that alert beside severity and role; none: it must not fire
    steps: tuple[int, int, int] = (12, 16, 30)
    note: str = field(default="", kw_only=True)  # what is special, for whoever reads a failure


def values(name: str, phases: Phases, steps: Iterable[int]) -> str:
    """The samples as promtool reads them: explicit numbers, counters added up."""
    adds, at = _is_counter(name), 0.0
    written: list[str] = []
    for index, length in enumerate(steps):
        now = phases[min(index, len(phases) - 1)]
        for _ in range(length):
            if now is None:
                written.append("_" if written[-1:] in (["_"], ["stale"], []) else "stale")
                continue
            at = at + now if adds else now
            written.append(f"{at:.12g}")
    return " ".join(written)


def ends(steps: tuple[int, int, int]) -> tuple[int, int, int]:
    """When each phase ends, in seconds."""
    first, second, third = steps
    return tuple(STEP * (count - 1) for count in (first, first + second, first + second + third))  # type: ignore[return-value]


def _is_counter(name: str) -> bool:
    return name.split("{", 1)[0].endswith(("_total", "_sum", "_count", "_bucket"))

"""What simulated scrapes come to by the rules: evaluated by Prometheus' own engine, at simulated times.

`promtool test rules` takes series with a value for each scrape and evaluates the rules along them, `for` and all, on a
clock of its own that never waits. Nothing is expected of the expressions, so it says what it got instead.
"""

import itertools
import json
import math
import re
import subprocess
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 30  # seconds between two scrapes, and two evaluations
INSTANCE = "a:8002"
_TARGET = f'job="vedette",instance="{INSTANCE}"'
_NEVER = math.nan
_SINCE = "vedette_baseline_captured_timestamp_seconds"  # a time: each test's clock begins anew at 0


@dataclass(frozen=True)
class Sample:
    """One of the values that an expression gives."""

    labels: Mapping[str, str]
    value: float


class Scrapes:
    """The series that the rules read, scrape by scrape; NaN where a scrape did not have them."""

    def __init__(self, rules: Path, extra: Sequence[str] = ()) -> None:
        self._rules = rules
        self._read = frozenset([*re.findall(r"\bvedette_\w+", rules.read_text()), *extra])
        self._series: dict[str, array[float]] = {}
        self._names: dict[str, bool] = {}  # whether the rules read a line's series
        self.count = 0

    def add(self, page: str | None) -> None:
        """Add a scrape; None: it failed."""
        self._add("up{" + _TARGET + "}", float(page is not None))
        for line in (page or "").splitlines():
            series, _, value = line.rpartition(" ")
            read = self._names.get(series)
            if read is None:
                name = series.partition("{")[0]
                read = self._names[series] = not line.startswith("#") and name in self._read
            if read:
                self._add(series, float(value))
        self.count += 1

    def _add(self, series: str, value: float) -> None:
        values = self._series.setdefault(series, array("d"))
        values.extend([_NEVER] * (self.count - len(values)))
        values.append(value)

    def ask(self, path: Path, first: int, end: int, start: float, asked: Sequence[str]) -> dict[str, list[Sample]]:
        """What expressions give at scrape `end`, of the scrapes from `first` on, the first of them at time `start`."""
        path.write_text("".join(self._test(first, end, start, asked)))
        command = ["promtool", "test", "rules", path.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent)
        output = done.stdout + done.stderr
        if done.returncode and "got:" not in output:
            raise AssertionError(output[-4000:])
        return _parse(output, asked)

    def _test(self, first: int, end: int, start: float, asked: Sequence[str]) -> Iterator[str]:
        yield f"rule_files: [{json.dumps(str(self._rules))}]\nevaluation_interval: {INTERVAL}s\n"
        yield f"tests:\n- interval: {INTERVAL}s\n  input_series:\n"
        for series, values in self._series.items():
            name, _, labels = series.partition("{")
            known = values[first:end]
            if name == _SINCE:
                known = array("d", (value - start for value in known))
            if any(not math.isnan(value) for value in known):
                labels = labels if labels.startswith("job=") else f"{_TARGET},{labels}" if labels else _TARGET + "}"
                yield f"  - series: {json.dumps(name + '{' + labels)}\n    values: {_notation(known, end - first)}\n"
        yield "  promql_expr_test:\n"
        for expression in asked:
            yield f"  - expr: {json.dumps(expression)}\n    eval_time: {(end - first - 1) * INTERVAL}s\n"


def _notation(values: Sequence[float], count: int) -> str:
    """A series in promtool's notation; what vanishes between two scrapes becomes stale, as Prometheus has it."""
    parts, there = [], False
    padded = itertools.chain(values, itertools.repeat(_NEVER, count - len(values)))
    for text, run in itertools.groupby(map(_number, padded)):
        length = sum(1 for _ in run)
        if text == "_":
            parts += ["stale"] * there
            length -= there
            parts += [f"_x{length}"] if length else []
        else:
            parts.append(f"{text}+0x{length - 1}" if length > 1 else text)
        there = text != "_"
    return "'" + " ".join(parts) + "'"


def _number(value: float) -> str:
    if math.isnan(value):
        return "_"
    return str(int(value)) if value == int(value) else f"{value:.7f}"


def _parse(output: str, asked: Sequence[str]) -> dict[str, list[Sample]]:
    """What promtool got, by expression."""
    found: dict[str, list[Sample]] = {expression: [] for expression in asked}
    for part in re.split(r"\n\s*expr: (?=\")", output)[1:]:
        expression, rest = json.JSONDecoder().raw_decode(part)
        for labels, value in re.findall(r"\{([^}]*)\} ([-+0-9.eEInfNa]+)", rest.partition("got:")[2]):
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
            found[expression].append(Sample(pairs, float(value)))
    return found

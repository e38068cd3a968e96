"""Evaluate the rules on simulated scrapes, with Prometheus' own engine, at simulated times.

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

import yaml

from tests.sim.nights_server import Scrape
from tests.support.clocks import START

INSTANCE = "a:8002"
_TARGET = (("instance", INSTANCE), ("job", "vedette"))
_NEVER = math.nan
_SINCE = "vedette_baseline_captured_timestamp_seconds"  # a time: each test's clock begins anew at 0

FIRING = 'ALERTS{alertstate="firing",severity!="none"}'
_BY = "model, version, stream, statistic"


def _limit(bound: str) -> str:
    return f'on ({_BY}) max by ({_BY}) (vedette_baseline_limit{{bound="{bound}"}})'


def _notes(interval: int) -> list[dict[str, object]]:
    """Rules that note as it happens what is asked about: promtool's queries may not hold many samples at once."""
    noted = (
        ("nights:begins", "", f"timestamp({FIRING} unless {FIRING} offset {interval}s)"),
        ("nights:windows", "any", f"vedette:statistic:window and {_limit('high')}"),
        ("nights:windows", "above", f"vedette:statistic:window > {_limit('high')}"),
        ("nights:windows", "below", f"vedette:statistic:window < {_limit('low')}"),
    )
    return [{"record": name, "expr": expr, "labels": {"side": side} if side else {}} for name, side, expr in noted]


_Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Sample:
    """One of the values that an expression gives."""

    labels: Mapping[str, str]
    value: float


class Scrapes:
    """The series that the rules read, scrape by scrape; NaN where a scrape did not have them."""

    def __init__(self, rules: Path, interval: int) -> None:
        """`interval`: seconds between two scrapes, and between two evaluations."""
        self.interval = interval
        self._rules = rules.resolve()
        self._read = frozenset(re.findall(r"\bvedette_\w+", rules.read_text()))
        self._series: dict[_Series, array[float]] = {}
        self.count = 0

    def add(self, scrape: Scrape | None) -> None:
        """Add a scrape; None: it failed."""
        self._add(("up", ()), float(scrape is not None))
        for series, value in (scrape or {}).items():
            if series[0] in self._read:
                self._add(series, value)
        self.count += 1

    def _add(self, series: _Series, value: float) -> None:
        values = self._series.setdefault(series, array("d"))
        values.extend([_NEVER] * (self.count - len(values)))
        values.append(value)

    def ask(self, path: Path, scrapes: range, start: float, asked: Sequence[str]) -> dict[str, list[Sample]]:
        """Evaluate expressions at the last of these scrapes, of which the first is `start` seconds after START."""
        notes = path.with_suffix(".rules.yml")
        notes.write_text(json.dumps({"groups": [{"name": "nights", "rules": _notes(self.interval)}]}))
        path.write_text("".join(self._test(notes, scrapes, start, asked)))
        command = ["promtool", "test", "rules", path.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent)
        output = done.stdout + done.stderr
        if done.returncode and "got:" not in output:
            raise AssertionError(output[-4000:])
        return _parse(output, asked)

    def _test(self, notes: Path, scrapes: range, start: float, asked: Sequence[str]) -> Iterator[str]:
        groups = [group["name"] for group in yaml.safe_load(self._rules.read_text())["groups"]]
        yield f"rule_files: {json.dumps([str(self._rules), str(notes)])}\nevaluation_interval: {self.interval}s\n"
        yield f"group_eval_order: {json.dumps([*groups, 'nights'])}\n"
        yield f"tests:\n- interval: {self.interval}s\n  input_series:\n"
        for (name, labels), values in list(self._series.items()):
            known = values[scrapes.start : scrapes.stop]
            if name == _SINCE:
                known = array("d", (value - START.timestamp() - start for value in known))
            if not all(map(math.isnan, known)):
                pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in (*_TARGET, *labels))
                series = json.dumps(f"{name}{{{pairs}}}")
                yield f"  - series: {series}\n    values: {_notation(known, len(scrapes))}\n"
        yield "  promql_expr_test:\n"
        for expression in asked:
            yield f"  - expr: {json.dumps(expression)}\n    eval_time: {(len(scrapes) - 1) * self.interval}s\n"


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
    """The results of promtool, by expression."""
    found: dict[str, list[Sample]] = {expression: [] for expression in asked}
    for part in re.split(r"\n\s*expr: (?=\")", output)[1:]:
        expression, length = json.JSONDecoder().raw_decode(part)
        for labels, value in re.findall(r"\{([^}]*)\} ([-+0-9.eEInfNa]+)", part[length:].partition("got:")[2]):
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
            found[expression].append(Sample(pairs, float(value)))
    return found

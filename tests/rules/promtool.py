"""Unit tests for promtool, written from cases and run."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from vedette_server.alerts import render, rules
from vedette_server.alerts.parts import Alert, Parameters, Rule, duration

from tests.rules.timeline import STEP, Case, Labels, ends, values

SHORT = Parameters(window=60, long=240, hold=20, interval=STEP, patience=3, stale_days=1 / 24)


def run(folder: Path, tests: Sequence[Mapping[str, Any]], *alerts: str) -> subprocess.CompletedProcess[str]:
    """Run tests against the rules; of some alerts only, with the rules that they need, which is quicker."""
    path, asked = folder / render.FILE, folder / "tests.yml"
    path.write_text(yaml.safe_dump(_only(alerts)) if alerts else render.render(SHORT))
    document = {"rule_files": [str(path)], "evaluation_interval": f"{STEP}s", "tests": list(tests)}
    asked.write_text(yaml.safe_dump(document, sort_keys=False))
    return subprocess.run(["promtool", "test", "rules", asked], capture_output=True, text=True, check=False)


def _only(alerts: Sequence[str]) -> dict[str, Any]:
    """The rules of some alerts and what they refer to, in their groups and order."""
    groups = rules.groups(SHORT)
    every = [rule for kept in groups.values() for rule in kept]
    wanted = [rule for rule in every if rule.name in alerts]
    for rule in wanted:  # grows meanwhile
        names = set(re.findall(r"vedette:\w+:\w+", _text(rule)))
        wanted += [one for one in every if one.name in names and one not in wanted]
    kept = {name: [rule.rule(SHORT) for rule in group if rule in wanted] for name, group in groups.items()}
    interval = duration(SHORT.interval)
    return {"groups": [{"name": name, "interval": interval, "rules": group} for name, group in kept.items() if group]}


def _text(rule: Rule) -> str:
    return rule.expr + (rule.description if isinstance(rule, Alert) else "")


def story(series: Mapping[str, str], **asks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One test of promtool."""
    inputs = [{"series": selector, "values": numbers} for selector, numbers in series.items()]
    return {"interval": f"{STEP}s", "input_series": inputs, **asks}


def of_case(case: Case) -> dict[str, Any]:
    """Before, at the end of the trouble, and in the end."""
    series = {selector: values(selector, phases, case.steps) for selector, phases in case.series.items()}
    if not series:
        series = {"nothing": " ".join("_" * sum(case.steps))}
    before, during, after = ends(case.steps)
    always = case.alert == "VedetteWatchdog"
    asks = [
        _ask(case, before, case.fires if always else ()),
        _ask(case, during, case.fires),
        _ask(case, after, case.fires if always else ()),
    ]
    return story(series, promql_expr_test=asks)


def _ask(case: Case, at: int, fires: Sequence[Labels]) -> dict[str, Any]:
    """Ask for the firing alerts, by the labels of those that should fire: one of each, and no other."""
    by = ", ".join(sorted({label for labels in case.fires for label in labels}))
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    expected = [{"labels": labelled(labels), "value": 1} for labels in fires]
    return {"expr": f"count by ({by}) ({firing})", "eval_time": f"{at}s", "exp_samples": expected}


def labelled(labels: Labels) -> str:
    """Labels as a sample of promtool has them."""
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items() if value) + "}"

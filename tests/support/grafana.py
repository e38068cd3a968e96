"""The committed dashboards, and what Grafana makes of their variables before it asks Prometheus."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$([A-Za-z_]\w*)")  # $1 is a group of label_replace


@dataclass(frozen=True)
class Query:
    """One query of one panel."""

    dashboard: str
    panel: str
    ref: str
    expression: str

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.ref}"


def dashboards() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in FILES}


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["refId"], target["expr"])


def variables(expression: str) -> set[str]:
    return {match[1] or match[3] for match in _VARIABLE.finditer(expression)}


def expanded(expression: str, values: Mapping[str, str]) -> str:
    """With `values` for variables; All stands for `.*` and is called All, as board.py has it."""

    def value(match: re.Match[str]) -> str:
        chosen = values[match[1] or match[3]]
        if match[2] == "text":
            return chosen
        return ".*" if chosen == "All" else chosen

    return _VARIABLE.sub(value, expression)

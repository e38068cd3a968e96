"""Parts of the rules: their parameters, and the two kinds of rules."""

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from vedette_server.alerts import limits

Yaml: TypeAlias = dict[str, object]

VERSION = "model, version"
SOURCE = "model, version, stream"  # a stream, or single images: Prometheus knows no difference between "" and no label

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_VARIABLE = "{{ with $labels.NAME }}{{ . | urlquery }}{{ else }}All{{ end }}"  # of a dashboard
_EDGES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # of vedette_request_duration_seconds


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them: 90 as 1m30s."""
    left, text = round(seconds * 1000), ""
    for unit, size in _UNITS.items():
        count, left = divmod(left, size * 1000)
        text += f"{count}{unit}" if count else ""
    return text + (f"{left}ms" if left else "") or "0s"


def seconds(text: str) -> float:
    """The inverse: what 1m30s, 5m or 250ms is in seconds."""
    if not re.fullmatch(r"(\d+(ms|[dhms]))+", text):
        msg = f"{text!r} is no duration such as 20s, 5m or 1h30m"
        raise ValueError(msg)
    units = {**_UNITS, "ms": 0.001}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)(ms|[dhms])", text))


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """All that can be chosen, as `limits` explains it. Tests run the very same rules with short times."""

    window: float = limits.WINDOW
    """Time over which answers are judged."""
    long: float = limits.LONG
    """Time over which distributions are compared."""
    hold: float = limits.HOLD
    """Time for which a condition must hold before its alert fires."""
    interval: float = limits.INTERVAL
    """Time between two evaluations of the rules."""
    job: str = "vedette"
    """Prometheus' job that scrapes the servers."""
    answers: int = limits.LEAST_ANSWERS
    """Fewest answers in a window for a share or a mean."""
    detections: int = limits.LEAST_DETECTIONS
    """Fewest detections for a distance between distributions."""
    refusals: int = limits.LEAST_REFUSALS
    """Fewest refusals in a window that matter."""
    empty: float = limits.MOST_EMPTY
    """Highest share of empty answers that is usual where no baseline says so."""
    model_floor: float = limits.MODEL_FLOOR
    """Share of empty answers below which no model counts as silenced, whatever its baseline."""
    stream_floor: float = limits.STREAM_FLOOR
    """Share of empty answers below which no stream counts as silenced, whatever its baseline."""
    patience: int = limits.PATIENCE
    """Long windows for which fewer than three sources may be quiet."""
    objective: float = limits.OBJECTIVE
    """Seconds within which requests are to be answered: an edge of their histogram."""
    target: float = limits.TARGET
    """Share of requests for which the objective is promised."""
    stale_days: float = limits.STALE_DAYS
    """Age in days from which a baseline is old."""
    stuck: float = limits.STUCK
    """Seconds without any answer from which a version is stuck."""
    expiry_days: float = limits.EXPIRY_DAYS
    """Days before the end of a certificate at which the warning fires; the page fires at a seventh of them."""
    runbooks: str = "deploy/docs/runbooks/"
    """Where the runbooks are, for `runbook_url`."""
    dashboards: str = "/d/"
    """Where the dashboards are, for `dashboard_url`."""

    def __post_init__(self) -> None:
        if self.objective not in _EDGES:
            msg = f"the objective must be an edge of the histogram of durations, one of {_EDGES}, not {self.objective}"
            raise ValueError(msg)
        if not 0 < self.interval <= self.hold <= self.window <= self.long:
            raise ValueError("interval, hold, window and long must be positive, and each at most the next")

    @property
    def w(self) -> str:
        """The window, as in a range."""
        return duration(self.window)

    @property
    def l(self) -> str:  # noqa: E743  as it is called throughout
        """The long window."""
        return duration(self.long)

    def windows(self, count: float) -> str:
        """So many windows."""
        return duration(count * self.window)


@dataclass(frozen=True)
class Record:
    """A recording rule."""

    name: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self, _: Parameters) -> Yaml:
        """Return the rule as it stands in the file."""
        return {"record": self.name, "expr": _tidy(self.expr), **({"labels": self.labels} if self.labels else {})}


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alerting rule. Where `cause` is None, the series that the expression gives have it as a label."""

    name: str
    severity: str  # critical, warning, info, none
    role: str  # outage, cause, service, symptom, none: who silences whom
    cause: str | None
    summary: str
    description: str
    expr: str
    dashboard: str = "vedette-fleet"
    hold: float | None = None  # the parameter's, if None
    keep: int = 0  # windows for which it stays: what explains another alert must outlast it

    def rule(self, parameters: Parameters) -> Yaml:
        """Return the rule as it stands in the file."""
        hold = parameters.hold if self.hold is None else self.hold
        variables = ("model", "version", "stream") if self.dashboard == "vedette-stream" else ("model", "version")
        query = "&".join(f"var-{name}={_VARIABLE.replace('NAME', name)}" for name in variables)
        return {
            "alert": self.name,
            "expr": _tidy(self.expr),
            **({"for": duration(hold)} if hold else {}),
            **({"keep_firing_for": parameters.windows(self.keep)} if self.keep else {}),
            "labels": {
                "severity": self.severity,
                "role": self.role,
                **({} if self.cause is None else {"cause": self.cause}),
            },
            "annotations": {
                "summary": self.summary,
                "description": " ".join(self.description.split()),
                "runbook_url": f"{parameters.runbooks}{self.name}.md",
                "dashboard_url": f"{parameters.dashboards}{self.dashboard}?{query}",
            },
        }


Rule: TypeAlias = Record | Alert


def count(metric: str, window: str, by: str) -> str:
    """Increase of a counter, replicas summed: each replica's own restarts are seen before the sum."""
    return f"sum by ({by}) (increase({metric}[{window}]))"


def limit(statistic: str, bound: str, by: str = SOURCE, over: str = "") -> str:
    """A limit of the baseline; replicas export the same. Without stream: the whole model's. `over`: its highest."""
    matchers = f'statistic="{statistic}", bound="{bound}"' + (', stream=""' if by == VERSION else "")
    selected = f"vedette_baseline_limit{{{matchers}}}"
    return f"max by ({by}) ({f'max_over_time({selected}[{over}])' if over else selected})"


def renamed(expr: str, before: str) -> str:
    """The same series, with what the label `before` says in the label `cause`."""
    return f'label_replace({expr}, "cause", "$1", "{before}", "(.+)")'


def leading(record: str, causes: str, by: str) -> Record:
    """The cause that is counted most. Whoever leads stays until another has half as much again: no flapping."""
    return Record(record, f"topk by ({by}) (1, ({causes}) * {limits.LEAD} and {record} or ({causes}))")


def of_leading(leader: str, value: str, by: str) -> str:
    """`value`, with the leading cause as a label."""
    return f"{leader} * 0 + on ({by}) group_left ()\n  ({value})"


def look(query: str, *labels: str, form: str = "humanizePercentage") -> str:
    """A template that asks for one number; `%q` of the query stand for the alert's labels. Says ? for none."""
    values = " ".join(f"$labels.{label}" for label in labels)
    asked = f"printf `{query}` {values} | query"
    return f"{{{{ with {asked} }}}}{{{{ . | first | value | {form} }}}}{{{{ else }}}}?{{{{ end }}}}"


def unless_explained(window: str) -> str:
    """Mute an expression while a known cause still affects the answers in its window."""
    return f"unless on ({VERSION}) count_over_time(vedette:cause_known:window[{window}])"


def _tidy(expr: str) -> str:
    lines = [line.rstrip() for line in expr.strip().splitlines()]
    return "\n".join(lines)

"""The rules, whole: groups of recording rules and alerts, from parameters."""

import re
from collections.abc import Iterator

from vedette_server.alerts import drift, entry, serving, silence
from vedette_server.alerts.parts import Alert, Parameters, Record, Rule, Yaml, duration


def groups(p: Parameters) -> dict[str, list[Rule]]:
    """All rules, in groups. Within one they are evaluated in their order, so that each sees what it needs."""
    return {
        "vedette-serving": [*serving.outages(p), *serving.requests(p)],
        "vedette-entry": [*entry.versions(p), *entry.files(p), *entry.strain(p)],
        "vedette-latency": serving.latency(p),
        "vedette-answers": [*silence.counts(p), *drift.statistics(p), *silence.alerts(p), *drift.alerts(p)],
        "vedette-baseline": serving.baselines(p),
    }


def document(p: Parameters) -> Yaml:
    """The rule file as plain data."""
    return {
        "groups": [
            {"name": name, "interval": duration(p.interval), "rules": [rule.rule(p) for rule in rules]}
            for name, rules in groups(p).items()
        ]
    }


def alerts(p: Parameters) -> list[Alert]:
    """Every alert; one name may stand for several, with other severities or causes."""
    return [rule for rules in groups(p).values() for rule in rules if isinstance(rule, Alert)]


def metrics_in(text: str) -> set[str]:
    """Every metric of the server's page that a text with PromQL names, as its samples are called."""
    return set(re.findall(r"\bvedette_[a-z_]+\b(?![\w=:!./-])", text))


def metric_names(p: Parameters | None = None) -> set[str]:
    """Every metric of the server's page that expressions and descriptions name."""
    return set().union(*map(metrics_in, _texts(p or Parameters())))


def record_names(p: Parameters | None = None) -> set[str]:
    """Every series that the rules record."""
    return {rule.name for rules in groups(p or Parameters()).values() for rule in rules if isinstance(rule, Record)}


def _texts(p: Parameters) -> Iterator[str]:
    for rules in groups(p).values():
        for rule in rules:
            yield rule.expr
            if isinstance(rule, Alert):
                yield rule.description

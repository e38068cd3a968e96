"""The alerts and their conditions as a page for users, written by `make docs` from the rules; a test compares both."""

from collections.abc import Iterator
from dataclasses import fields

from vedette_server import docstrings
from vedette_server.alerts import rules
from vedette_server.alerts.parts import Alert, Parameters, Record, duration
from vedette_server.alerts.render import flag, shown

_HEAD = """\
# Alerts

Each alert names its cause in the label `cause` and links to its [runbook](runbooks/README.md). An alert of severity
`critical` goes to the pager, of `warning` to the team, of `info` to a log. Its role says what it inhibits: an outage
inhibits causes, a cause inhibits its symptoms. [How to be alerted](howto/alert.md) installs the rules,
[Statistics](statistics.md) says how often they are wrong.

`make docs` writes this page from the rules in `vedette_server/alerts/`.

| alert | severity | role | cause | fires after |
| --- | --- | --- | --- | --- |
"""
_PARAMETERS = """
## Parameters

`vedette-server rules` renders the rules with other values.

| flag | default | meaning |
| --- | --- | --- |
"""
_CONDITIONS = """
## Conditions

Where the cause is by series, the expression gives it as a label.
"""
_RECORDS = """
## Recorded series

The alerts and the dashboards read these. Their last part is the time that they cover.
"""
_RUNBOOKS = """
```{toctree}
:hidden:
:glob:

runbooks/Vedette*
```
"""


def page() -> str:
    """Return the page as Markdown."""
    defaults = Parameters()
    alerts = rules.alerts(defaults)
    meanings = docstrings.of_fields(Parameters)
    return "".join(
        (
            _HEAD,
            *(_row(alert, defaults) for alert in alerts),
            _PARAMETERS,
            *(
                f"| `{flag(one.name)}` | `{shown(one.name, one.default)}` | {meanings[one.name]} |\n"
                for one in fields(Parameters)
            ),
            _CONDITIONS,
            *(f"\n{alert.name}, {alert.severity}:\n{_block(alert.expr)}" for alert in alerts),
            _RECORDS,
            *(f"\n`{record.name}`:\n{_block(record.expr)}" for record in _records(defaults)),
            _RUNBOOKS,
        )
    )


def _row(alert: Alert, defaults: Parameters) -> str:
    hold = duration(defaults.hold if alert.hold is None else alert.hold)
    cause = "by series" if alert.cause is None else f"`{alert.cause}`"
    return f"| [{alert.name}](runbooks/{alert.name}.md) | {alert.severity} | {alert.role} | {cause} | {hold} |\n"


def _records(defaults: Parameters) -> Iterator[Record]:
    for group in rules.groups(defaults).values():
        yield from (rule for rule in group if isinstance(rule, Record))


def _block(expr: str) -> str:
    lines = "\n".join(line.rstrip() for line in expr.strip().splitlines())
    return f"\n```promql\n{lines}\n```\n"


if __name__ == "__main__":
    print(page(), end="")

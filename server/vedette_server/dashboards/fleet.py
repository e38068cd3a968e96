"""The fleet at a glance: firing alerts, the model or stream concerned, and the cause."""

from grafana_foundation_sdk.models import dashboard as d

from vedette_server.alerts import limits
from vedette_server.dashboards.board import UIDS, add, board, choice, finished, window
from vedette_server.dashboards.lights import CHOSEN, FIRING, OF_MODEL, M, lights, share
from vedette_server.dashboards.panels import (
    BAD_FROM_ONE,
    COUNT,
    CRITICAL,
    GOOD_FROM_ONE,
    INFO,
    LINE,
    PER_SECOND,
    RATIO,
    SECONDS,
    WARNING,
    WARNING_FROM_ONE,
    WELL,
    Ask,
    Column,
    Panel,
    course_of_states,
    lines,
    number,
    rows,
)


def _counted(severity: str) -> str:
    return f'count(ALERTS{{{FIRING}, severity="{severity}"}}) or vector(0)'


def build() -> d.Dashboard:
    """The dashboard."""
    made = board(
        UIDS["fleet"],
        "Vedette: fleet",
        "A traffic light for each model and stream, and the reason of its colour. Begin here when you were woken.",
    )
    made = made.with_variable(choice("model", "Model", "vedette_answers_total", everything=True, many=True))
    made = made.with_variable(window())
    made = add(made, "Is something wrong?", _glance())
    made = add(made, "Firing alerts", _alerts())
    made = add(made, "Which model, which stream, and why", lights())
    made = add(made, "Since when", _courses())
    made = add(made, "What is served", _served())
    return finished(made)


def _glance() -> list[Panel]:
    return [
        number(
            "Critical alerts",
            "Alerts that page someone. Red means: read the table of alerts below, from the top.",
            Ask(_counted("critical")),
            COUNT,
            colors=BAD_FROM_ONE,
        ),
        number(
            "Warnings",
            "Alerts that can wait until morning, unless a critical one stands beside them.",
            Ask(_counted("warning")),
            COUNT,
            colors=WARNING_FROM_ONE,
        ),
        number(
            "Alerting",
            "Whether Prometheus evaluates the rules: VedetteWatchdog always fires. If not, green means nothing.",
            Ask('count(ALERTS{alertname="VedetteWatchdog", alertstate="firing"}) or vector(0)'),
            COUNT,
            colors=GOOD_FROM_ONE,
            texts={0: ("DEAD", CRITICAL), 1: ("alive", WELL)},
        ),
        number(
            "Servers down",
            "Servers that Prometheus cannot scrape.",
            Ask('count(up{job="vedette"} == 0) or vector(0)'),
            COUNT,
            colors=BAD_FROM_ONE,
        ),
        number(
            "Versions not ready",
            "Model versions without a worker that could answer, on any server.",
            Ask("count(max by (model, version) (vedette_model_ready) == 0) or vector(0)"),
            COUNT,
            colors=BAD_FROM_ONE,
        ),
        number(
            "Golden images failing",
            "Model versions that no longer answer their golden images: what they say of traffic cannot be trusted.",
            Ask("sum(max by (model, version) (vedette_golden_failing)) or vector(0)"),
            COUNT,
            colors=BAD_FROM_ONE,
        ),
        number(
            "Answers",
            "Images answered per second, single ones and frames. None at all is not peace: look at the senders.",
            Ask(f"sum(rate(vedette_answers_total{{{CHOSEN}}}[$__rate_interval]))"),
            PER_SECOND,
        ),
        number(
            "Empty",
            "Share of answers without a detection. What is usual depends on the scene: see the limits below.",
            Ask(
                f"sum(rate(vedette_empty_answers_total{{{CHOSEN}}}[$__rate_interval])) "
                f"/ (sum(rate(vedette_answers_total{{{CHOSEN}}}[$__rate_interval])) > 0)"
            ),
            RATIO,
            decimals=1,
        ),
    ]


def _alerts() -> list[Panel]:
    labels = ("alertname", "cause", "model", "version", "stream", "class")
    return [
        rows(
            "Alerts that fire",
            "The cause is what the alert itself suspects; the alert's page in deploy/docs/runbooks says what to do. "
            "Empty is good, provided that alerting is alive.",
            [Ask(f'ALERTS{{{FIRING}, severity=~"critical|warning"}}')],
            [
                Column(field="severity", title="severity", width=100),
                *(Column(field=label, title=label, link=OF_MODEL if label == "model" else "") for label in labels),
            ],
            height=6,
            sort=("severity", False),
        )
    ]


def _courses() -> list[Panel]:
    alerts = f'ALERTS{{{FIRING}, severity="%s", model=~"$model|"}}'
    by = "alertname, cause, model, stream"
    return [
        course_of_states(
            "Alerts over time",
            "The alert that fired first is most often the cause; those that fired after it are its consequences.",
            Ask(
                f"max by ({by}) (2 * {alerts % 'critical'} or 1 * {alerts % 'warning'} or 0 * {alerts % 'info'})",
                "{{alertname}} {{cause}} {{model}} {{stream}}",
            ),
            {0: ("info", INFO), 1: ("warning", WARNING), 2: ("critical", CRITICAL)},
        ),
        lines(
            "Empty share by model",
            "Share of answers without a detection, over the window. A step is a fault or an event; a slope is drift.",
            [Ask(share(M), "{{model}} {{version}}")],
            RATIO,
            high=1,
        ),
        lines(
            "Empty answers by reason",
            "Why answers were empty. QUIET_SCENE is honest emptiness; every other colour has a page of its own in "
            "deploy/docs/findings.md.",
            [
                Ask(
                    f"sum by (reason) (rate(vedette_empty_answers_total{{{CHOSEN}}}[$__rate_interval])) > 0",
                    "{{reason}}",
                )
            ],
            PER_SECOND,
            stacked=True,
            colors={"QUIET_SCENE": WELL},
        ),
    ]


def _served() -> list[Panel]:
    days = ((None, "text"), (limits.STALE_DAYS * 86400, WARNING))
    state = "max by (model, version, vedette_baseline_state) (vedette_baseline_state{" + CHOSEN + "} == 1)"
    disagreement = f"max by ({M}) (vedette_golden_disagreement_ratio{{{CHOSEN}}})"
    captured = f"max by ({M}) (vedette_baseline_captured_timestamp_seconds{{{CHOSEN}}})"
    return [
        rows(
            "Versions",
            "What is loaded. The fingerprint is that of the input contract; waivers are checks that an operator has "
            "switched off. Disagreement is the share of objects on the previous version's golden images that this "
            "version calls otherwise or misses: much of it means another order of classes.",
            [
                Ask(f"max by ({M}, fingerprint, precision, waivers) (vedette_model_info{{{CHOSEN}}})"),
                Ask(f"max by ({M}) (vedette_model_threshold_ratio{{{CHOSEN}}})"),
                Ask(state),
                Ask(f"time() - {captured}"),
                Ask(disagreement),
            ],
            [
                Column(field="model", title="model"),
                Column(field="version", title="version", width=80),
                Column(field="fingerprint", title="contract"),
                Column(field="precision", title="precision", width=100),
                Column(field="B", title="threshold", decimals=2, width=90),
                Column(field="waivers", title="waived checks"),
                Column(field="vedette_baseline_state", title="baseline"),
                Column(field="D", title="baseline's age", unit=SECONDS, width=120, colors=days, nothing="none"),
                Column(
                    field="E",
                    title="disagreement",
                    unit=RATIO,
                    width=120,
                    colors=((None, "text"), (limits.DISAGREEMENT, CRITICAL)),
                    nothing="-",
                ),
            ],
            span=18,
        ),
        rows(
            "Releases",
            "Which release of the server runs, and on how many servers. More than one outlasts no rollout.",
            [Ask("count by (release) (vedette_build_info)")],
            [Column(field="release", title="release"), Column(field="A", title="servers", width=100)],
            span=LINE - 18,
        ),
    ]

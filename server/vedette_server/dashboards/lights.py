"""The traffic lights: a line for each model and each stream, with the reason of its colour."""

from vedette_server.dashboards.board import UIDS
from vedette_server.dashboards.panels import (
    CRITICAL,
    GOOD_FROM_ONE,
    PER_SECOND,
    RATIO,
    UNKNOWN,
    WARNING,
    WELL,
    Ask,
    Column,
    Panel,
    rows,
)

M, S = "model, version", "model, version, stream"
CHOSEN = 'model=~"$model"'
FIRING = 'alertname=~"Vedette.+", alertname!="VedetteWatchdog", alertstate="firing"'
STATES = {0: ("well", WELL), 1: ("not reporting", UNKNOWN), 2: ("warning", WARNING), 3: ("CRITICAL", CRITICAL)}
_VERSION_OF_ROW = "var-model=${__data.fields.model}&var-version=${__data.fields.version}"
OF_MODEL = f"/d/{UIDS['stream']}?${{datasource:queryparam}}&{_VERSION_OF_ROW}&${{__url_time_range}}"
# Of single images, too, whose alerts have no stream.
_OF_SOURCES = (
    'alertname=~"Vedette(StreamSilenced|CameraDark|FeedFrozen|SuppressedByThreshold|SuspectedCause|InputDrift)"'
)
OF_STREAM = f"{OF_MODEL}&var-stream=${{__data.fields.stream}}"


def _state(by: str, alive: str, alerts: str) -> str:
    """0 to 3, as STATES has it; a version stays for an hour after it was last heard of, so that none just vanishes."""
    seen = f"0 * max by ({by}) (last_over_time({alive}[1h]))"
    firing = f"ALERTS{{{FIRING}, {CHOSEN}, severity=%s}}"
    # An alert about all versions of a model lights each of them.
    whole = firing % '"critical", model!="", version=""'
    critical, warning = (firing % f'"{severity}", {alerts}' for severity in ("critical", "warning"))
    return (
        f"max by ({by}) (3 * {critical} or 2 * {warning} "
        f"or {seen} + on (model) group_left () 3 * max by (model) ({whole}) "
        f"or 1 + ({seen} unless max by ({by}) ({alive})) or {seen})"
    )


def share(by: str) -> str:
    """Share of answers that are empty."""
    return (
        f"sum by ({by}) (increase(vedette_empty_answers_total{{{CHOSEN}}}[$window])) / "
        f"(sum by ({by}) (increase(vedette_answers_total{{{CHOSEN}}}[$window])) > 0)"
    )


def _leading(by: str) -> str:
    reasons = f"sum by ({by}, reason) (increase(vedette_empty_answers_total{{{CHOSEN}}}[$window]))"
    return f"topk by ({by}) (1, {reasons} > 0)"


def _suspected(by: str) -> str:
    return f"topk by ({by}) (1, max by ({by}, cause) (vedette_suspected_cause{{{CHOSEN}}}) > 0)"


def _named(expr: str) -> Ask:
    """The series without a stream are single images; in a link they lead to the whole model."""
    return Ask(f'label_replace({expr}, "stream", "All", "stream", "")')


def lights() -> list[Panel]:
    """Both tables."""
    empty = Column(field="B", title="empty", unit=RATIO, decimals=1, width=90)
    limit = Column(field="C", title="limit", unit=RATIO, decimals=1, width=90, nothing="-")
    leading = Column(field="reason", title="leading reason", nothing="none is empty")
    cause = Column(field="cause", title="suspected cause", nothing="none")
    rate = "sum by ({}) (rate(vedette_answers_total{{" + CHOSEN + "}}[$window]))"
    dropped = f"sum by ({S}) (rate(vedette_frames_dropped_total{{{CHOSEN}}}[$window]))"
    alive = f"vedette_model_ready{{{CHOSEN}}}"
    return [
        rows(
            "Models",
            "One line a version. The state is that of its worst alert. Empty is the share over the window, limit what "
            "alerts hold it to: the most that was usual when the baseline was captured, or a fixed share without one; "
            "beyond it they ask for the reasons, too. Leading is the most frequent reason of empty answers: "
            "QUIET_SCENE says that nothing is amiss with image or model as far as can be told. The suspected cause is "
            "what the server's own probe has shown by undoing it.",
            [
                Ask(_state(M, alive, 'version!=""')),
                Ask(share(M)),
                Ask(f"vedette:model_empty_limit:baseline{{{CHOSEN}}}"),
                Ask(_leading(M)),
                Ask(_suspected(M)),
                Ask(f"max by ({M}) (vedette_golden_failing{{{CHOSEN}}})"),
                Ask(f"sum by ({M}) (vedette_workers_ready{{{CHOSEN}}})"),
                Ask(f"sum by ({M}) (vedette_workers_wanted{{{CHOSEN}}})"),
                Ask(rate.format(M)),
            ],
            [
                Column(field="A", title="state", texts=STATES, width=110),
                Column(field="model", title="model", link=OF_MODEL),
                Column(field="version", title="version", width=80),
                empty,
                limit,
                leading,
                cause,
                Column(field="F", title="golden images", texts={0: ("pass", WELL), 1: ("FAIL", CRITICAL)}, width=120),
                Column(field="G", title="workers ready", colors=GOOD_FROM_ONE, width=115),
                Column(field="H", title="wanted", width=80),
                Column(field="I", title="answers", unit=PER_SECOND, decimals=1, width=100),
            ],
            sort=("state", True),
        ),
        rows(
            "Streams",
            "The same for each stream; All are the single images. A stream without a baseline of its own is held to "
            "its model's limit. Dropped frames were superseded by newer ones, or too old: the stream's own policy.",
            [
                _named(_state(S, f"vedette_answers_total{{{CHOSEN}}}", _OF_SOURCES)),
                _named(share(S)),
                _named(f"vedette:empty_limit:baseline{{{CHOSEN}}}"),
                _named(_leading(S)),
                _named(_suspected(S)),
                _named(dropped),
                _named(rate.format(S)),
            ],
            [
                Column(field="A", title="state", texts=STATES, width=110),
                Column(field="model", title="model"),
                Column(field="version", title="version", width=80),
                Column(field="stream", title="stream", link=OF_STREAM),
                empty,
                limit,
                leading,
                cause,
                Column(field="F", title="dropped", unit=PER_SECOND, decimals=1, width=100),
                Column(field="G", title="answers", unit=PER_SECOND, decimals=1, width=100),
            ],
            height=9,
            sort=("state", True),
        ),
    ]

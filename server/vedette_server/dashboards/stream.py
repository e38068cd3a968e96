"""One model, or one of its streams: why it is silent, and in what it differs from when all was well."""

from grafana_foundation_sdk.models import dashboard as d

from vedette_server.alerts import limits
from vedette_server.dashboards import pictures
from vedette_server.dashboards.ask import ALERTS, VS, V, band, bound, rate, share
from vedette_server.dashboards.board import UIDS, add, board, choice, finished, window
from vedette_server.dashboards.panels import (
    COUNT,
    CRITICAL,
    NOW,
    PER_SECOND,
    RATIO,
    SECONDS,
    USUAL,
    WARNING,
    WELL,
    Ask,
    Panel,
    course_of_states,
    lines,
    number,
)


def build() -> d.Dashboard:
    """The dashboard."""
    made = board(
        UIDS["stream"],
        "Vedette: model and stream",
        "What a model, or one of its streams, sees now, beside what was usual when its baseline was captured. "
        "Blue is now; grey dashes are the limits, those of the whole model where a stream has none of its own.",
    )
    answers = "vedette_answers_total"
    made = (
        made.with_variable(choice("model", "Model", answers, everything=False))
        .with_variable(choice("version", "Version", f'{answers}{{model=~"$model"}}', everything=False))
        .with_variable(choice("stream", "Stream", f"{answers}{{{V}}}", everything=True))
        .with_variable(window())
    )
    made = add(made, "Is it silent, and why?", _glance())
    made = add(made, "Silence", _silence())
    made = add(made, "Scores", pictures.scores())
    made = add(made, "What the pictures look like", pictures.inputs())
    made = add(made, "What is seen", pictures.seen())
    made = add(made, "Frames", _frames())
    return finished(made)


def _glance() -> list[Panel]:
    limit = bound("empty", "high")
    return [
        number(
            "Empty",
            "Share of answers without a detection over the window.",
            Ask(share("$window")),
            RATIO,
            decimals=1,
        ),
        number(
            "Beyond the limit",
            "By how much the empty share exceeds what it never exceeded when the baseline was captured. Red: it does. "
            "Without a baseline there is no limit, and an alert has only the reasons to go by.",
            Ask(f"({share('$window')}) - ({limit})"),
            RATIO,
            decimals=1,
            colors=((None, WELL), (0, CRITICAL)),
            nothing="no baseline",
        ),
        number(
            "Leading reason",
            "The most frequent reason of empty answers over the window. QUIET_SCENE: nothing is amiss with image or "
            "model as far as can be told. deploy/docs/findings.md explains each.",
            Ask(f"topk(1, sum by (reason) (increase(vedette_empty_answers_total{{{VS}}}[$window])) > 0)", "{{reason}}"),
            COUNT,
            name=True,
            span=5,
            nothing="none is empty",
        ),
        number(
            "Suspected cause",
            "The verdict of the server's own probe: undoing this restored detections on nearly every frame tried.",
            Ask(f"topk(1, max by (cause) (vedette_suspected_cause{{{VS}}}) > 0)", "{{cause}}"),
            COUNT,
            name=True,
            span=5,
            nothing="none",
        ),
        number(
            "Answers",
            "Images answered per second.",
            Ask(f"sum(rate(vedette_answers_total{{{VS}}}[$__rate_interval]))"),
            PER_SECOND,
        ),
        number(
            "Baseline's age",
            "Since the baseline was captured. An old one describes another season.",
            Ask(f"time() - max(vedette_baseline_captured_timestamp_seconds{{{V}}})"),
            SECONDS,
            colors=((None, WELL), (limits.STALE_DAYS * 86400, WARNING)),
            span=5,
            nothing="no baseline",
        ),
    ]


def _silence() -> list[Panel]:
    by = "alertname, cause, stream"
    here = f'{ALERTS}, model=~"$model", version=~"$version|", stream=~"$stream|"'
    return [
        lines(
            "Empty share in its band",
            "Above the band: silenced, or a scene that never was while the baseline was captured; the reasons beside "
            "tell which. Below it: something is seen everywhere.",
            band(share("$window"), "empty"),
            RATIO,
            high=1,
            band=True,
        ),
        lines(
            "Empty answers by reason",
            "Why answers were empty. QUIET_SCENE (green) is honest emptiness.",
            [Ask(f"{rate('vedette_empty_answers_total', 'reason')} > 0", "{{reason}}")],
            PER_SECOND,
            stacked=True,
            colors={"QUIET_SCENE": WELL},
        ),
        course_of_states(
            "Alerts and suspected causes",
            "What fired, and what the probe suspected: whichever began first is most often the cause.",
            Ask(
                f'max by ({by}) (2 * ALERTS{{{here}, severity="critical"}} '
                f'or 1 * ALERTS{{{here}, severity="warning"}}) '
                f"or max by (cause, stream) (vedette_suspected_cause{{{VS}}}) > 0",
                "{{alertname}} {{cause}} {{stream}}",
            ),
            {1: ("warning or suspected", WARNING), 2: ("critical", CRITICAL)},
            height=6,
            span=12,
        ),
        lines(
            "Findings",
            "All findings of answers, empty or not; several can hold for one. A finding that comes before the silence "
            "announces it.",
            [Ask(f"{rate('vedette_findings_total', 'finding')} > 0", "{{finding}}")],
            PER_SECOND,
            stacked=True,
            height=6,
            colors={"QUIET_SCENE": WELL},
        ),
    ]


def _frames() -> list[Panel]:
    ages = rate("vedette_frame_age_seconds_bucket", "le", V)
    return [
        lines(
            "Age of frames when answered",
            "Of all streams of the model: how old what one sees is. Grows where workers or the network do not keep up.",
            [Ask(f"histogram_quantile({q}, {ages})", name) for q, name in ((0.5, "median"), (0.95, "95 %"))],
            SECONDS,
            colors={"median": NOW, "95 %": "purple"},
        ),
        lines(
            "Frames dropped",
            "SUPERSEDED: a newer one took its place, as LATEST wants it. EXPIRED: it was too old to be of use.",
            [Ask(rate("vedette_frames_dropped_total", "reason"), "{{reason}}")],
            PER_SECOND,
            stacked=True,
            colors={"SUPERSEDED": USUAL, "EXPIRED": WARNING},
        ),
    ]

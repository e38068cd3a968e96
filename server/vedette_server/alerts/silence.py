"""Alerts on answers and images: more empty answers than usual, their reasons, and images that look different.

Legitimate quiet fires nothing: an answer that is empty because nothing was there (QUIET_SCENE) counts against nobody
but in ModelQuiet, where many sources agree or one is patient.
"""

from vedette_server.alerts import limits
from vedette_server.alerts.parts import (
    SOURCE,
    VERSION,
    Alert,
    Parameters,
    Record,
    Rule,
    count,
    duration,
    leading,
    limit,
    look,
    of_leading,
    renamed,
    unless_explained,
)

WHO = "{{ $labels.model }} version {{ $labels.version }}"
WHERE = f"{{{{ with $labels.stream }}}}Stream {{{{ . }}}}{{{{ else }}}}Single images{{{{ end }}}} of {WHO}"
SHARE = "{{ $value | humanizePercentage }}"


def counts(p: Parameters) -> list[Rule]:
    """Answers over the window, by source, and what was the matter with them."""
    known = f"{limit('empty', 'high', VERSION)} < 1"
    reasons = "vedette:empty_reason:window"
    return [
        Record("vedette:answers:window", count("vedette_answers_total", p.w, SOURCE)),
        Record("vedette:empty_reason:window", count("vedette_empty_answers_total", p.w, f"{SOURCE}, reason")),
        Record("vedette:empty:window", f"sum by ({SOURCE}) ({reasons}) or vedette:answers:window * 0"),
        Record("vedette:finding:window", count("vedette_findings_total", p.w, f"{SOURCE}, finding")),
        Record("vedette:model_answers:window", f"sum by ({VERSION}) (vedette:answers:window)"),
        Record("vedette:model_empty:window", f"sum by ({VERSION}) (vedette:empty:window)"),
        # Whoever asks for some classes gets empty answers rightly; that is a cause only where it is not as usual.
        Record(
            "vedette:explained:window",
            f"""
sum by ({SOURCE}, cause) (
  {renamed(reasons + '{reason!~"QUIET_SCENE|CLASS_FILTER"} > 0', "reason")}
  or
  {renamed(reasons + '{reason="CLASS_FILTER"} > 0', "reason")} and on ({VERSION}) {known}
)""",
        ),
        leading("vedette:leading_cause:window", "vedette:explained:window", SOURCE),
        leading("vedette:model_leading_cause:window", f"sum by ({VERSION}, cause) (vedette:explained:window)", VERSION),
        Record(
            "vedette:model_empty_limit:baseline",
            f"{limit('empty', 'high', VERSION)} or vedette:model_answers:window * 0 + {p.empty}",
        ),
        Record(
            "vedette:empty_limit:baseline",
            f"{limit('empty', 'high')}\nor\nvedette:answers:window * 0"
            f" + on ({VERSION}) group_left () vedette:model_empty_limit:baseline",
        ),
        Record("vedette:cause_known:window", _cause_known()),
        Record("vedette:silenced:window", _silenced(p, "", SOURCE, p.stream_floor)),
        Record("vedette:model_silenced:window", _silenced(p, "model_", VERSION, p.model_floor)),
    ]


def _cause_known() -> str:
    """A firing cause of the whole model, or of sources that give a tenth of its answers.

    Only what alters scores, classes or the share of honest quiet: NaN and another class order do not.
    """
    of_sources = (
        "VedetteCameraDark|VedetteFeedFrozen|VedetteSuppressedByThreshold|VedetteSuspectedCause|VedetteInputDrift"
    )
    return f"""
group by ({VERSION}) (
  ALERTS{{alertstate="firing", alertname="VedetteGoldenFailing"}}
  or
  ALERTS{{alertstate="firing", alertname="VedetteInputDrift", stream=""}}
)
or
sum by ({VERSION}) (
  vedette:answers:window and on ({SOURCE}) ALERTS{{alertstate="firing", alertname=~"{of_sources}"}}
) > {limits.KNOWN} * vedette:model_answers:window"""


def _silenced(p: Parameters, level: str, by: str, floor: float) -> str:
    """Shares of empty answers beyond the limit, most of them explained; where the limit is all, all explained."""
    answers, empty, most = (
        f"vedette:{level}answers:window",
        f"vedette:{level}empty:window",
        f"vedette:{level}empty_limit",
    )
    explained = f"sum by ({by}) (vedette:explained:window)"
    return f"""
clamp_max({empty} / ({answers} >= {p.answers}), 1)
and (
  {empty} / {answers} > clamp_min({most}:baseline, {floor}) and {explained} > {limits.EXPLAINED} * {empty}
  or
  {explained} / {answers} > {limits.EXPLAINED} and {most}:baseline >= 1
)"""


def _share(part: str, whole: str, least: int, apart: str = "") -> str:
    """A share of the answers, where there are enough of them; `apart` is the label that the part alone has."""
    ignoring = f" ignoring ({apart})" if apart else ""
    return f"clamp_max({part} /{ignoring} ({whole} >= {least}), 1)"


def alerts(p: Parameters) -> list[Rule]:
    """Return the alerts on empty answers that should not be empty, and on their causes."""

    def found(finding: str) -> str:
        return _share(f'vedette:finding:window{{finding="{finding}"}}', "vedette:answers:window", p.answers, "finding")

    nonfinite = f'sum by ({VERSION}) (vedette:finding:window{{finding="NON_FINITE_VALUES"}})'
    own_limit = "vedette:empty_limit:baseline{model=%q, version=%q, stream=%q}"
    threshold = "max(vedette_model_threshold_ratio{model=%q, version=%q})"
    suppressed = 'vedette:empty_reason:window{reason="BELOW_THRESHOLD"}'
    return [
        Alert(
            name="VedetteModelSilenced",
            severity="critical",
            role="symptom",
            cause=None,
            summary=f"{WHO} is silenced: {{{{ $labels.cause }}}}",
            description=f"""{SHARE} of its answers of the last {p.w} are empty, most of them because of {{{{
            $labels.cause }}}}. The usual maximum is
            {look("vedette:model_empty_limit:baseline{model=%q, version=%q}", "model", "version")}. Suspected cause:
            {{{{ $labels.cause }}}}.""",
            expr=of_leading("vedette:model_leading_cause:window", "vedette:model_silenced:window", VERSION),
            keep=3,
        ),
        Alert(
            name="VedetteStreamSilenced",
            severity="warning",
            role="symptom",
            cause=None,
            summary=f"{WHERE}: silenced, {{{{ $labels.cause }}}}",
            description=f"""{SHARE} of the answers of the last {p.w} are empty, most of them because of {{{{
            $labels.cause }}}}. The usual maximum is {look(own_limit, "model", "version", "stream")}.
            Suspected cause: {{{{ $labels.cause }}}}.""",
            expr=of_leading("vedette:leading_cause:window", "vedette:silenced:window", SOURCE),
            dashboard="vedette-stream",
            hold=p.window,  # by then it is known whether the whole model is, and a camera's own trouble has its name
            keep=1,
        ),
        Alert(
            name="VedetteNonFinite",
            severity="critical",
            role="cause",
            cause="NON_FINITE_VALUES",
            summary=f"{WHO} computes NaN or infinite values",
            description=f"""In {SHARE} of its answers of the last {p.w} values inside the model were not finite.
            Suspected cause: a broken checkpoint or memory, or a precision that overflows.""",
            expr=f"{nonfinite} / (vedette:model_answers:window >= {p.answers}) > {limits.NON_FINITE}",
            keep=3,
        ),
        Alert(
            name="VedetteCameraDark",
            severity="warning",
            role="cause",
            cause="IMAGE_BLACK",
            summary=f"{WHERE}: the images are black",
            description=f"""{SHARE} of the images of the last {p.w} are black. Suspected cause: a covered or dead
            camera, or night without light.""",
            expr=f"{found('IMAGE_BLACK')} > {limits.BLACK}\nunless\n{found('VALUES_IN_UNIT_RANGE')} > "
            f"{limits.UNIT_RANGE}",
            dashboard="vedette-stream",
            keep=2,
        ),
        Alert(
            name="VedetteFeedFrozen",
            severity="warning",
            role="cause",
            cause="FEED_FROZEN",
            summary=f"{WHERE}: the feed repeats one picture",
            description=f"""{SHARE} of the frames of the last {p.w} repeat a picture that was sent at least ten
            times. Suspected cause: a camera or a decoder hangs.""",
            expr=f"{found('FEED_FROZEN')} > {limits.FROZEN}\nunless\n{found('IMAGE_BLACK')} > {limits.MOSTLY_BLACK}",
            dashboard="vedette-stream",
            keep=2,
        ),
        Alert(
            name="VedetteSuppressedByThreshold",
            severity="warning",
            role="cause",
            cause="BELOW_THRESHOLD",
            summary=f"{WHERE}: likely detections are below the threshold",
            description=f"""In {SHARE} of the answers of the last {p.w} all candidates that the model considers
            more likely than not are below the threshold. Suspected cause: the threshold is too high, in the requests or
            in model.toml (there: {look(threshold, "model", "version", form="humanize")}).""",
            expr=f"{_share(suppressed, 'vedette:answers:window', p.answers, 'reason')} > {limits.SUPPRESSED}",
            dashboard="vedette-stream",
            hold=2 * p.hold,  # by then it is known whether the whole model is silenced by it
            keep=2,
        ),
        Alert(
            name="VedetteSuspectedCause",
            severity="warning",
            role="cause",
            cause=None,
            summary=f"{WHERE}: {{{{ $labels.cause }}}}",
            description="""The server has tried this source's own images, and undoing one mistake restores detections on
            nearly all of them. Suspected cause: {{ $labels.cause }}.""",
            expr=f"max by ({SOURCE}, cause) (vedette_suspected_cause) == 1",
            dashboard="vedette-stream",
            hold=0,  # it was on trial for long enough
            keep=2,
        ),
        *_quiet(p),
    ]


def _quiet(p: Parameters) -> list[Rule]:
    """A model that is quiet, without a reason. One road may be closed; many are not, and none is for half a day."""
    answers, empty = (count(f"vedette_{name}_total", p.l, SOURCE) for name in ("answers", "empty_answers"))
    share = f"sum by ({VERSION}) (vedette:empty:long) / (sum by ({VERSION}) (vedette:answers:long) >= {p.answers})"
    honest = f"""sum by ({VERSION}) (
    {count('vedette_empty_answers_total{reason!~"QUIET_SCENE|CLASS_FILTER"}', p.l, VERSION)}
  ) > {limits.EXPLAINED} * sum by ({VERSION}) (vedette:empty:long)"""
    # Of the hours that the window touches, the one that may be emptiest: baselines may have limits by the hour.
    most = limit("empty", "high", VERSION, over=p.l)
    earlier = (p.patience - 1) * p.long
    before, most_of_them = duration(earlier), earlier / p.interval * limits.QUIET_THROUGHOUT
    return [
        Record("vedette:answers:long", answers),
        Record("vedette:empty:long", f"{empty} or vedette:answers:long * 0"),
        Record(
            "vedette:model_quiet:long",
            f"""
clamp_max({share}, 1) > {most}
unless on ({VERSION})
  {honest}""",
        ),
        Record(
            "vedette:quiet_sources:long",
            f"""
count by ({VERSION}) (
  vedette:empty:long / (vedette:answers:long >= {p.answers})
    > max_over_time(vedette:empty_limit:baseline[{p.l}])
)""",
        ),
        Alert(
            name="VedetteModelQuiet",
            severity="warning",
            role="symptom",
            cause="UNKNOWN",
            summary=f"{WHO} detects less than it used to, and nothing explains it",
            description=f"""{SHARE} of its answers of the last {p.l} are empty, of
            {
                look("vedette:quiet_sources:long{model=%q, version=%q}", "model", "version", form="humanize")
            } sources more than
            ever in the baseline ({
                look(limit("empty", "high", VERSION).replace("{", "{model=%q, version=%q, "), "model", "version")
            } for the model). Suspected cause: unknown; `vedette diagnose` tries one of their images.""",
            expr=f"""
vedette:model_quiet:long
and on ({VERSION}) (
  vedette:quiet_sources:long >= {limits.QUIET_SOURCES}
  or
  count_over_time(vedette:model_quiet:long[{before}]) >= {round(most_of_them)}
)
unless on ({VERSION}) vedette:model_silenced:window
{unless_explained(p.l)}""",
        ),
    ]

"""Statistics of answers and images against their baseline, and the alerts that fire beyond its limits."""

from vedette_server.alerts import limits
from vedette_server.alerts.inputs import INPUTS
from vedette_server.alerts.parts import (
    SOURCE,
    VERSION,
    Alert,
    Parameters,
    Record,
    Rule,
    count,
    limit,
    look,
    unless_explained,
)
from vedette_server.alerts.silence import WHO

STATISTIC = "vedette:statistic:window"
BEYOND = "vedette:beyond:window"

# What has been recognised in the images themselves tells more than a statistic of them that has moved.
_SEEN = (
    "IMAGE_BLACK|IMAGE_SATURATED|IMAGE_FLAT|IMAGE_INVERTED|FEED_FROZEN|VALUES_.*|CHANNELS_SWAPPED|LAYOUT_TRANSPOSED"
    "|SIZE_SWAPPED|GREY_FOR_COLOUR|COLOUR_FOR_GREY"
)
_DARK, _BRIGHT = "IMAGE_TOO_DARK", "IMAGE_TOO_BRIGHT"


def statistics(p: Parameters) -> list[Rule]:
    """Statistics of each stream, and of the whole model without that label, as the baseline has limits for them."""
    only = '{stream!=""}'
    rules: list[Rule] = [
        Record(
            STATISTIC,
            f"""
clamp_max(vedette:empty:window{only} / (vedette:answers:window{only} >= {p.answers}), 1)
or
clamp_max(vedette:model_empty:window / (vedette:model_answers:window >= {p.answers}), 1)""",
            {"statistic": "empty"},
        )
    ]
    for name, one in INPUTS.items():
        means = (
            f"{count(f'{one.metric}_sum{which}', p.w, by)}\n"
            f"  / ({count(f'{one.metric}_count{which}', p.w, by)} >= {p.answers})"
            for by, which in ((SOURCE, only), (VERSION, ""))
        )
        rules.append(Record(STATISTIC, "\nor\n".join(means), {"statistic": name}))
    return [*rules, *_distances(p)]


def _distances(p: Parameters) -> list[Rule]:
    """Of the distributions over the long window; a histogram's buckets are its cumulative distribution already."""
    bucket = count("vedette_detection_score_bucket", p.l, f"{VERSION}, le")
    whole = count("vedette_detection_score_count", p.l, VERSION)
    detections = count("vedette_detections_total", p.l, f"{VERSION}, class")
    return [
        Record(
            "vedette:score_cumulative:long",
            f'label_replace({bucket}, "edge", "$1", "le", "(.+)")\n'
            f"  / on ({VERSION}) group_left () ({whole} >= {p.detections})",
        ),
        Record(
            STATISTIC,
            f"""
max by ({VERSION}) (
  abs(
    vedette:score_cumulative:long
      - on ({VERSION}, edge) group_left ()
    max by ({VERSION}, edge) (vedette_baseline_score_cumulative_ratio)
  )
)""",
            {"statistic": "score_distance"},
        ),
        Record(
            "vedette:class_share:long",
            f"{detections}\n  / on ({VERSION}) group_left () (sum by ({VERSION}) ({detections}) >= {p.detections})",
        ),
        Record("vedette:class_share:baseline", f"max by ({VERSION}, class) (vedette_baseline_class_share_ratio)"),
        Record(
            STATISTIC,
            f"""
0.5 * sum by ({VERSION}) (
  abs(vedette:class_share:long - vedette:class_share:baseline)
  or
  vedette:class_share:long
  or
  vedette:class_share:baseline and on ({VERSION}) vedette:class_share:long
)
and on ({VERSION}) vedette:class_share:baseline""",
            {"statistic": "class_distance"},
        ),
        *_beyond(),
    ]


def _beyond() -> list[Rule]:
    """Input statistics beyond their limits and a margin, each with its cause, one cause for each source.

    Darkness takes sharpness and contrast with it: a picture is blurred only beyond what its darkness explains, and flat
    only where contrast is less than half of what it was.
    """

    def margin(name: str) -> str:
        return f"clamp_min({limits.MARGIN} * ({limit(name, 'high')} - {limit(name, 'low')}), {INPUTS[name].margin:g})"

    def now(name: str) -> str:
        return f"sum by ({SOURCE}) ({STATISTIC}{{statistic={name!r}}})".replace("'", '"')

    def beyond(cause: str, name: str, condition: str, *before: str) -> Record:
        known = f"""unless on ({SOURCE})
(
  sum by ({SOURCE}) (vedette:finding:window{{stream!="", finding=~"{_SEEN}"}}) > {limits.KNOWN} * vedette:answers:window
  or
  sum by ({VERSION}) (vedette:finding:window{{finding=~"{_SEEN}"}}) > {limits.KNOWN} * vedette:model_answers:window
)"""
        others = f'\nunless on ({SOURCE})\n{BEYOND}{{cause=~"{"|".join(before)}"}}' if before else ""
        return Record(BEYOND, f"{condition}\n{known}{others}", {"statistic": name, "cause": cause})

    explained = f"clamp_min(20 * log10({limit('brightness', 'mean')} / {now('brightness')}), 0)"
    redness, upper = now("redness"), now("upper")
    return [
        beyond(_DARK, "brightness", f"{now('brightness')} < {limit('brightness', 'low')} - {margin('brightness')}"),
        beyond(_BRIGHT, "brightness", f"{now('brightness')} > {limit('brightness', 'high')} + {margin('brightness')}"),
        beyond(
            "IMAGE_FLAT",
            "contrast",
            f"{now('contrast')}\n  < {limits.FLAT} * {limit('contrast', 'low')}\n"
            f"  < {limit('contrast', 'low')} - {margin('contrast')}",
            _DARK,
            _BRIGHT,
        ),
        beyond(
            "IMAGE_BLURRED",
            "sharpness",
            f"{now('sharpness')}\n  < {limit('sharpness', 'low')} - {margin('sharpness')}\n  - {explained}",
            _DARK,
            "IMAGE_FLAT",
        ),
        beyond(
            "IMAGE_ROTATED",
            "upper",
            f"({upper} < {limit('upper', 'low')} - {margin('upper')}\n"
            f"or\n{upper} > {limit('upper', 'high')} + {margin('upper')})\n"
            f"and ({upper} - 0.5) * ({limit('upper', 'mean')} - 0.5) < 0",
            _DARK,
            _BRIGHT,
            "IMAGE_FLAT",
        ),
        beyond(
            "COLOUR_CAST",
            "redness",
            f"({redness} < {limit('redness', 'low')} - {margin('redness')}\n"
            f"or\n{redness} > {limit('redness', 'high')} + {margin('redness')})",
            _DARK,
            _BRIGHT,
            "IMAGE_FLAT",
        ),
    ]


def alerts(p: Parameters) -> list[Rule]:
    """Return the alerts. Symptoms wait, so that a cause can fire before them."""
    return [*_inputs(p), *(_distance(p, *which) for which in _DISTANCES), _class_silent(p)]


def _inputs(p: Parameters) -> list[Rule]:
    told = {
        _DARK: ("brightness", "darker", "too little light, a dirty lens, or a wrong exposure", p.hold),
        _BRIGHT: ("brightness", "brighter", "light into the lens, or a wrong exposure", p.hold),
        "IMAGE_FLAT": ("contrast", "flatter", "fog, a covered lens, or a lost signal", p.hold),
        "IMAGE_BLURRED": ("sharpness", "more blurred", "a lens out of focus or wet, or more compression", p.hold),
        "IMAGE_ROTATED": (
            "upper",
            "lit from another side",
            "a camera that was turned over, or light that now comes from below",
            p.hold,
        ),
        # Red and blue exchanged move it too, and are found out by trying, which takes a while.
        "COLOUR_CAST": (
            "redness",
            "of another colour",
            "a wrong white balance, or red and blue swapped",
            p.window,
        ),
    }
    where = "{{ with $labels.stream }}Stream {{ . }}{{ else }}All images{{ end }} of " + WHO

    def told_limit(name: str, bound: str) -> str:
        query = limit(name, bound).replace("{", "{model=%q, version=%q, stream=%q, ", 1)
        return look(query, "model", "version", "stream", form="humanize")

    return [
        Alert(
            name="VedetteInputDrift",
            severity="warning",
            role="cause",
            cause=cause,
            summary=f"{where}: {how} than in the baseline",
            description=f"""The {INPUTS[name].said} of the last {p.w} is {{{{ $value | humanize }}}} on average; the
            baseline has {told_limit(name, "low")} to {told_limit(name, "high")}. Suspected cause: {why}.""",
            expr=f'{BEYOND}{{cause="{cause}"}}',
            dashboard="vedette-stream",
            hold=hold,
            keep=2,
        )
        for cause, (name, how, why, hold) in told.items()
    ]


_DISTANCES = (
    (
        "VedetteScoreDrift",
        "SCORES_DRIFTED",
        "score_distance",
        "the distribution of scores differs from the baseline's",
        "Kolmogorov-Smirnov distance of its scores",
        "other images than in the baseline, or other weights",
    ),
    (
        "VedetteClassMixDrift",
        "CLASS_MIX_DRIFTED",
        "class_distance",
        "the mix of classes differs from the baseline's",
        "total variation distance of its mix of classes",
        "another scene, class names in another order, or a class that is no longer detected",
    ),
)


def _distance(p: Parameters, name: str, cause: str, statistic: str, what: str, measure: str, why: str) -> Alert:
    query = limit(statistic, "high", VERSION).replace("{", "{model=%q, version=%q, ", 1)
    lost = (
        f'\nunless on ({VERSION}) count_over_time(ALERTS{{alertstate="firing", alertname="VedetteClassSilent"}}[{p.l}])'
    )
    return Alert(
        name=name,
        severity="warning",
        role="symptom",
        cause=cause,
        summary=f"{WHO}: {what}",
        description=f"""The {measure} over the last {p.l} is {{{{ $value | humanize }}}}; the maximum in the baseline's
        own windows is {look(query, "model", "version", form="humanize")}. Suspected cause: {why}.""",
        expr=f'{STATISTIC}{{statistic="{statistic}"}} > on ({VERSION}) {limit(statistic, "high", VERSION)}\n'
        f"{unless_explained(p.l)}{lost if statistic == 'class_distance' else ''}",
        # A class that is lost moves the mix long before it has been missed for long enough to be named.
        hold=p.long if statistic == "class_distance" else 2 * p.window,
        keep=1,
    )


def _class_silent(p: Parameters) -> Alert:
    """Reckoned from the detections that there are, so that a road without signs silences no class."""
    seen = count("vedette_detections_total", p.l, f"{VERSION}, class")
    others = count("vedette_detections_total", p.l, VERSION)
    expected = f"vedette:class_share:baseline * on ({VERSION}) group_left () {others}"
    share = look("max(vedette_baseline_class_share_ratio{model=%q, version=%q, class=%q})", "model", "version", "class")
    return Alert(
        name="VedetteClassSilent",
        severity="warning",
        role="cause",
        cause="CLASS_SILENT",
        summary=f"{WHO} no longer detects {{{{ $labels.class }}}}",
        description=f"""{{{{ $value | humanize }}}} detections of {{{{ $labels.class }}}} in the last {p.l}, while
        others continue; its share in the baseline was {share}. Suspected cause: it is gone from the scene, it is no
        longer requested, or the model has lost it.""",
        expr=f"""
{seen}
  < {limits.CLASS_LEFT} * (({expected}) >= {limits.LEAST_EXPECTED})
and
max by ({VERSION}, class) (vedette_baseline_class_presence_ratio) >= {limits.LEAST_PRESENT}
{unless_explained(p.l)}""",
        keep=2,
    )

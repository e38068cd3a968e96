"""Troubles from their beginning until long after their end, and all that may notify in that time: one alert each.

They go through the very rules, evaluated by promtool, and through Alertmanager's inhibition, read as PromQL.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.rules.cases import V, answers, bounds, classes, findings, images, of, scores, usual_classes, usual_scores
from tests.rules.timeline import STEP, Labels, Phases, Series, values

ROUTES = Path(__file__).parents[2] / "deploy/alertmanager/alertmanager.yml"
STREAMS = ("north", "south", "east")
STEPS = (30, 60, 100)  # in health, in trouble, in health again; a window has six
END = STEP * sum(STEPS)  # seconds


@dataclass(frozen=True)
class Story:
    """Events, and the alerts that fire uninhibited: one for each cause."""

    name: str
    series: Series
    alerts: tuple[Labels, ...]

    def samples(self) -> dict[str, str]:
        """Its series as promtool reads them."""
        return {name: values(name, phases, STEPS) for name, phases in self.series.items()}


def uninhibited(*severities: str) -> str:
    """The alerts of these severities that fire and that nothing inhibits, at any moment."""
    expr = _firing(f'severity=~"{"|".join(severities)}"')
    for rule in yaml.safe_load(ROUTES.read_text())["inhibit_rules"]:
        target, source = _firing(*rule["target_matchers"]), _firing(*rule["source_matchers"])
        expr += f"\nunless ({target} and on ({', '.join(rule.get('equal', ()))}) {source})"
    return expr


def _firing(*matchers: str) -> str:
    return "ALERTS{" + ", ".join(('alertstate="firing"', *matchers)) + "}"


def _world() -> Series:
    """A server with a model and three streams, a tenth of whose answers are empty."""
    found: dict[str, tuple[float | None, ...]] = {'up{job="vedette", instance="a"}': (1,)}
    for stream in ("", *STREAMS):
        found |= bounds("empty", 0.0, 0.1, 0.3, stream)
    for stream in STREAMS:
        found |= answers(stream=stream, QUIET_SCENE=(1,))
    return found


def _empty(reason: str, *streams: str, share: float = 1.0) -> Series:
    """In trouble, that share of these streams' answers is empty for a reason."""
    found: dict[str, tuple[float | None, ...]] = {}
    for stream in streams:
        found |= answers(stream=stream, QUIET_SCENE=(1, 0, 1), **{reason: (0, 10 * share, 0)})
        found |= findings(stream, **{reason: (0, 10 * share, 0)})
    return found


def _alert(alert: str, cause: str, stream: str = "") -> Mapping[str, str]:
    return {"alertname": alert, "cause": cause, **({"stream": stream} if stream else {})}


def _silences() -> Iterator[Story]:
    for who, streams in (("one stream", STREAMS[:1]), ("all streams", STREAMS)):
        for reason, alone in (
            ("IMAGE_BLACK", "VedetteCameraDark"),
            ("FEED_FROZEN", "VedetteFeedFrozen"),
            ("BELOW_THRESHOLD", "VedetteSuppressedByThreshold"),
            ("VALUES_IN_UNIT_RANGE", "VedetteStreamSilenced"),
        ):
            one = len(streams) == 1
            fires = _alert(alone, reason, streams[0]) if one else _alert("VedetteModelSilenced", reason)
            yield Story(f"{reason} in {who}", _empty(reason, *streams, share=0.95), (fires,))


def _explained() -> Iterator[Story]:
    swapped: Series = {f'vedette_suspected_cause{{{of("north")}, cause="CHANNELS_SWAPPED"}}': (None, 1, None)}
    suspected = _alert("VedetteSuspectedCause", "CHANNELS_SWAPPED", "north")
    yield Story("a cause that was found out", {**_empty("CHANNELS_SWAPPED", "north"), **swapped}, (suspected,))
    lower = scores({"0.5": (2, 8, 2), "0.8": (6, 14, 6), "0.9": (10, 16, 10), "0.95": (14, 18, 14), "+Inf": (20,)})
    drifted: Series = {**usual_scores(), **bounds("score_distance", 0.0, 0.05, 0.1), **lower}
    yield Story("a cause that lowers scores", {**drifted, **swapped}, (suspected,))
    crowd = {**drifted, **swapped}
    for number in range(10):
        crowd |= answers((10,), stream=f"s{number}")
    both = (suspected, _alert("VedetteScoreDrift", "SCORES_DRIFTED"))
    yield Story("scores that one stream of many does not explain", crowd, both)
    dark = images(brightness=(110, 30, 110), contrast=(45, 12, 45), sharpness=(26, 15, 26))
    drift = _alert("VedetteInputDrift", "IMAGE_TOO_DARK", "north")
    yield Story("a picture too dark to see in", {**dark, **_empty("LOW_CONTRAST", "north")}, (drift,))
    mix: Series = {**usual_classes(stop=0.5, give=0.3, park=0.2), **bounds("class_distance", 0.0, 0.05, 0.15)}
    gone = {**mix, **classes(stop=(10,), give=(6,), park=(4, 0, 4))}
    yield Story("a class that is lost", gone, (_alert("VedetteClassSilent", "CLASS_SILENT"),))
    black = {**gone, **_empty("IMAGE_BLACK", "north")}
    dark_camera = _alert("VedetteCameraDark", "IMAGE_BLACK", "north")
    yield Story("a class that only a dark camera saw", black, (dark_camera,))


def _broken() -> Iterator[Story]:
    golden: Series = {
        f'vedette_golden_checks_total{{{V}, result="passed"}}': (1, 0, 1),
        f'vedette_golden_failures_total{{{V}, cause="NON_FINITE_VALUES"}}': (0, 1, 0),
    }
    nan = _empty("NON_FINITE_VALUES", *STREAMS)
    failing = _alert("VedetteGoldenFailing", "NON_FINITE_VALUES")
    yield Story("weights that are NaN", {**nan, **golden}, (failing,))
    nonfinite = _alert("VedetteNonFinite", "NON_FINITE_VALUES")
    yield Story("a precision that overflows", nan, (nonfinite,))
    few = {**_empty("BELOW_THRESHOLD", *STREAMS), **findings("east", NON_FINITE_VALUES=(0, 1, 0))}
    silenced = _alert("VedetteModelSilenced", "BELOW_THRESHOLD")
    yield Story("a few answers with NaN, and another cause", few, (nonfinite, silenced))
    order: dict[str, Phases] = {f'vedette_golden_disagreement_ratio{{{V}, predecessor="0"}}': (0.9,)}
    for stream in STREAMS:
        order |= answers(stream=stream, QUIET_SCENE=(1, 10, 1))
    both = (_alert("VedetteVersionDisagrees", "WRONG_VERSION"), _alert("VedetteModelQuiet", "UNKNOWN"))
    yield Story("a model that falls quiet, with classes in another order on purpose", order, both)
    workers: Series = {
        f"vedette_model_ready{{{V}}}": (1, 0, 1),
        f"vedette_workers_ready{{{V}}}": (1, 0, 1),
        f"vedette_workers_wanted{{{V}}}": (1,),
        f"vedette_worker_restarts_total{{{V}}}": (0, 1, 0),
    }
    outcome = f'vedette_requests_total{{{V}, outcome="%s"}}'
    still: Series = {
        f'vedette_unanswered_seconds{{{V}, instance="a"}}': (0, 100, 0),
        outcome % "OK": (5, 0, 5),
        outcome % "DEADLINE_EXCEEDED": (0, 5, 0),
        f"vedette_worker_restarts_total{{{V}}}": (0, 0.5, 0),
    }
    yield Story("workers that stand still", still, (_alert("VedetteStuck", "STUCK"),))
    starved: Series = {
        f'vedette_workers_lost_total{{{V}, cause="out_of_memory"}}': (0, 1, 0),
        f"vedette_worker_restarts_total{{{V}}}": (0, 1, 0),
    }
    yield Story("workers without memory", starved, (_alert("VedetteOutOfMemory", "OUT_OF_MEMORY"),))
    yield Story("workers that do not start", workers, (_alert("VedetteNoModelReady", "NO_WORKER"),))


STORIES = tuple(
    Story(story.name, {**_world(), **story.series}, story.alerts)
    for stories in (_silences, _explained, _broken)
    for story in stories()
)

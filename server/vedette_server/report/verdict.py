"""The traffic light: whether a version or a source of images sees, and why that is thought, in a sentence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from vedette_server.alerts import limits
from vedette_server.alerts.inputs import INPUTS
from vedette_server.explain.findings import FINDINGS, Code
from vedette_server.monitor.streams import OTHER, SINGLE, UNNAMED
from vedette_server.report.facts import Counts, Source, Version

_MOST_NAMED = 3  # sources in a sentence
UNNAMED_SOURCES = {SINGLE: "single images", UNNAMED: "streams without a name", OTHER: "all further streams"}


class Light(IntEnum):
    """The worse, the greater."""

    OK = 0
    IDLE = 1
    ATTENTION = 2
    SILENCED = 3

    @property
    def word(self) -> str:
        """As the page says it."""
        return self.name.lower()


@dataclass(frozen=True)
class Why:
    """One reason for a light."""

    light: Light
    sentence: str
    cause: str = ""  # the code of a finding, where it is one


@dataclass(frozen=True)
class Verdict:
    """A light and every reason for it, the gravest first."""

    whys: tuple[Why, ...]

    @property
    def light(self) -> Light:
        """The light."""
        return self.whys[0].light


def of_source(source: Source) -> Verdict:
    """Judge whether a source's images are seen."""
    return _judge([*_suspicions(source), *_emptiness(source, limits.STREAM_FLOOR), *_inputs(source)], source)


def of_version(version: Version) -> Verdict:
    """Judge whether a version sees."""
    whole = version.whole
    sources = _suspicions(whole) if len(version.sources) == 1 else _of_sources(version)
    whys = [*_serving(version), *sources, *_emptiness(whole, limits.MODEL_FLOOR), *_model(version), *_drift(version)]
    return _judge([*whys, *_inputs(whole)], whole)


def beyond(source: Source) -> bool:
    """True if more answers are empty than usual, or, without a baseline, than is credible."""
    high = source.limits["empty"].high if "empty" in source.limits else None
    most = limits.MOST_EMPTY if high is None else max(high, limits.STREAM_FLOOR)
    return source.answers >= limits.LEAST_ANSWERS and source.share > most


def outside(source: Source, statistic: str) -> str:
    """On which side of its limits an input statistic lies far enough outside to tell something; empty: on none."""
    limit = source.limits.get(statistic)
    if limit is None or source.answers < limits.LEAST_ANSWERS:
        return ""
    return limit.side(source.inputs[statistic], INPUTS[statistic].margin)


def shown(name: str) -> str:
    """Return the name of a source in a sentence."""
    return UNNAMED_SOURCES.get(name) or f"“{name}”"


def meaning(code: str) -> str:
    """Return the meaning of a finding; empty if this release does not know it."""
    return FINDINGS[Code(code)].meaning if code in Code.__members__ else ""


def percent(share: float) -> str:
    """A share in words that do not hide what is rare."""
    if 0 < share < 0.001:
        return "<\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _judge(whys: Sequence[Why], source: Source) -> Verdict:
    if whys:
        return Verdict(tuple(sorted(whys, key=lambda one: -one.light)))
    if not source.answers:
        return Verdict((Why(Light.IDLE, "Nothing has been answered yet, so nothing is known of what is seen."),))
    empty = f"{percent(source.share)} of {source.answers:,.0f} answers are empty"
    if "empty" in source.limits and (high := source.limits["empty"].high) is not None:
        few = f"; fewer than {limits.LEAST_ANSWERS} are not judged" if source.answers < limits.LEAST_ANSWERS else ""
        return Verdict((Why(Light.OK, f"{empty}; {percent(high)} were usual at most{few}."),))
    return Verdict((Why(Light.OK, f"{empty}, and no baseline says what is usual."),))


def _told(code: str) -> str:
    words = meaning(code)
    return f"{code}: {words}" if words else f"{code}."


def _suspicions(source: Source) -> Iterator[Why]:
    for cause in source.suspected:
        yield Why(Light.SILENCED, f"The server suspects {_told(cause)}", cause)


def _emptiness(source: Source, floor: float) -> Iterator[Why]:
    """Return the emptiness beyond the usual. It is silence if it is explained and above the floor."""
    if not beyond(source):
        return
    high = source.limits["empty"].high if "empty" in source.limits else None
    usual = "which no baseline calls usual" if high is None else f"beyond the usual {percent(high)}"
    empty = f"{percent(source.share)} of {source.answers:,.0f} answers are empty, {usual}"
    if source.explained > limits.EXPLAINED:
        leading = next(reason for reason in source.reasons if reason != Code.QUIET_SCENE)
        light = Light.SILENCED if source.share > floor else Light.ATTENTION
        yield Why(light, f"{empty}; mostly because of {_told(leading)}", leading)
    elif high is not None and not source.suspected:
        yield Why(Light.ATTENTION, f"{empty}, and nothing explains most of them: the scene may be quiet.")


def _inputs(source: Source) -> Iterator[Why]:
    for statistic, value in source.inputs.items():
        if side := outside(source, statistic):
            limit = source.limits[statistic]
            bound = limit.high if side == "above" else limit.low
            yield Why(
                Light.ATTENTION, f"The images' {statistic} is {value:.3g} on average, {side} the usual {bound:.3g}."
            )


def _serving(version: Version) -> Iterator[Why]:
    ready, wanted = version.ready
    if not ready:
        yield Why(Light.SILENCED, "No worker is ready, so that nothing is answered.")
    elif ready < wanted:
        yield Why(Light.ATTENTION, f"{ready:.0f} of {wanted:.0f} workers are ready.")
    if version.golden_failing:
        yield Why(Light.SILENCED, meaning(Code.GOLDEN_FAILING))


def _of_sources(version: Version) -> Iterator[Why]:
    """Judge a version by its sources: silenced if silenced sources make most of its answers empty."""
    judged = [(source, of_source(source)) for source in version.sources]
    silenced = [(source, verdict) for source, verdict in judged if verdict.light is Light.SILENCED]
    if silenced:
        lost = sum(source.answers if source.suspected else source.empty for source, _ in silenced)
        most = lost > limits.MODEL_FLOOR * version.whole.answers
        (source, verdict), *others = sorted(silenced, key=lambda pair: (not pair[0].suspected, -pair[0].empty))
        sentence = f"Of {len(judged)} sources of images, {shown(source.name)} is silenced. {verdict.whys[0].sentence}"
        if others:
            listed = ((source, verdict), *others[: _MOST_NAMED - 1])
            names = ", ".join(f"{shown(source.name)} by {verdict.whys[0].cause}" for source, verdict in listed)
            more = f" and {len(silenced) - _MOST_NAMED} more" if len(silenced) > _MOST_NAMED else ""
            sentence = f"{len(silenced)} of {len(judged)} sources of images are silenced: {names}{more}."
        yield Why(Light.SILENCED if most else Light.ATTENTION, sentence)
    for source, verdict in judged:
        if verdict.light is Light.ATTENTION:
            yield Why(Light.ATTENTION, f"{shown(source.name)}: {verdict.whys[0].sentence}")


def _model(version: Version) -> Iterator[Why]:
    if version.nonfinite:
        rows, where = sum(version.nonfinite.values()), ", ".join(version.nonfinite)
        yield Why(Light.ATTENTION, f"{rows:,.0f} regions were dropped because their values are not finite ({where}).")
    for predecessor, share in version.disagreement.items():
        if share > limits.DISAGREEMENT:
            differ = f"{percent(share)} of the objects on version {predecessor}'s golden images"
            yield Why(
                Light.ATTENTION, f"{differ} are missed or get another class: is the order of the classes the same?"
            )
    if version.violations:
        requests = f"{sum(version.violations.values()):,.0f} requests"
        yield Why(Light.ATTENTION, f"{requests} contradicted the model's contract: {_first(version.violations)}.")


def _first(counts: Counts) -> str:
    name, *others = counts
    return f"mostly {name}" if others else name


def _drift(version: Version) -> Iterator[Why]:
    if version.baseline.state == "refused":
        yield Why(Light.ATTENTION, "The baseline is refused; the server's log says why. Capture it again.")
    for statistic, distance, words in (
        ("score_distance", version.distances.scores, "scores of detections lie"),
        ("class_distance", version.distances.classes, "mix of classes lies"),
    ):
        limit = version.whole.limits.get(statistic)
        if limit and limit.high is not None and distance is not None and distance > limit.high:
            far = f"{distance:.2f} from the baseline's, where {limit.high:.2f} was usual at most"
            yield Why(Light.ATTENTION, f"The {words} {far}.")
    for name, rate in version.baseline.per_answer.items():
        expected = rate * version.whole.answers
        if not version.classes.get(name) and expected >= limits.LEAST_EXPECTED:
            yield Why(Light.ATTENTION, f"No “{name}” has been found, where {expected:.0f} were to be expected.")

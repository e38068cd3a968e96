"""The rules that recognise findings in an answer, from observations of the model's own stages.

Rules are ordered by explanatory power: the first that holds is an empty answer's primary reason. Measurements come
before inferences, and a quiet scene is what remains.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from vedette_server.contract.answer import (
    FLAT,
    NEARLY_ALL,
    NO_MIDDLE,
    Answer,
    Evidence,
    PixelStatistics,
    least_certainty,
)
from vedette_server.contract.contract import Input, InputContract
from vedette_server.contract.mistakes import HIGHEST_NORMALISED
from vedette_server.explain.findings import FINDINGS, Code, Confidence, Finding
from vedette_server.explain.usual import Ranges, Usual, surest

FROZEN_FRAMES = 10  # consecutive frames with equal pixels from which a feed counts as frozen
CONVINCING = 0.5  # score from which the model considers a candidate more likely than not

_HIGHEST_UNIT = 1  # of values that were scaled to [0, 1] and then cast to 8 bits
_STRUCTURED = 0.3  # correlation of neighbouring samples: higher for pictures, lower for noise of a dark sensor
_EXPOSED = 0.1  # minimum share of a picture's samples in the upper half of the range
_SATURATED = 0.5  # share of the samples
_CLIPPED = 254.0  # mean level above which the image is clipped, not merely bright
_DRAWN = 0.5  # share of similar neighbouring samples: no sensor exceeds it, because of noise
_GREY = 1.0  # levels between the channels
_MOST_NAMES = 5  # classes listed in evidence
_ENLARGED, _REDUCED = 3.0, 8.0  # by the resize rule


@dataclass(frozen=True, kw_only=True)
class Context:
    """Facts known besides the answer itself."""

    golden_failing: str = ""  # fault in the last golden images; empty: all passed
    identical: int = 1  # consecutive frames of the source with equal pixels, including this one
    values: Code | None = None  # result of `values` for the source's frames, including this one
    suspicion: Finding | None = None  # finding from earlier frames of the same source
    usual: Usual = field(default_factory=Usual)  # normal range, from the version's golden images and baseline
    stream: str = ""  # name of the source


@dataclass(frozen=True)
class _Case:
    answer: Answer
    contract: InputContract
    context: Context

    @property
    def evidence(self) -> Evidence:
        return self.answer.evidence


def explain(answer: Answer, contract: InputContract, context: Context) -> tuple[Finding, ...]:
    """Return the findings for an answer. An empty answer has at least one, the primary reason first."""
    case = _Case(answer, contract, context)
    empty = answer.empty
    found: dict[Code, Finding] = {}
    for rule in WHEN_EMPTY if empty else ALWAYS:
        finding = rule(case)
        if finding is not None:
            finding = context.usual.tempered(finding, answer.pixels, context.stream)
        if finding is not None:
            found.setdefault(finding.code, finding)
    return tuple(found.values()) or ((_quiet(case),) if empty else ())


def find(code: Code, confidence: Confidence, evidence: str) -> Finding:
    """Return a finding with the remedy from the table."""
    return Finding(code, confidence, evidence, FINDINGS[code].remedy)


def _non_finite(case: _Case) -> Finding | None:
    evidence = case.evidence
    if not evidence.not_finite and not evidence.dropped:
        return None
    dropped = ", ".join(f"{count} by {stage}" for stage, count in evidence.dropped.items())
    where = f"{evidence.not_finite or 'a part of the model'} produced non-finite values"
    return find(Code.NON_FINITE_VALUES, Confidence.CERTAIN, where + (f"; dropped: {dropped}" if dropped else ""))


def _pixels(rule: Callable[[PixelStatistics], Finding | None]) -> Callable[[_Case], Finding | None]:
    """Make a rule that looks at the pixels only."""
    return lambda case: None if case.answer.pixels is None else rule(case.answer.pixels)


def values(pixels: PixelStatistics, before: Code | None) -> Code | None:
    """Return how a source's values were altered: scaled, normalised, or unknown (None).

    A dark picture becomes black when scaled; `before` is the verdict on the source's earlier frames. Values that
    wrapped around zero leave nothing between the ends of the range. No lens does that, but black and white graphics
    may. Three colours, each normalised separately, are never equal.
    """
    if pixels.highest > HIGHEST_NORMALISED:
        if pixels.middle or pixels.lowest > HIGHEST_NORMALISED or pixels.saturated <= NO_MIDDLE:
            return None
        return Code.VALUES_NORMALISED if pixels.wrapped and _apart(pixels) else before
    if pixels.coherence < _STRUCTURED:
        return before
    if pixels.highest > _HIGHEST_UNIT:
        return Code.VALUES_NORMALISED if _apart(pixels) and min(pixels.mean) >= _EXPOSED else before
    return before or (Code.VALUES_IN_UNIT_RANGE if max(pixels.mean) >= _EXPOSED else None)


def _apart(pixels: PixelStatistics) -> bool:
    """Return whether the channels differ; channels other than colours may be anything."""
    return bool(pixels.colour) or len(pixels.mean) != 3


def _values(case: _Case) -> Finding | None:
    code, pixels = case.context.values, case.answer.pixels
    if code is None or pixels is None:
        return None
    seen = "no sample is above 1 of 255"
    if code is Code.VALUES_NORMALISED:
        seen = f"{1 - pixels.middle:.1%} of the samples are at 0 to 3 or at 253 to 255"
    return find(code, Confidence.LIKELY, f"{seen}, yet this source's frames show a picture")


def _black(pixels: PixelStatistics) -> Finding | None:
    if pixels.dark < NEARLY_ALL:
        return None
    seen = f"{pixels.dark:.1%} of the samples are at most 12 of 255"
    return _nothing(Code.IMAGE_BLACK, seen, certain=pixels.featureless)


def _saturated(pixels: PixelStatistics) -> Finding | None:
    if pixels.saturated < _SATURATED:
        return None
    seen = f"{pixels.saturated:.1%} of the samples are at least 250 of 255"
    return _nothing(Code.IMAGE_SATURATED, seen, certain=min(pixels.mean) >= _CLIPPED and pixels.featureless)


def _flat(pixels: PixelStatistics) -> Finding | None:
    if max(pixels.spread) >= FLAT:
        return None
    seen = f"the samples spread by at most {max(pixels.spread):.2f} levels in any channel"
    return _nothing(Code.IMAGE_FLAT, seen, certain=pixels.one_colour)


def _nothing(code: Code, seen: str, *, certain: bool) -> Finding:
    """Return a finding, certain only if the image holds nothing: a page, a night sky, snow or a wall may look so."""
    if certain:
        return find(code, Confidence.CERTAIN, f"{seen}, and the image holds nothing else")
    return find(code, Confidence.SUSPECTED, f"{seen}, which is normal for some subjects")


def _scores_flat(case: _Case) -> Finding | None:
    classes = len(case.contract.class_names)
    pixels = case.answer.pixels
    if (
        not case.evidence.scored
        or case.evidence.certainty >= least_certainty(classes)
        or (pixels and pixels.featureless)
    ):
        return None  # if there is nothing to see, all regions are alike
    share, uniform = case.evidence.certainty, 1 / (classes + 1)
    seen = f"the best class has a mean share of {share:.2f}; a random head's would be {uniform:.2f}"
    return find(Code.SCORES_FLAT, Confidence.LIKELY, seen)


def _golden(case: _Case) -> Finding | None:
    failing = case.context.golden_failing
    return find(Code.GOLDEN_FAILING, Confidence.CERTAIN, failing) if failing else None


def _frozen(case: _Case) -> Finding | None:
    if case.context.identical < FROZEN_FRAMES:
        return None
    seen = f"{case.context.identical} consecutive frames have the same pixels"
    pixels = case.answer.pixels
    if pixels and pixels.flat >= _DRAWN and not pixels.featureless:  # as in screens and drawings
        return find(Code.FEED_FROZEN, Confidence.SUSPECTED, f"{seen}, but they show no sensor noise")
    return find(Code.FEED_FROZEN, Confidence.LIKELY, seen)


def _clipped(case: _Case) -> Finding | None:
    count = case.evidence.clipped
    seen = f"{count} boxes above the threshold are outside the image"
    return find(Code.EMPTIED_BY_CLIPPING, Confidence.CERTAIN, seen) if count else None


def _class_filter(case: _Case) -> Finding | None:
    count = case.evidence.filtered
    seen = f"{count} detections are of other classes; the best candidate is {_best(case)}"
    return find(Code.CLASS_FILTER, Confidence.CERTAIN, seen) if count else None


def _capped(case: _Case) -> Finding | None:
    count = case.evidence.capped
    seen = f"{count} detections are above the threshold, but the allowed number is 0"
    return find(Code.CAPPED, Confidence.CERTAIN, seen) if count else None


def _below_threshold(case: _Case) -> Finding | None:
    evidence = case.evidence
    if not evidence.suppressed or (evidence.best_score or 0.0) < CONVINCING:
        return None
    convincing = [case.contract.class_names[index] for index in np.flatnonzero(evidence.best_scores >= CONVINCING)]
    seen = (
        f"{evidence.suppressed} candidates are below {case.answer.threshold:g}, the best {_best(case)}; "
        f"classes with at least {CONVINCING:g}: {', '.join(convincing[:_MOST_NAMES])}"
    )
    return find(Code.BELOW_THRESHOLD, Confidence.CERTAIN, seen)


def _best(case: _Case) -> str:
    class_id, score = case.evidence.best_class_id, case.evidence.best_score
    return "none" if class_id is None or score is None else f"{case.contract.class_names[class_id]} {score:.3f}"


def _suspicion(case: _Case) -> Finding | None:
    return case.context.suspicion


def _grey(case: _Case) -> Finding | None:
    pixels = case.answer.pixels
    if case.contract.channels != 3 or pixels is None or pixels.colour >= _GREY or Input.GRAY8 in case.contract.inputs:
        return None
    return find(Code.GREY_FOR_COLOUR, Confidence.SUSPECTED, f"the channels differ by {pixels.colour:.2f} levels")


def _size(case: _Case) -> Finding | None:
    given = case.answer.model_input
    if given is None:
        return None
    factor = min(given.height, given.width) / max(1, min(case.answer.height, case.answer.width))
    size = f"{case.answer.width}x{case.answer.height} pixels"
    if factor >= _ENLARGED:
        return find(Code.IMAGE_TOO_SMALL, Confidence.SUSPECTED, f"{size}, enlarged {factor:.1f} times")
    if factor <= 1 / _REDUCED:
        return find(Code.IMAGE_TOO_LARGE, Confidence.SUSPECTED, f"{size}, reduced {1 / factor:.1f} times")
    return None


def _no_proposals(case: _Case) -> Finding | None:
    if case.evidence.proposals != 0:
        return None
    return find(Code.NO_PROPOSALS, Confidence.CERTAIN, f"the filter left none of {case.evidence.proposed} regions")


def _quiet(case: _Case) -> Finding:
    seen = f"the best candidate is {_best(case)}; {case.evidence.suppressed} are below the threshold"
    if case.contract.own_threshold:
        seen += "; candidates below the model's own threshold are invisible"
    return find(Code.QUIET_SCENE, Confidence.LIKELY, seen)


ALWAYS = (_non_finite, _values, _golden, _frozen, _suspicion)
WHEN_EMPTY = (
    _non_finite,
    _values,
    _pixels(_black),
    _pixels(_saturated),
    _pixels(_flat),
    _scores_flat,
    _golden,
    _frozen,
    _clipped,
    _class_filter,
    _capped,
    _below_threshold,
    _suspicion,
    _grey,
    _size,
    _no_proposals,
)
_OF_PIXELS = (_values, _pixels(_black), _pixels(_saturated), _pixels(_flat), _grey, _size)


def usual(golden: Iterable[Answer], contract: InputContract, *, sees: bool, limits: Mapping[str, Ranges]) -> Usual:
    """Return a version's normal range, from answers to its golden images and the limits of its baseline."""
    told = ((answer, values(answer.pixels, None) if answer.pixels else None) for answer in golden)
    cases = [_Case(answer, contract, Context(values=code)) for answer, code in told]
    found = (rule(case) for case in cases for rule in _OF_PIXELS)
    seen = sees and not all(case.answer.empty for case in cases)
    return Usual(surest(filter(None, found)), seen, limits)

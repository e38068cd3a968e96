"""Each finding's evidence and confidence, and the values from which on it holds."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from vedette_server.contract.answer import Answer, ModelInput, least_certainty
from vedette_server.contract.contract import InputContract
from vedette_server.explain.explain import Context, explain, find, usual, values
from vedette_server.explain.findings import Code, Confidence
from vedette_server.explain.usual import Usual, surest

from tests.support.answers import CONTRACT, PICTURE, PIXELS, answer

CERTAIN, LIKELY, SUSPECTED = Confidence.CERTAIN, Confidence.LIKELY, Confidence.SUSPECTED
QUIET = (Code.QUIET_SCENE, LIKELY, "the best candidate is a 0.020; 0 are below the threshold")
Told = tuple[Code, Confidence, str]


def told(given: Answer, terms: InputContract = CONTRACT, **context: Any) -> list[Told]:
    return [(one.code, one.confidence, one.evidence) for one in explain(given, terms, Context(**context))]


def seen(given: Answer | None = None, **pixels: Any) -> Answer:
    """An empty answer to a picture with these statistics."""
    given = given or answer()
    assert given.pixels is not None
    return dataclasses.replace(given, pixels=dataclasses.replace(given.pixels, **pixels))


NORMAL, NOTHING = "which is normal for some subjects", "and the image holds nothing else"
DARK, BRIGHT = "of the samples are at most 12 of 255", "of the samples are at least 250 of 255"
EVEN = "the samples spread by at most 1.99 levels in any channel"
SNOW, WHITE = (253.0, 255.0, 255.0), (254.0, 255.0, 255.0)

OF_PIXELS: list[tuple[dict[str, Any], Told]] = [
    ({"dark": 0.98}, QUIET),
    ({"dark": 0.99}, (Code.IMAGE_BLACK, SUSPECTED, f"99.0% {DARK}, {NORMAL}")),
    ({"dark": 0.99, "featureless": True}, (Code.IMAGE_BLACK, CERTAIN, f"99.0% {DARK}, {NOTHING}")),
    ({"saturated": 0.49}, QUIET),
    ({"saturated": 0.5}, (Code.IMAGE_SATURATED, SUSPECTED, f"50.0% {BRIGHT}, {NORMAL}")),
    (
        {"saturated": 0.9, "featureless": True, "mean": SNOW},
        (Code.IMAGE_SATURATED, SUSPECTED, f"90.0% {BRIGHT}, {NORMAL}"),
    ),
    (
        {"saturated": 0.9, "featureless": True, "mean": WHITE},
        (Code.IMAGE_SATURATED, CERTAIN, f"90.0% {BRIGHT}, {NOTHING}"),
    ),
    ({"saturated": 0.9, "mean": WHITE}, (Code.IMAGE_SATURATED, SUSPECTED, f"90.0% {BRIGHT}, {NORMAL}")),
    ({"spread": (0.0, 2.0, 0.0)}, QUIET),
    ({"spread": (0.0, 1.99, 0.0)}, (Code.IMAGE_FLAT, SUSPECTED, f"{EVEN}, {NORMAL}")),
    ({"spread": (0.0, 1.99, 0.0), "one_colour": True}, (Code.IMAGE_FLAT, CERTAIN, f"{EVEN}, {NOTHING}")),
    ({"colour": 1.0}, QUIET),
    ({"colour": 0.99}, (Code.GREY_FOR_COLOUR, SUSPECTED, "the channels differ by 0.99 levels")),
]


@pytest.mark.parametrize(("pixels", "wanted"), OF_PIXELS)
def test_the_pixels_are_told_as_they_were_measured(pixels: dict[str, Any], wanted: Told) -> None:
    assert told(seen(**pixels)) == [wanted]


def best(*scores: float) -> dict[str, Any]:
    return {"best_scores": np.array(scores, np.float32)}


MEANT = "the best class has a mean share of 0.40; a random head's would be 0.33"

OF_STAGES: list[tuple[dict[str, Any], Told]] = [
    (
        {"dropped": {"rpn": 1, "box_head": 2}},
        (
            Code.NON_FINITE_VALUES,
            CERTAIN,
            "a part of the model produced non-finite values; dropped: 1 by rpn, 2 by box_head",
        ),
    ),
    ({"not_finite": "rpn"}, (Code.NON_FINITE_VALUES, CERTAIN, "rpn produced non-finite values")),
    ({"certainty": 0.4}, (Code.SCORES_FLAT, LIKELY, MEANT)),
    ({"certainty": least_certainty(2)}, QUIET),
    ({"clipped": 3}, (Code.EMPTIED_BY_CLIPPING, CERTAIN, "3 boxes above the threshold are outside the image")),
    (
        {"filtered": 2},
        (Code.CLASS_FILTER, CERTAIN, "2 detections are of other classes; the best candidate is a 0.020"),
    ),
    (
        {"filtered": 2, "scored": 0},
        (Code.CLASS_FILTER, CERTAIN, "2 detections are of other classes; the best candidate is none"),
    ),
    ({"capped": 2}, (Code.CAPPED, CERTAIN, "2 detections are above the threshold, but the allowed number is 0")),
    (
        {"suppressed": 2, **best(0.5, 0.6)},
        (
            Code.BELOW_THRESHOLD,
            CERTAIN,
            "2 candidates are below 0.7, the best b 0.600; classes with at least 0.5: a, b",
        ),
    ),
    (
        {"suppressed": 1, **best(0.5, 0.1)},
        (Code.BELOW_THRESHOLD, CERTAIN, "1 candidates are below 0.7, the best a 0.500; classes with at least 0.5: a"),
    ),
    (
        {"suppressed": 2, "scored": 0},
        (Code.QUIET_SCENE, LIKELY, "the best candidate is none; 2 are below the threshold"),
    ),
    ({"proposals": 0}, (Code.NO_PROPOSALS, CERTAIN, "the filter left none of 100 regions")),
]


@pytest.mark.parametrize(("evidence", "wanted"), OF_STAGES)
def test_the_stages_are_told_as_they_were_counted(evidence: dict[str, Any], wanted: Told) -> None:
    assert told(answer(**evidence, threshold=0.7)) == [wanted]


def test_the_evidence_names_no_more_than_five_classes() -> None:
    terms = dataclasses.replace(CONTRACT, class_names=tuple("abcdef"))
    ((_code, _sure, evidence),) = told(answer(suppressed=6, **best(*[0.6] * 6)), terms)
    assert evidence.endswith("classes with at least 0.5: a, b, c, d, e")


def test_scores_are_alike_where_there_is_nothing_to_see() -> None:
    assert told(seen(answer(certainty=0.4), featureless=True)) == [QUIET]
    assert told(dataclasses.replace(answer(certainty=0.4), pixels=None)) == [(Code.SCORES_FLAT, LIKELY, MEANT)]


SIZES: list[tuple[tuple[int, int], tuple[int, int], Told]] = [
    ((100, 150), (300, 450), (Code.IMAGE_TOO_SMALL, SUSPECTED, "150x100 pixels, enlarged 3.0 times")),
    ((150, 100), (450, 300), (Code.IMAGE_TOO_SMALL, SUSPECTED, "100x150 pixels, enlarged 3.0 times")),
    ((1, 5), (3, 15), (Code.IMAGE_TOO_SMALL, SUSPECTED, "5x1 pixels, enlarged 3.0 times")),
    ((100, 150), (299, 450), QUIET),
    ((800, 900), (100, 113), (Code.IMAGE_TOO_LARGE, SUSPECTED, "900x800 pixels, reduced 8.0 times")),
    ((799, 900), (100, 113), QUIET),
]


@pytest.mark.parametrize(("sent", "given", "wanted"), SIZES)
def test_sizes_are_told_from_their_limits_on(sent: tuple[int, int], given: tuple[int, int], wanted: Told) -> None:
    entered = ModelInput(*given, (0.0,) * 3, (1.0,) * 3)
    assert told(dataclasses.replace(answer(), height=sent[0], width=sent[1], model_input=entered)) == [wanted]


SAME = "10 consecutive frames have the same pixels"
DRAWN = (Code.FEED_FROZEN, SUSPECTED, f"{SAME}, but they show no sensor noise")


@pytest.mark.parametrize(
    ("pixels", "wanted"),
    [
        ({"flat": 0.5}, DRAWN),
        ({"flat": 0.49}, (Code.FEED_FROZEN, LIKELY, SAME)),
        ({"flat": 0.5, "featureless": True}, (Code.FEED_FROZEN, LIKELY, SAME)),
    ],
)
def test_a_still_drawing_is_no_frozen_feed_for_certain(pixels: dict[str, Any], wanted: Told) -> None:
    assert told(seen(**pixels), identical=10) == [wanted]


def test_what_is_known_besides_is_told_as_it_was_given() -> None:
    assert told(answer(), golden_failing="a.jpg: nothing") == [(Code.GOLDEN_FAILING, CERTAIN, "a.jpg: nothing")]
    own = dataclasses.replace(CONTRACT, own_threshold=True)
    hidden = f"{QUIET[2]}; candidates below the model's own threshold are invisible"
    assert told(answer(), own) == [(Code.QUIET_SCENE, LIKELY, hidden)]


@pytest.mark.parametrize(
    ("code", "evidence"),
    [
        (Code.VALUES_IN_UNIT_RANGE, "no sample is above 1 of 255"),
        (Code.VALUES_NORMALISED, "75.0% of the samples are at 0 to 3 or at 253 to 255"),
    ],
)
def test_values_are_told_with_what_the_feed_shows(code: Code, evidence: str) -> None:
    shown = f"{evidence}, yet this source's frames show a picture"
    assert told(seen(middle=0.25), values=code) == [(code, LIKELY, shown)]


TINY: dict[str, Any] = {"highest": 3, "coherence": 0.3, "colour": 1.0, "mean": (0.1, 0.1, 0.1)}
WRAPPED: dict[str, Any] = {"middle": 0.0, "lowest": 3, "saturated": 0.03, "wrapped": True, "colour": 1.0}
BEFORE = Code.VALUES_SCALED_UP  # no verdict of a single frame
NORMALISED, UNIT = Code.VALUES_NORMALISED, Code.VALUES_IN_UNIT_RANGE


@pytest.mark.parametrize(
    ("pixels", "verdict"),
    [
        (TINY, NORMALISED),
        (TINY | {"highest": 2}, NORMALISED),
        (TINY | {"coherence": 0.29}, BEFORE),
        (TINY | {"colour": 0.0}, BEFORE),
        (TINY | {"mean": (0.09, 1.0, 1.0)}, BEFORE),
        (TINY | {"highest": 4, "middle": 0.5}, None),
        (WRAPPED, NORMALISED),
        (WRAPPED | {"lowest": 4}, None),
        (WRAPPED | {"saturated": 0.02}, None),
        (WRAPPED | {"middle": 0.01}, None),
        (WRAPPED | {"wrapped": False}, BEFORE),
        (WRAPPED | {"colour": 0.0}, BEFORE),
    ],
)
def test_a_frame_that_shows_nothing_changes_no_verdict(pixels: dict[str, Any], verdict: Code | None) -> None:
    given = seen(**pixels).pixels
    assert given is not None
    assert values(given, BEFORE) == verdict


@pytest.mark.parametrize(("mean", "verdict"), [((0.1, 0.0, 0.0), UNIT), ((0.09, 0.09, 0.09), None)])
def test_one_bright_channel_shows_a_picture(mean: tuple[float, ...], verdict: Code | None) -> None:
    given = seen(**(TINY | {"highest": 1, "mean": mean})).pixels
    assert given is not None
    assert values(given, None) == verdict
    assert values(given, NORMALISED) == NORMALISED


def test_the_usual_is_what_golden_images_show_and_the_baselines_limits() -> None:
    limits = {"": {"brightness": (1.0, 2.0)}}
    golden = [answer(PICTURE), answer(PIXELS["VALUES_IN_UNIT_RANGE"])]
    shown = usual(golden, CONTRACT, sees=True, limits=limits)
    doubtful = (Code.IMAGE_BLACK, Code.IMAGE_FLAT, Code.GREY_FOR_COLOUR)
    assert shown == Usual({UNIT: LIKELY, **dict.fromkeys(doubtful, SUSPECTED)}, sees=False, limits=limits)
    bare = dataclasses.replace(answer(scores=(0.9,)), pixels=None, model_input=None)
    assert usual([bare], CONTRACT, sees=True, limits={}) == Usual(sees=True)


def test_a_finding_is_as_sure_as_the_surest_of_its_code() -> None:
    found = [find(UNIT, sure, "") for sure in (LIKELY, CERTAIN, SUSPECTED)]
    assert surest([*found, find(NORMALISED, SUSPECTED, ""), find(NORMALISED, LIKELY, "")]) == {
        UNIT: CERTAIN,
        NORMALISED: LIKELY,
    }


@pytest.mark.parametrize(("brightness", "sure"), [(9, CERTAIN), (10, SUSPECTED), (20, SUSPECTED), (21, CERTAIN)])
def test_a_stream_is_held_against_its_own_limits(brightness: float, sure: Confidence) -> None:
    """Both of them included; another stream has those of all."""
    known = Usual(limits={"cam": {"brightness": (10.0, 20.0)}, "": {"brightness": (0.0, 1.0)}})
    given = seen(dark=1.0, featureless=True, mean=(brightness,) * 3)
    ((_code, confidence, _evidence),) = told(given, usual=known, stream="cam")
    assert confidence is sure
    ((_code, confidence, _evidence),) = told(given, usual=known, stream="another")
    assert confidence is CERTAIN


RED, BLUE = (0.0, 1.0, 2.0), (2.0, 1.0, 0.0)  # of redness 0.75 and 0.25


@pytest.mark.parametrize(
    ("mean", "limits", "sure"),
    [
        (RED, (0.25, 0.75), LIKELY),
        (RED, (0.26, 0.75), SUSPECTED),
        (RED, (0.26, 0.74), LIKELY),
        (BLUE, (0.25, 0.75), LIKELY),
        (BLUE, (0.25, 0.74), SUSPECTED),
    ],
)
def test_redness_proves_nothing_where_it_would_be_usual_either_way(
    mean: tuple[float, ...], limits: tuple[float, float], sure: Confidence
) -> None:
    known, pixels = Usual(limits={"": {"redness": limits}}), seen(mean=mean).pixels
    left = known.tempered(find(Code.CHANNELS_SWAPPED, LIKELY, ""), pixels, "cam")
    assert left is not None
    assert left.confidence is sure

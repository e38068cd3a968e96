"""Every finding is documented, and recognised from what a worker tells; quiet is what remains."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from vedette.v1 import answer_pb2, detection_service_pb2
from vedette_server.contract.answer import Answer, PixelStatistics
from vedette_server.contract.contract import Input, default_inputs
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.mistakes import Mistake
from vedette_server.explain.diagnosis import Candidate, Diagnosis, rank, sheet, summary
from vedette_server.explain.explain import FROZEN_FRAMES, Context, explain, find, values
from vedette_server.explain.findings import FINDINGS, OF_MISTAKE, Code, Confidence
from vedette_server.explain.page import page
from vedette_server.explain.trial import Trial, TrialVerdict
from vedette_server.predictor.look import look

from tests.support.answers import CONTRACT, PICTURE, PIXELS, RNG, answer, noise
from tests.support.contracts import contract


def codes(given: Answer, terms: Any = CONTRACT, **context: Any) -> list[Code]:
    context.setdefault("values", values(given.pixels, None) if given.pixels else None)
    return [finding.code for finding in explain(given, terms, Context(**context))]


def test_the_lists_agree() -> None:
    assert set(FINDINGS) == set(Code)
    assert [f"FINDING_CODE_{code}" for code in Code] == answer_pb2.FindingCode.keys()[1:]
    assert set(OF_MISTAKE) == set(Mistake) - {Mistake.NONE}
    assert [f"MISTAKE_{mistake}" for mistake in OF_MISTAKE] == detection_service_pb2.Mistake.keys()[1:]
    assert [f"CONFIDENCE_{sure}" for sure in Confidence] == answer_pb2.Confidence.keys()[1:]


def test_the_page_for_users_is_the_list() -> None:
    assert Path("deploy/docs/findings.md").read_text() == page(), "run `make docs`"


def test_a_sound_answer_has_no_finding_and_an_empty_one_is_quiet() -> None:
    assert codes(answer(scores=(0.9,))) == []
    assert codes(answer()) == [Code.QUIET_SCENE]


@pytest.mark.parametrize("code", PIXELS)
def test_pixels_tell(code: str) -> None:
    assert codes(answer(PIXELS[code]))[0] == code


def test_values_tell_also_where_something_was_found() -> None:
    """Junk, as models give for such pictures."""
    assert codes(answer(PIXELS["VALUES_NORMALISED"], scores=(0.6,))) == ["VALUES_NORMALISED"]


def test_normalised_values_that_wrapped_around_tell() -> None:
    wrapped = ((PICTURE - 115.0) / 57).astype(np.int8).view(np.uint8)
    assert codes(answer(wrapped))[0] == "VALUES_NORMALISED"


def test_a_covered_camera_is_no_mistake_about_values() -> None:
    """Few levels, without a picture's structure."""
    for pixels in (noise(0, 0.6), np.zeros_like(PICTURE), noise(1, 1)):
        assert codes(answer(pixels))[0] == Code.IMAGE_BLACK


def test_a_feed_is_remembered_by_the_frames_that_show_something() -> None:
    """Dark pictures become black when they are scaled; a picture that is none any more says that all is well."""
    told = None
    for name, wanted in (
        ("IMAGE_BLACK", None),
        ("VALUES_IN_UNIT_RANGE", "VALUES_IN_UNIT_RANGE"),
        ("ZERO", "VALUES_IN_UNIT_RANGE"),
        ("VALUES_NORMALISED", "VALUES_NORMALISED"),
        ("VALUES_IN_UNIT_RANGE", "VALUES_NORMALISED"),
        ("ZERO", "VALUES_NORMALISED"),
        ("GREY_FOR_COLOUR", None),
    ):
        pixels = PIXELS.get(name, np.zeros_like(PICTURE))
        told = values(look(pixels, pixels), told)
        assert told == wanted
    assert codes(answer(np.zeros_like(PICTURE)), values=Code.VALUES_NORMALISED)[0] == "VALUES_NORMALISED"


EVIDENCE: dict[str, dict[str, Any]] = {
    "NON_FINITE_VALUES": {"not_finite": "roi_heads.box_head", "dropped": {"roi_heads.box_predictor": 50}, "scored": 0},
    "SCORES_FLAT": {"certainty": 0.4},
    "EMPTIED_BY_CLIPPING": {"clipped": 1},
    "CLASS_FILTER": {"filtered": 2},
    "CAPPED": {"capped": 2},
    "BELOW_THRESHOLD": {"suppressed": 1, "best_scores": np.array([0.1, 0.6], np.float32)},
    "NO_PROPOSALS": {"proposals": 0, "scored": 0},
}


@pytest.mark.parametrize("code", EVIDENCE)
def test_stages_tell(code: str) -> None:
    (finding,) = explain(answer(**EVIDENCE[code], threshold=0.7), CONTRACT, Context())
    assert finding.code == code
    assert finding.confidence in (Confidence.CERTAIN, Confidence.LIKELY)
    assert finding.remedy == FINDINGS[finding.code].remedy


def test_the_stage_is_named() -> None:
    (finding,) = explain(answer(**EVIDENCE["NON_FINITE_VALUES"]), CONTRACT, Context())
    assert finding.evidence == "roi_heads.box_head produced non-finite values; dropped: 50 by roi_heads.box_predictor"


def test_a_weak_candidate_accuses_nobody() -> None:
    """A quiet street always has one."""
    weak = answer(suppressed=3, best_scores=np.array([0.4, 0.1], np.float32))
    (finding,) = explain(weak, CONTRACT, Context())
    assert finding.code is Code.QUIET_SCENE
    assert finding.evidence == "the best candidate is a 0.400; 3 are below the threshold"


def test_what_is_known_of_the_source_and_the_model_tells_also_where_something_was_found() -> None:
    suspicion = find(Code.CHANNELS_SWAPPED, Confidence.LIKELY, "9 of 9")
    context = {"golden_failing": "a.jpg: nothing", "identical": FROZEN_FRAMES, "suspicion": suspicion}
    wanted = [Code.GOLDEN_FAILING, Code.FEED_FROZEN, Code.CHANNELS_SWAPPED]
    assert codes(answer(), **context) == wanted
    assert codes(answer(scores=(0.9,)), **context) == wanted
    assert codes(answer(), identical=FROZEN_FRAMES - 1) == [Code.QUIET_SCENE]


def test_sizes_tell_where_they_are_far_from_what_the_model_sees() -> None:
    assert codes(answer(PICTURE[:90, :120])) == [Code.IMAGE_TOO_SMALL]
    assert codes(answer(PICTURE[:91, :120])) == [Code.QUIET_SCENE]
    large = dataclasses.replace(answer(), height=272 * 8, width=363 * 8)
    assert codes(large) == [Code.IMAGE_TOO_LARGE]


def test_grey_is_welcome_where_the_operator_says_so() -> None:
    terms = contract(inputs=(*default_inputs(ChannelOrder.BGR), Input.GRAY8))
    assert codes(answer(PIXELS["GREY_FOR_COLOUR"]), terms) == [Code.QUIET_SCENE]


def test_an_answer_that_was_not_observed_is_explained_by_its_scores() -> None:
    bare = dataclasses.replace(answer(filtered=1), pixels=None, model_input=None)
    assert codes(bare) == [Code.CLASS_FILTER]


def verdict(outcomes: str) -> TrialVerdict:
    trial = Trial()
    for outcome in outcomes:
        assert trial.verdict is TrialVerdict.OPEN
        trial.count(gained=outcome == "+")
    return trial.verdict


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        ("+" * 11, TrialVerdict.OPEN),
        ("+" * 12, TrialVerdict.FAULTY),
        ("---", TrialVerdict.HONEST),
        ("+--", TrialVerdict.OPEN),
        ("+---", TrialVerdict.HONEST),
        ("+++++-++++++++++", TrialVerdict.FAULTY),
        ("+-" * 3, TrialVerdict.OPEN),
        ("+-" * 4, TrialVerdict.HONEST),
    ],
)
def test_a_trial_ends_as_soon_as_it_can(outcomes: str, wanted: TrialVerdict) -> None:
    assert verdict(outcomes) is wanted


def test_a_trial_seldom_errs() -> None:
    """Simulated: frames that gain by chance, as often as the trial takes for honest; and those of a faulty feed."""

    def share(gain: float, wanted: TrialVerdict) -> float:
        ended = 0
        for _ in range(4_000):
            trial = Trial()
            while trial.verdict is TrialVerdict.OPEN:
                trial.count(gained=RNG.random() < gain)
            ended += trial.verdict is wanted
        return ended / 4_000

    assert share(0.5, TrialVerdict.FAULTY) <= 0.003
    assert share(0.9, TrialVerdict.HONEST) <= 0.03


def candidate(mistake: Mistake, *scores: float) -> Candidate:
    return Candidate(mistake, answer(scores=scores))


def test_what_gains_is_ranked_first_and_summed_up() -> None:
    sent = candidate(Mistake.NONE)
    tried = [
        candidate(Mistake.MIRRORED, 0.55),
        candidate(Mistake.UNIT_RANGE, 0.9, 0.9, 0.9),
        candidate(Mistake.CHANNELS_SWAPPED, 0.9, 0.8),
        candidate(Mistake.THRESHOLD, *[0.1] * 30),
    ]
    swapped = find(Code.CHANNELS_SWAPPED, Confidence.SUSPECTED, "")
    order = [one.mistake for one in rank(sent, tried, [swapped])]
    assert order[:2] == [Mistake.CHANNELS_SWAPPED, Mistake.UNIT_RANGE]
    assert order[-1] == Mistake.THRESHOLD
    assert rank(sent, tried, [])[0].mistake is Mistake.UNIT_RANGE
    told = summary(Diagnosis(sent, rank(sent, tried, [swapped]), (swapped,)), CONTRACT)
    assert told == (
        "Red and blue are swapped: RGB was sent as BGR, or vice versa. As sent, the image yields 0 detections above "
        "0.5 (best a 0.02); with red and blue swapped, it yields 2 detections above 0.5 (best a 0.02). "
        + FINDINGS[Code.CHANNELS_SWAPPED].remedy
    )


def test_what_does_not_help_is_said_honestly() -> None:
    sent, tried = candidate(Mistake.NONE), (candidate(Mistake.MIRRORED, 0.55),)
    quiet = find(Code.QUIET_SCENE, Confidence.LIKELY, "")
    black = find(Code.IMAGE_BLACK, Confidence.CERTAIN, "all of it")
    assert "none of the attempts helps: either the scene is empty" in summary(
        Diagnosis(sent, tried, (quiet,)), CONTRACT
    )
    assert summary(Diagnosis(sent, tried, (black,)), CONTRACT).startswith("The image is black")
    found = Diagnosis(candidate(Mistake.NONE, 0.9), tried, ())
    assert summary(found, CONTRACT).endswith("none of the attempts yields convincingly more.")
    assert found.cause is None


@pytest.mark.parametrize(("scores", "gains"), [((0.71, 0.5), True), ((0.69, 0.5), False), ((0.5, 0.5), False)])
def test_a_gain_is_of_scores_that_are_more_likely_than_not(scores: tuple[float, ...], *, gains: bool) -> None:
    assert candidate(Mistake.MIRRORED, *scores).gains_on(candidate(Mistake.NONE)) == gains


def test_a_doubtful_finding_is_told_as_one_and_so_is_a_model_that_scored_nothing() -> None:
    unscored = Candidate(Mistake.NONE, answer(scored=0))
    tried, black = (candidate(Mistake.MIRRORED, 0.55),), find(Code.IMAGE_BLACK, Confidence.SUSPECTED, "Most of it.")
    told = summary(Diagnosis(unscored, tried, (black,)), CONTRACT)
    assert told.startswith(f"Perhaps: {FINDINGS[Code.IMAGE_BLACK].meaning} Most of it.; none of the attempts helps.")
    quiet = summary(Diagnosis(unscored, tried, ()), CONTRACT)
    assert quiet.startswith("As sent, the image yields 0 detections above 0.5 (nothing was scored), and none")


def caption(colour: tuple[int, int, int], *lines: str) -> NDArray[np.uint8]:
    canvas = Image.new("RGB", (320, 34), (250, 250, 250))
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((4, 1 + 15 * number), line, colour, ImageFont.load_default(13))
    return np.asarray(canvas)


def shown(mistake: Mistake, grey: int, height: int, *scores: float) -> Candidate:
    """A candidate whose thumbnail is of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, height), (grey, grey, grey)).save(buffer, "PNG")
    return Candidate(mistake, dataclasses.replace(answer(scores=scores), thumbnail=buffer.getvalue()))


def test_a_sheet_shows_the_image_as_sent_and_what_helps() -> None:
    tried = (
        shown(Mistake.CHANNELS_SWAPPED, 20, 200, 0.9, 0.8),
        shown(Mistake.MIRRORED, 30, 180, 0.6),
        candidate(Mistake.UNIT_RANGE),  # of which there is no picture
        shown(Mistake.ROTATED_90, 40, 150),
        shown(Mistake.INVERTED, 50, 150),
    )
    drawn = np.asarray(Image.open(io.BytesIO(sheet(Diagnosis(shown(Mistake.NONE, 10, 100), tried, ())))))
    assert drawn.shape == (2 * (200 + 34), 4 * 320, 3)
    plain, helps = (110, 110, 110), (46, 160, 67)
    tiles = [
        (10, 100, plain, "as sent", "0 detections, best 0.02"),
        (20, 200, helps, OF_MISTAKE[Mistake.CHANNELS_SWAPPED][1], "2 detections, best 0.02"),
        (30, 180, plain, OF_MISTAKE[Mistake.MIRRORED][1], "1 detection, best 0.02"),
        (40, 150, plain, OF_MISTAKE[Mistake.ROTATED_90][1], "0 detections, best 0.02"),
        (50, 150, plain, OF_MISTAKE[Mistake.INVERTED][1], "0 detections, best 0.02"),
    ]
    for index, (grey, height, colour, *lines) in enumerate(tiles):
        left, top = index % 4 * 320, index // 4 * 234
        tile = drawn[top : top + 234, left : left + 320]
        np.testing.assert_array_equal(tile[:34], caption(colour, *lines))
        assert (tile[34 : 34 + height, :300] == grey).all()
        assert (tile[34 + height :] == 250).all()
        assert (tile[34:, 300:] == 250).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2), (2, 3_000)])
def test_pixels_of_any_size_are_measured(size: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
    seen = look(pixels, pixels)
    assert 0 <= seen.flat <= 1
    assert -1 <= seen.coherence <= 1
    assert seen.sharpness >= 0


def test_pixels_are_measured_as_numpy_would() -> None:
    seen: PixelStatistics = look(PICTURE, PICTURE)
    sample = PICTURE[::6, ::6]
    np.testing.assert_allclose(seen.mean, sample.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(seen.spread, sample.std(axis=(0, 1)), rtol=1e-6)
    assert (seen.lowest, seen.highest) == (sample.min(), sample.max())
    assert seen.dark == (sample <= 12).mean()
    assert seen.saturated == (sample >= 250).mean()
    assert seen.middle == ((sample >= 4) & (sample <= 252)).mean()
    assert seen.flat == pytest.approx((np.abs(np.diff(sample.astype(int), axis=1)) <= 1).mean())
    grey = sample @ np.array([0.114, 0.587, 0.299])
    upper, lower = grey[: len(grey) // 2].mean(), grey[-(len(grey) // 2) :].mean()
    assert seen.upper == pytest.approx((upper + 1) / (upper + lower + 2), abs=1e-3)
    turned = np.ascontiguousarray(PICTURE[::-1, ::-1])
    assert look(turned, turned).upper == pytest.approx(1 - seen.upper, abs=0.03)
    assert seen.colour == pytest.approx((sample.max(axis=2).astype(int) - sample.min(axis=2)).mean())
    assert seen.checksum != look(PICTURE[:, ::-1], PICTURE).checksum
    assert look(noise(120, 5), PICTURE).coherence < 0.1
    assert seen.coherence > 0.5
    dim = np.ascontiguousarray(PICTURE // 2)
    assert (look(dim, dim).hash ^ seen.hash).bit_count() <= 3

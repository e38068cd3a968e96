"""An answer's own arithmetic: outlines of boxes, the least certainty of a trained head, and means of statistics."""

import dataclasses

import numpy as np
import pytest
from vedette_server.contract.answer import Detections, Evidence, PixelStatistics, least_certainty
from vedette_server.predictor.look import look

from tests.support.answers import PICTURE, answer

BOX = np.array([[1, 2, 5, 8]], np.float32)


def found(rotated: list[list[float]] | None = None) -> Detections:
    turned = None if rotated is None else np.array(rotated, np.float32)
    return Detections(
        boxes=BOX.repeat(2, axis=0),
        scores=np.ones(2, np.float32),
        class_ids=np.zeros(2, np.int32),
        rotated=turned,
    )


def test_an_upright_box_is_outlined_clockwise_from_its_upper_left() -> None:
    outline = found().outline(1)
    assert outline.tolist() == [[1, 2], [5, 2], [5, 8], [1, 8]]
    assert outline.dtype == np.float32


@pytest.mark.parametrize(
    ("degrees", "corners"),
    [
        (0, [[8, 19], [12, 19], [12, 21], [8, 21]]),
        (90, [[9, 22], [9, 18], [11, 18], [11, 22]]),  # counter-clockwise: its upper left is now at the lower left
        (180, [[12, 21], [8, 21], [8, 19], [12, 19]]),
        (-90, [[11, 18], [11, 22], [9, 22], [9, 18]]),
    ],
)
def test_a_rotated_box_is_outlined_from_its_own_upper_left(degrees: float, corners: list[list[float]]) -> None:
    outline = found([[0, 0, 1, 1, 0], [10, 20, 4, 2, degrees]]).outline(1)
    np.testing.assert_allclose(outline, corners, atol=1e-5)
    assert outline.dtype == np.float32


def test_a_slanted_box_keeps_its_edges() -> None:
    outline = found([[10, 20, 4, 2, 30]] * 2).outline(0)
    np.testing.assert_allclose(np.linalg.norm(np.diff(outline, axis=0), axis=1), [4, 2, 4], atol=1e-5)
    np.testing.assert_allclose(outline[1] - outline[0], [4 * np.cos(np.pi / 6), -4 * np.sin(np.pi / 6)], atol=1e-5)


@pytest.mark.parametrize(("classes", "least"), [(1, 0.625), (3, 0.4375), (1_203, 0.25 + 0.75 / 1_204)])
def test_a_head_is_random_up_to_a_quarter_of_the_way_to_certainty(classes: int, least: float) -> None:
    assert least_certainty(classes) == pytest.approx(least)


def test_the_best_class_is_that_of_the_best_score_if_anything_was_scored() -> None:
    scores = np.array([0.2, 0.6, 0.4], np.float32)
    seen = Evidence(best_scores=scores, scored=1)
    assert seen.best_class_id == 1
    assert seen.best_score == pytest.approx(0.6)
    for nothing in (Evidence(best_scores=scores), Evidence(best_scores=scores[:0], scored=1)):
        assert (nothing.best_class_id, nothing.best_score) == (None, None)


def test_statistics_are_means_over_the_channels_and_redness_is_even_for_grey() -> None:
    seen: PixelStatistics = dataclasses.replace(look(PICTURE, PICTURE), mean=(9.0, 20.0, 39.0), spread=(1.0, 2.0, 6.0))
    assert seen.brightness == pytest.approx(68 / 3)
    assert seen.contrast == 3
    assert seen.redness == 40 / 50
    assert dataclasses.replace(seen, mean=(39.0, 20.0, 9.0)).redness == 10 / 50
    assert dataclasses.replace(seen, mean=(39.0, 9.0)).redness == 0.5


def test_an_answer_is_empty_only_if_the_model_finds_objects() -> None:
    assert answer().empty
    assert not answer(scores=(0.9,)).empty
    assert not dataclasses.replace(answer(), detects=False).empty

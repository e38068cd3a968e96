"""`vedette compare`: which local object is held against which served one, and what the verdict is."""

import itertools

import numpy as np
import pytest
from pycocotools import mask as rle
from vedette_client.matching import LEAST_IOU, compare
from vedette_client.results import Detection, Mask

Box = tuple[float, float, float, float]
LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (30.0, 0.0, 40.0, 10.0)


def found(score: float, box: Box, class_id: int = 0, mask: Mask | None = None) -> Detection:
    return Detection(box=box, score=score, class_id=class_id, class_name=f"class {class_id}", mask=mask)


def mask(columns: int) -> Mask:
    pixels = np.zeros((10, 50), np.uint8, order="F")
    pixels[:, :columns] = 1
    return Mask(height=10, width=50, counts=rle.encode(pixels)["counts"])


def test_equal_detections_are_the_same() -> None:
    items = [found(0.9, LEFT, mask=mask(10)), found(0.8, RIGHT, 1, mask(7))]
    compared = compare(items, items, 0.5)
    assert compared.same
    assert compared.verdict == "the same (largest difference: score 0.0000, box 0.00 px, mask IoU 1.000)"


def test_nothing_and_nothing_are_the_same() -> None:
    assert compare([], [], 0.5).verdict == "the same (neither found anything)"


def test_the_best_score_takes_the_box_that_it_overlaps_most() -> None:
    local = [found(0.6, (0, 0, 10, 10)), found(0.9, (0, 0, 10, 11))]
    served = [found(0.7, (0, 0, 10, 12)), found(0.8, (0, 0, 10, 11))]
    first, second = compare(local, served, 0.5).both
    assert (first.local.score, first.served.score) == (0.9, 0.8)
    assert (second.local.score, second.served.score) == (0.6, 0.7)


def test_another_class_is_another_object() -> None:
    compared = compare([found(0.9, LEFT, 0)], [found(0.9, LEFT, 1)], 0.5)
    assert not compared.same
    assert compared.verdict == "they differ: 1 only local, 1 only served"


@pytest.mark.parametrize(("edge", "matched"), [(5.0, True), (4.9, False)])
def test_boxes_match_from_half_their_union(edge: float, matched: bool) -> None:  # noqa: FBT001  a parameter of the test
    assert LEAST_IOU == 0.5
    assert bool(compare([found(0.9, LEFT)], [found(0.9, (0, 0, 10, edge))], 0.5).both) is matched


def test_the_order_in_which_they_are_given_does_not_matter() -> None:
    items = [found(0.9, (0, 0, 10, 10)), found(0.9, (0, 1, 10, 11)), found(0.9, (0, 2, 10, 12)), found(0.9, RIGHT, 1)]
    outcomes = {compare(one, other, 0.5) for one in itertools.permutations(items) for other in (items, items[::-1])}
    assert len(outcomes) == 1


@pytest.mark.parametrize("other", [found(0.89, LEFT, mask=mask(10)), found(0.9, (0, 0, 10, 11), mask=mask(10)),
                                   found(0.9, LEFT, mask=mask(8))])  # fmt: skip
def test_what_lies_beyond_rounding_differs(other: Detection) -> None:
    compared = compare([found(0.9, LEFT, mask=mask(10))], [other], 0.5)
    assert not compared.same
    assert "1 of 1 found by both with another score, box or mask (largest difference: " in compared.verdict


def test_masks_count_only_where_both_have_one() -> None:
    compared = compare([found(0.9, LEFT, mask=mask(10))], [found(0.9, LEFT)], 0.5)
    assert compared.same
    assert compared.verdict == "the same (largest difference: score 0.0000, box 0.00 px)"
    empty = [found(0.9, LEFT, mask=mask(0))]
    assert compare(empty, empty, 0.5).same


def test_an_object_at_the_very_threshold_may_be_found_by_one_alone() -> None:
    compared = compare([found(0.5004, LEFT)], [], 0.5)
    assert compared.verdict == "the same (1 only local, right at the threshold)"
    assert not compare([found(0.5004, LEFT)], [], 0.3).same


def test_boxes_without_area_match_nothing() -> None:
    flat = [found(0.9, (5, 5, 5, 5))]
    assert not compare(flat, flat, 0.5).both

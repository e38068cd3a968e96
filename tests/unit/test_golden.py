"""Golden images: which seen object is held against which expected one, and what counts as a difference."""

import dataclasses
import io
import struct

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from vedette_server.contract.answer import Answer, Detections, Evidence, Mask, StageTimes
from vedette_server.repository.golden import ExpectedObject, Golden, agreed, difference, pairs, relabelled, tolerance

SIZE = (40, 60)
EXACT = tolerance("exact")
Box = tuple[float, float, float, float]
LEFT, RIGHT = (5.0, 5.0, 15.0, 15.0), (30.0, 5.0, 40.0, 15.0)


def counts(box: Box) -> bytes:
    pixels = np.zeros(SIZE, np.uint8, order="F")
    x0, y0, x1, y1 = map(int, box)
    pixels[y0:y1, x0:x1] = 1
    found: bytes = rle.encode(pixels)["counts"]
    return found


def expected(class_id: int, score: float, box: Box, mask: Box | None = None) -> ExpectedObject:
    return ExpectedObject(class_id, score, box, mask and counts(mask).decode())


def answer(*found: ExpectedObject) -> Answer:
    masks = tuple(Mask(counts=item.mask.encode()) for item in found if item.mask)
    detections = Detections(
        boxes=np.array([item.box for item in found], np.float32).reshape(-1, 4),
        scores=np.array([item.score for item in found], np.float32),
        class_ids=np.array([item.class_id for item in found], np.int32),
        masks=masks or None,
    )
    return Answer(
        height=SIZE[0],
        width=SIZE[1],
        threshold=0.5,
        detections=detections,
        evidence=Evidence(best_scores=np.zeros(3, np.float32)),
        times=StageTimes(0, 0, 0, 0),
    )


def golden(*objects: ExpectedObject) -> Golden:
    return Golden("street.png", b"", objects)


def test_what_was_written_down_is_no_difference() -> None:
    objects = expected(0, 0.9, LEFT, LEFT), expected(1, 0.8, RIGHT, RIGHT)
    assert difference(golden(*objects), answer(*objects), EXACT) is None
    assert difference(golden(), answer(), EXACT) is None
    hollow = expected(0, 0.9, LEFT, (0.0, 0.0, 0.0, 0.0))
    assert difference(golden(hollow), answer(hollow), EXACT) is None


def test_objects_that_change_places_in_the_order_of_scores_are_still_paired() -> None:
    wanted = expected(0, 0.9001, LEFT), expected(0, 0.9, RIGHT)
    seen = expected(0, 0.9002, RIGHT), expected(0, 0.9, LEFT)
    assert difference(golden(*wanted), answer(*seen), EXACT) is None
    assert [pair.box for pair in pairs(golden(*wanted), answer(*seen))] == [0, 0]


@pytest.mark.parametrize(("seen", "said"), [
    ((), "class 0 at (5.0, 5.0, 15.0, 15.0) is missing"),
    ((expected(1, 0.9, LEFT, LEFT),), "class 0 at (5.0, 5.0, 15.0, 15.0) is missing"),
    ((expected(0, 0.9, LEFT, LEFT), expected(0, 0.6, RIGHT, RIGHT)), "class 0 at (30.0, 5.0, 40.0, 15.0) is unexp"),
    ((expected(0, 0.898, LEFT, LEFT),), "class 0 scores 0.8980, not 0.9000"),
    ((expected(0, 0.9, (5.0, 5.0, 15.0, 15.6), LEFT),), "class 0 lies at (5.0, 5.0, 15.0, 15.6)"),
    ((expected(0, 0.9, RIGHT, RIGHT),), "class 0 lies at (30.0, 5.0, 40.0, 15.0)"),
    ((expected(0, 0.9, LEFT, RIGHT),), "mask of class 0 at (5.0, 5.0, 15.0, 15.0) differs (IoU 0.00)"),
    ((expected(0, 0.9, LEFT),), "mask of class 0"),
])  # fmt: skip
def test_a_difference_says_what_was_seen_and_what_was_expected(seen: tuple[ExpectedObject, ...], said: str) -> None:
    told = difference(golden(expected(0, 0.9, LEFT, LEFT)), answer(*seen), EXACT)
    assert told is not None
    assert told.startswith("street.png: ")
    assert said in told


def test_rounding_is_no_difference() -> None:
    near = expected(0, 0.9009, (5.4, 5.0, 15.0, 14.6), LEFT)
    assert difference(golden(expected(0, 0.9, LEFT, LEFT)), answer(near), EXACT) is None


def test_what_is_left_over_is_told_apart_by_side() -> None:
    wanted = expected(0, 0.9, LEFT), expected(2, 0.7, RIGHT)
    first, second, third = pairs(golden(*wanted), answer(expected(1, 0.8, RIGHT), expected(0, 0.9, LEFT)))
    assert (first.expected, first.box) == (wanted[0], 0)
    assert (second.expected, second.seen, second.score, second.box) == (wanted[1], None, None, None)
    assert third.expected is None
    assert third.seen is not None
    assert third.seen.class_id == 1


def test_another_version_agrees_by_place_and_class_name() -> None:
    wanted = golden(expected(0, 0.9, LEFT), expected(1, 0.8, RIGHT))
    near = (6.0, 5.0, 16.0, 15.0)
    again = answer(expected(0, 0.6, near), expected(1, 0.99, RIGHT), expected(0, 0.7, RIGHT))
    assert agreed(wanted, "ab", again, "ab") == 2
    assert agreed(wanted, "ab", again, "ba") == 1, "where two lie in one place, either may agree"
    assert agreed(wanted, "ab", answer(expected(0, 0.9, LEFT)), "ba") == 0
    assert agreed(wanted, "ab", answer(expected(1, 0.9, LEFT)), "ba") == 1
    assert agreed(wanted, "ab", answer(), "ab") == agreed(golden(), "ab", again, "ab") == 0


@pytest.mark.parametrize("mask", ["?A[2J\x14l", "5", "", "oooo", "é"])
def test_a_mask_that_is_none_agrees_with_no_other(mask: str) -> None:
    wanted = golden(ExpectedObject(0, 0.9, LEFT, mask))
    told = difference(wanted, answer(expected(0, 0.9, LEFT, LEFT)), EXACT)
    assert told is not None
    assert "(IoU 0.00)" in told


def test_labels_that_are_no_png_of_the_size_agree_with_none() -> None:
    grey = Image.new("L", SIZE[::-1], 7)
    answered = dataclasses.replace(answer(), class_map_png=saved(grey))
    assert relabelled(dataclasses.replace(golden(), labels=saved(grey)), answered) == 0
    huge = saved(grey).replace(struct.pack(">II", *SIZE[::-1]), struct.pack(">II", 50_000, 50_000))
    for labels in (b"", b"nothing", saved(grey)[:50], saved(grey, "GIF"), saved(grey.rotate(90, expand=True)), huge):
        for seen in (answered, answer()):
            assert relabelled(dataclasses.replace(golden(), labels=labels), seen) == 1


def saved(image: Image.Image, codec: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec)
    return buffer.getvalue()


def test_classes_without_a_name_agree_by_their_number() -> None:
    wanted = golden(expected(5, 0.9, LEFT))
    assert agreed(wanted, "ab", answer(expected(5, 0.9, LEFT)), "ab") == 1
    assert agreed(wanted, "ab", answer(expected(0, 0.9, LEFT)), "ab") == 0


def test_a_precision_without_a_tolerance_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tolerance is defined for the precision 'half'"):
        tolerance("half")

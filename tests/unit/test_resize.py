"""The gateway knows the size at which a model sees an image, as Detectron2 works it out, and refuses what has none."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from detectron2.data.transforms import ResizeShortestEdge
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from vedette_server.contract.answer import Detections
from vedette_server.contract.contract import ImageLimits, ResizeRule
from vedette_server.contract.convert import check
from vedette_server.contract.image import PixelFormat, RawImage, SentImage
from vedette_server.contract.mistakes import applicable, undo
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.resize import output_shape
from vedette_server.engine.estimate import resized
from vedette_server.predictor.draw import thumbnail
from vedette_server.predictor.look import look

from tests.support.contracts import contract

EDGES = st.integers(1, ImageLimits.max_edge) | st.integers(1, 64)
RULES = st.builds(ResizeRule, st.integers(1, 2000), st.integers(1, 4000) | st.just(2**31 - 1))


def detectron2(size: tuple[int, int], rule: ResizeRule) -> tuple[int, int]:
    rows, columns = ResizeShortestEdge.get_output_shape(*size, rule.shortest_edge, rule.longest_edge)
    return rows, columns


@settings(max_examples=5_000, deadline=None)
@given(height=EDGES, width=EDGES, rule=RULES)
@example(height=1, width=1024, rule=ResizeRule(384, 512))  # half a pixel: round() gives 0, Detectron2 1
@example(height=16, width=16_384, rule=ResizeRule(384, 512))
@example(height=1, width=1100, rule=ResizeRule(384, 512))
def test_the_size_is_detectron2s_own(height: int, width: int, rule: ResizeRule) -> None:
    assert output_shape((height, width), rule) == detectron2((height, width), rule)
    assert output_shape((width, height), rule) == output_shape((height, width), rule)[::-1], "turned by its EXIF data"


def test_the_size_is_detectron2s_own_for_every_small_picture_and_every_half() -> None:
    rule = ResizeRule(800, 1333)
    small = itertools.product(range(1, 200), range(1, 200))
    halves = ((edge, 2 * 1333 * edge) for edge in range(1, 7))
    for size in itertools.chain(small, halves):
        assert output_shape(size, rule) == detectron2(size, rule)


def test_what_is_not_resized_keeps_its_size() -> None:
    rule = ResizeRule(0, 100)
    image = np.zeros((3, 500, 3), np.uint8)
    assert output_shape((3, 500), rule) == (3, 500)
    assert ResizeShortestEdge([0, 0], 100).get_transform(image).apply_image(image).shape == image.shape
    assert resized((3, 500), rule) == (32, 512)


@pytest.mark.parametrize("size", [(1, 1024), (1024, 1), (16, 16_384)])
def test_an_estimate_never_holds_an_empty_size(size: tuple[int, int]) -> None:
    assert min(resized(size, ResizeRule(384, 512))) == 32


@pytest.mark.parametrize("size", [(1, 1024), (1024, 1), (1, 1), (2, 240)])
def test_the_smallest_and_longest_can_be_drawn_and_every_mistake_undone(size: tuple[int, int]) -> None:
    terms = dataclasses.replace(contract(), resize=ResizeRule(384, 512))
    shown = np.zeros((*output_shape(size, terms.resize), 3), np.uint8)
    found = Detections(
        boxes=np.array([[0, 0, 1, 1]], np.float32), scores=np.ones(1, np.float32), class_ids=np.zeros(1, np.int32)
    )
    with Image.open(io.BytesIO(thumbnail(shown, size, found, str))) as picture:
        assert min(picture.size) >= 1
        assert max(picture.size) <= 320
    for mistake in applicable(look(shown, shown), size, terms, 0.5):
        undone = undo(mistake, np.zeros((*size, 3), np.float32), terms)
        assert min(output_shape(undone.shape[:2], terms.resize)) >= 1


def send(size: tuple[int, int], rule: ResizeRule) -> None:
    spec = RawImage(PixelFormat.BGR8, *size)
    under = dataclasses.replace(contract(limits=ImageLimits(max_pixels=1_000_000)), resize=rule)
    check(SentImage(spec, bytes(3 * size[0] * size[1])), under)


@pytest.mark.parametrize("size", [(1, 1100), (4, 4200), (4200, 4), (7, 7200)])
def test_a_strip_that_resizing_leaves_without_an_edge_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(Refused) as caught:
        send(size, ResizeRule(384, 512))
    assert caught.value.reason is Reason.IMAGE_TOO_NARROW
    assert "0" in (caught.value.facts["resized_height"], caught.value.facts["resized_width"])
    assert (caught.value.facts["height"], caught.value.facts["width"]) == tuple(map(str, size))


def test_a_strip_that_a_rule_without_a_longest_edge_would_blow_up_is_refused() -> None:
    send((1, 1100), ResizeRule(800, 1333))
    send((3, 120), ResizeRule(800, 2**31 - 1))
    with pytest.raises(Refused) as caught:
        send((1, 1100), ResizeRule(800, 2**31 - 1))
    assert caught.value.reason is Reason.IMAGE_TOO_NARROW
    assert caught.value.facts["resized_width"] == "880000"

"""A refused image: the reason, what was seen, what would be allowed, and the values from which on it is refused."""

import dataclasses
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from vedette_server.contract import convert
from vedette_server.contract.contract import ImageLimits, Input, InputContract, ResizeRule, possible
from vedette_server.contract.image import (
    ChannelOrder,
    EncodedImage,
    ImageSpec,
    PixelFormat,
    RawImage,
    SentImage,
    TensorImage,
    TensorLayout,
    ValueRange,
    YuvMatrix,
    YuvRange,
)
from vedette_server.contract.refusal import Reason, Refused

from tests.support.contracts import contract

LIMITS = ImageLimits(max_bytes=100_000, max_pixels=10_000, max_edge=200)
TERMS = contract(inputs=possible(ChannelOrder.BGR), limits=LIMITS)
GREY_MODEL = dataclasses.replace(TERMS, channel_order=ChannelOrder.GRAY, pixel_mean=(100.0,), pixel_std=(1.0,))
BGR8, NV12, I420, RGBA8 = PixelFormat.BGR8, PixelFormat.NV12, PixelFormat.I420, PixelFormat.RGBA8
TO_255, TO_1 = ValueRange.TO_255, ValueRange.TO_1
LARGE = {"max_pixels": "10000", "max_edge": "200"}


def tensor(height: int, width: int, order: ChannelOrder = ChannelOrder.BGR) -> TensorImage:
    return TensorImage(order, TensorLayout.HWC, TO_255, height, width)


def yuv(height: int, width: int, stride: int | None = None, kind: PixelFormat = NV12) -> RawImage:
    return RawImage(kind, height, width, stride, YuvMatrix.BT709, YuvRange.FULL)


def check(spec: ImageSpec, size: int, terms: InputContract = TERMS) -> tuple[int, int]:
    return convert.check(SentImage(spec, bytes(size)), terms)


def length(given: int, expected: int, **facts: object) -> dict[str, str]:
    return {"bytes": str(given), "expected": str(expected)} | {name: str(fact) for name, fact in facts.items()}


OF_3_X_5 = {"height": 3, "width": 5}
ALL_BUT_GREY = "encoded, BGR8, RGB8, BGRA8, RGBA8, NV12, I420, tensor"

REFUSED: dict[str, tuple[ImageSpec, int, InputContract, Reason, dict[str, str]]] = {
    "a kind that the operator does not allow": (
        RawImage(PixelFormat.GRAY8, 2, 2),
        4,
        contract(),
        Reason.INPUT_NOT_ALLOWED,
        {"kind": "GRAY8", "allowed": ALL_BUT_GREY},
    ),
    "a file where only samples are allowed": (
        EncodedImage(),
        4,
        dataclasses.replace(TERMS, inputs=(Input.BGR8, Input.TENSOR)),
        Reason.INPUT_NOT_ALLOWED,
        {"kind": "encoded", "allowed": "BGR8, tensor"},
    ),
    "a tensor where only files are allowed": (
        tensor(2, 2),
        48,
        dataclasses.replace(TERMS, inputs=(Input.ENCODED,)),
        Reason.INPUT_NOT_ALLOWED,
        {"kind": "tensor", "allowed": "encoded"},
    ),
    "nothing": (EncodedImage(), 0, TERMS, Reason.IMAGE_MISSING, {}),
    "a byte too many": (
        EncodedImage(),
        100_001,
        TERMS,
        Reason.IMAGE_TOO_MANY_BYTES,
        {"bytes": "100001", "max_bytes": "100000"},
    ),
    "no height": (RawImage(BGR8, 0, 5), 1, TERMS, Reason.SIZE_INVALID, {"height": "0", "width": "5"}),
    "no width": (tensor(5, 0), 1, TERMS, Reason.SIZE_INVALID, {"height": "5", "width": "0"}),
    "a negative size": (RawImage(BGR8, -2, -5), 30, TERMS, Reason.SIZE_INVALID, {"height": "-2", "width": "-5"}),
    "too many pixels": (
        RawImage(BGR8, 101, 100),
        1,
        TERMS,
        Reason.IMAGE_TOO_LARGE,
        {"height": "101", "width": "100", **LARGE},
    ),
    "an edge too long": (tensor(1, 201), 1, TERMS, Reason.IMAGE_TOO_LARGE, {"height": "1", "width": "201", **LARGE}),
    "a stride within the row": (
        RawImage(BGR8, 20, 30, 89),
        1_780,
        TERMS,
        Reason.ROW_STRIDE_INVALID,
        {"row_stride": "89", "least": "90", "width": "30"},
    ),
    "a byte short": (
        RawImage(BGR8, 3, 5),
        44,
        TERMS,
        Reason.RAW_LENGTH_MISMATCH,
        length(44, 45, **OF_3_X_5, pixel_format="BGR8", row_stride=15),
    ),
    "padding of half the last row": (
        RawImage(BGR8, 3, 5, 17),
        50,
        TERMS,
        Reason.RAW_LENGTH_MISMATCH,
        length(50, 51, **OF_3_X_5, pixel_format="BGR8", row_stride=17),
    ),
    "NV12 without its last chroma": (
        yuv(3, 5),
        15 + 11,
        TERMS,
        Reason.RAW_LENGTH_MISMATCH,
        length(26, 27, **OF_3_X_5, pixel_format="NV12", row_stride=5),
    ),
    "NV12 without its last padding": (
        yuv(3, 5, 7),
        21 + 14,
        TERMS,
        Reason.RAW_LENGTH_MISMATCH,
        length(35, 37, **OF_3_X_5, pixel_format="NV12", row_stride=7),
    ),
    "NV12 that says nothing of its matrix": (
        RawImage(NV12, 3, 5),
        27,
        TERMS,
        Reason.YUV_UNDECLARED,
        {"pixel_format": "NV12"},
    ),
    "alpha that is not to be dropped": (
        RawImage(RGBA8, 3, 5),
        60,
        TERMS,
        Reason.ALPHA_NOT_DROPPED,
        {"field": "image.raw.drop_alpha", "format": "RGBA8"},
    ),
    "a grey tensor for a model of colours": (
        tensor(3, 5, ChannelOrder.GRAY),
        60,
        TERMS,
        Reason.CHANNELS_NOT_THE_MODELS,
        {"channel_order": "GRAY", "channels": "3", "allowed": "BGR or RGB"},
    ),
    "a tensor of colours for a grey model": (
        tensor(3, 5),
        180,
        GREY_MODEL,
        Reason.CHANNELS_NOT_THE_MODELS,
        {"channel_order": "BGR", "channels": "1", "allowed": "GRAY"},
    ),
    "a tensor of bytes": (
        tensor(3, 5),
        45,
        TERMS,
        Reason.TENSOR_LENGTH_MISMATCH,
        length(45, 180, **OF_3_X_5, channels=3),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_facts_say_what_was_seen_and_what_is_allowed(what: str) -> None:
    spec, size, terms, reason, facts = REFUSED[what]
    with pytest.raises(Refused) as caught:
        check(spec, size, terms)
    assert (caught.value.reason, caught.value.facts) == (reason, facts)


ACCEPTED: dict[str, tuple[ImageSpec, int]] = {
    "as many pixels as allowed": (RawImage(BGR8, 100, 100), 30_000),
    "as many bytes as allowed": (RawImage(BGR8, 100, 100, 1_000), 100_000),
    "as long an edge as allowed": (tensor(1, 200), 2_400),
    "one pixel": (RawImage(BGR8, 1, 1), 3),
    "the last row without its padding": (RawImage(BGR8, 3, 5, 17), 49),
    "the last row with its padding": (RawImage(BGR8, 3, 5, 17), 51),
    "NV12 of an odd size": (yuv(3, 5), 15 + 2 * 6),
    "NV12 of an odd stride": (yuv(3, 5, 7), 21 + 2 * 8),
    "NV12 of an even size": (yuv(4, 6), 24 + 2 * 6),
    "I420 of an odd size": (yuv(3, 5, kind=I420), 15 + 2 * 2 * 3),
    "I420 of an odd stride": (yuv(3, 5, 7, kind=I420), 21 + 2 * 2 * 4),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_lies_at_its_limit_is_accepted(what: str) -> None:
    spec, size = ACCEPTED[what]
    assert check(spec, size) == (spec.height, spec.width)  # type: ignore[union-attr]


FREE = ResizeRule(4_096, 2**31 - 1)  # without a longest edge


@pytest.mark.parametrize(
    ("rule", "size", "limit", "resized", "most"),
    [
        (ResizeRule(800, 1_333), (1, 2_667), 10**5, (0, 1_333), 40_000_000),
        (ResizeRule(800, 1_333), (2_667, 1), 10**5, (1_333, 0), 40_000_000),
        (FREE, (10, 24_000), 10**6, (4_096, 9_830_400), 40_000_000),
        (FREE, (10, 24_000), 5 * 10**7, (4_096, 9_830_400), 50_000_000),
    ],
)
def test_an_image_that_resizing_would_spoil_is_refused(
    rule: ResizeRule, size: tuple[int, int], limit: int, resized: tuple[int, int], most: int
) -> None:
    terms = dataclasses.replace(TERMS, resize=rule, limits=ImageLimits(10**7, limit, 30_000))
    with pytest.raises(Refused) as caught:
        check(RawImage(BGR8, *size), size[0] * size[1] * 3, terms)
    assert caught.value.reason is Reason.IMAGE_TOO_NARROW
    assert caught.value.facts == {
        "height": str(size[0]),
        "width": str(size[1]),
        "resized_height": str(resized[0]),
        "resized_width": str(resized[1]),
        "shortest_edge": str(rule.shortest_edge),
        "longest_edge": str(rule.longest_edge),
        "max_pixels": str(most),
    }


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (ResizeRule(800, 1_333), (1, 2_665)),
        (ResizeRule(800, 1_333), (2_665, 1)),
        (ResizeRule(4_000, 2**31 - 1), (10, 25)),  # to 40,000,000 pixels
    ],
)
def test_an_image_that_keeps_a_row_is_accepted(rule: ResizeRule, size: tuple[int, int]) -> None:
    terms = dataclasses.replace(TERMS, resize=rule, limits=ImageLimits(10**5, 10**5, 3_000))
    assert check(RawImage(BGR8, *size), size[0] * size[1] * 3, terms) == size


def test_a_fact_is_told_as_long_as_it_can_be_read() -> None:
    refusal = Refused(Reason.CLASS_UNKNOWN, asked="a" * 2_000, classes="b" * 2_001, most=5)
    assert refusal.facts == {"asked": "a" * 2_000, "classes": "b" * 2_000 + "…", "most": "5"}
    assert refusal.args == (Reason.CLASS_UNKNOWN, {"asked": "a" * 2_000, "classes": "b" * 2_001, "most": 5})


def values(*levels: float, value_range: ValueRange = TO_255) -> NDArray[np.uint8]:
    """Two pixels, of which the first channels are these levels."""
    samples = np.full(6, levels[-1], "<f4")
    samples[: len(levels)] = levels
    spec = TensorImage(ChannelOrder.BGR, TensorLayout.HWC, value_range, 1, 2)
    return convert.decode(SentImage(spec, samples.tobytes()))


def seen(lowest: str, highest: str, value_range: str = "0-255") -> dict[str, str]:
    return {"lowest": lowest, "highest": highest, "value_range": value_range}


@pytest.mark.parametrize(
    ("levels", "value_range", "reason", "facts"),
    [
        ((np.nan, np.inf, 1), TO_255, Reason.VALUES_NOT_FINITE, {"count": "2"}),
        ((-0.51, 7), TO_255, Reason.VALUES_NORMALISED, seen("-0.51", "7")),
        ((-0.0021, 1), TO_1, Reason.VALUES_NORMALISED, seen("-0.0021", "1", "0-1")),
        ((0, 0.5, 1), TO_255, Reason.VALUES_IN_UNIT_RANGE, seen("0", "1")),
        ((0, 255.6), TO_255, Reason.VALUES_OUT_OF_RANGE, seen("0", "255.6")),
        ((0, 1.0021), TO_1, Reason.VALUES_OUT_OF_RANGE, seen("0", "1.0021", "0-1")),
    ],
)
def test_values_are_refused_with_their_range(
    levels: tuple[float, ...], value_range: ValueRange, reason: Reason, facts: dict[str, str]
) -> None:
    with pytest.raises(Refused) as caught:
        values(*levels, value_range=value_range)
    assert (caught.value.reason, caught.value.facts) == (reason, facts)


@pytest.mark.parametrize(
    ("levels", "value_range", "wanted"),
    [
        ((-0.5, 0.4, 0.6, 254.4, 255.5), TO_255, [0, 0, 1, 254, 255, 255]),
        ((-0.0019, 0.25, 0.5, 1.0019), TO_1, [0, 64, 128, 255, 255, 255]),
        ((0, 1, 0, 1, 1), TO_255, [0, 1, 0, 1, 1, 1]),  # dark, but of whole levels
        ((0,), TO_255, [0] * 6),
        ((0.5, 1.5), TO_255, [0, 2, 2, 2, 2, 2]),
        ((-0.4, 0), TO_255, [0] * 6),
    ],
)
def test_values_may_reach_the_ends_of_their_range(
    levels: tuple[float, ...], value_range: ValueRange, wanted: list[int]
) -> None:
    pixels = values(*levels, value_range=value_range)
    assert pixels.ravel().tolist() == wanted
    assert pixels.dtype == np.uint8


def test_a_grey_model_sees_one_channel_of_yuv() -> None:
    grey = convert.decode(SentImage(yuv(4, 6), bytes([90] * 24 + [128] * 12)), 1)
    np.testing.assert_array_equal(grey, np.full((4, 6, 1), 90, np.uint8))


def test_planes_become_pixels_that_lie_in_a_row() -> None:
    sent = np.arange(12, dtype="<f4")
    spec = TensorImage(ChannelOrder.BGR, TensorLayout.CHW, TO_255, 2, 2)
    pixels = convert.decode(SentImage(spec, sent.tobytes()))
    np.testing.assert_array_equal(pixels, sent.reshape(3, 2, 2).transpose(1, 2, 0))
    assert pixels.flags.c_contiguous


def test_values_are_read_as_declared_even_if_they_would_be_refused() -> None:
    levels = np.array([[[-5, 0.5, 300], [1, 2, 3]]], "<f4")
    chw, rgb = TensorLayout.CHW, ChannelOrder.RGB
    image = SentImage(TensorImage(rgb, chw, TO_255, 1, 2), levels.transpose(2, 0, 1).tobytes())
    np.testing.assert_array_equal(convert.read(image), levels[:, :, ::-1])
    grey = SentImage(TensorImage(ChannelOrder.GRAY, chw, TO_1, 1, 6), levels.tobytes())
    np.testing.assert_allclose(convert.read(grey, 1), levels.reshape(1, 6, 1) * 255, rtol=1e-6)
    for spec, channels in ((RawImage(PixelFormat.CHANNELS8, 1, 2), 4), (RawImage(PixelFormat.GRAY8, 1, 8), 3)):
        read = convert.read(SentImage(spec, bytes(range(8))), channels)
        assert read.dtype == np.float32
        assert read.shape == (1, spec.width, channels)
        assert read[0, -1, -1] == 7
        np.testing.assert_array_equal(convert.decode(SentImage(spec, bytes(range(8))), channels), read)
    file = io.BytesIO()
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    for channels in (1, 3):
        image = SentImage(EncodedImage(), file.getvalue())
        read = convert.read(image, channels)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, convert.decode(image, channels))

"""Each mistake, made and undone, gives the picture back."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from vedette_server.contract.contract import ResizeRule
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.mistakes import IMAGENET, Mistake, applicable, undo
from vedette_server.contract.types import Float32Array, UInt8Array
from vedette_server.predictor.look import look

from tests.support.contracts import contract

RNG = np.random.default_rng(5)
PICTURE = RNG.integers(0, 256, (24, 40, 3), np.uint8)
CONTRACT = dataclasses.replace(
    contract(), channel_order=ChannelOrder.RGB, pixel_mean=(90.0, 100.0, 120.0), pixel_std=(60.0, 55.0, 50.0)
)
LEVELS = PICTURE.astype(np.float32)
BGR_MEAN, BGR_STD = np.array(CONTRACT.pixel_mean[::-1]), np.array(CONTRACT.pixel_std[::-1])

MADE = {
    Mistake.NONE: LEVELS,
    Mistake.CHANNELS_SWAPPED: LEVELS[:, :, ::-1],
    Mistake.UNIT_RANGE: LEVELS / 255,
    Mistake.SCALED_UP: LEVELS * 255,
    Mistake.NORMALISED: (LEVELS - BGR_MEAN) / BGR_STD,
    Mistake.NORMALISED_IMAGENET: (LEVELS - IMAGENET[0]) / IMAGENET[1],
    Mistake.ROTATED_90: np.rot90(LEVELS, -1),
    Mistake.ROTATED_180: np.rot90(LEVELS, -2),
    Mistake.ROTATED_270: np.rot90(LEVELS, -3),
    Mistake.MIRRORED: LEVELS[:, ::-1],
    Mistake.INVERTED: 255 - LEVELS,
    Mistake.CHW_AS_HWC: LEVELS.transpose(2, 0, 1).reshape(LEVELS.shape),
    Mistake.HWC_AS_CHW: LEVELS.reshape(3, *LEVELS.shape[:2]).transpose(1, 2, 0),
    Mistake.SIZE_SWAPPED: LEVELS.reshape(LEVELS.shape[1], LEVELS.shape[0], 3),
    Mistake.TOO_DARK: (LEVELS / 255) ** 2.2 * 255,
    Mistake.TOO_BRIGHT: (LEVELS / 255) ** (1 / 2.2) * 255,
    Mistake.THRESHOLD: LEVELS,
}


@pytest.mark.parametrize("mistake", MADE)
def test_what_was_made_is_undone(mistake: Mistake) -> None:
    made: Float32Array = np.ascontiguousarray(MADE[mistake], np.float32)
    undone: UInt8Array = undo(mistake, made, CONTRACT)
    np.testing.assert_array_equal(undone, PICTURE)
    assert undone.dtype == np.uint8


def test_every_other_mistake_loses_something_that_cannot_come_back() -> None:
    assert set(Mistake) - set(MADE) == {Mistake.COLOUR_FOR_GREY, Mistake.TOO_FAR}
    grey = undo(Mistake.COLOUR_FOR_GREY, LEVELS, CONTRACT)
    assert grey.shape == PICTURE.shape
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 1] == grey[..., 2]).all()
    assert np.abs(grey[..., 0] - LEVELS @ [0.114, 0.587, 0.299]).max() <= 0.5 + 1e-4


def test_the_middle_of_a_large_picture_is_shown_as_it_is() -> None:
    terms = dataclasses.replace(CONTRACT, resize=ResizeRule(8, 100))
    shown = undo(Mistake.TOO_FAR, LEVELS, terms)
    np.testing.assert_array_equal(shown, PICTURE[8:16, 13:26])


@pytest.mark.parametrize("signed", [False, True])
def test_normalised_values_that_were_cast_to_8_bits_come_back_roughly(*, signed: bool) -> None:
    values = (LEVELS - BGR_MEAN) / BGR_STD
    sent = values.astype(np.int8).view(np.uint8) if signed else np.clip(np.rint(values), 0, 255).astype(np.uint8)
    undone = undo(Mistake.NORMALISED, sent.astype(np.float32), CONTRACT).astype(np.float32)
    seen = slice(None) if signed else LEVELS > BGR_MEAN
    assert np.abs(undone - LEVELS)[seen].max() <= BGR_STD.max()


def test_normalised_values_that_are_whole_numbers_come_back_exactly() -> None:
    values = RNG.integers(-1, 3, PICTURE.shape)
    levels = (values * BGR_STD + BGR_MEAN).astype(np.uint8)
    sent = values.astype(np.int8).view(np.uint8).astype(np.float32)
    np.testing.assert_array_equal(undo(Mistake.NORMALISED, sent, CONTRACT), levels)


def test_the_lowest_signed_value_is_below_black_and_the_highest_above_white() -> None:
    sent = np.full((1, 1, 3), 128, np.float32), np.full((1, 1, 3), 127, np.float32)
    assert [undo(Mistake.NORMALISED, one, CONTRACT).max() for one in sent] == [0, 255]


def test_fractions_were_never_cast_even_if_none_is_negative() -> None:
    bright = LEVELS / 255 * 100 + 130
    sent = ((bright - BGR_MEAN) / BGR_STD).astype(np.float32)
    terms = dataclasses.replace(CONTRACT, pixel_std=(1.5, 1.5, 1.5))
    for model, made in ((CONTRACT, sent), (terms, (sent * BGR_STD / 1.5).astype(np.float32))):
        assert made.min() > 0
        undone = undo(Mistake.NORMALISED, made, model)
        np.testing.assert_allclose(undone, bright, atol=0.51)


def test_a_mean_that_was_subtracted_and_wrapped_comes_back_exactly() -> None:
    terms = dataclasses.replace(CONTRACT, pixel_std=(1.0, 1.0, 1.0))
    wrapped = (LEVELS - BGR_MEAN).astype(np.int16).astype(np.uint8)
    np.testing.assert_array_equal(undo(Mistake.NORMALISED, wrapped.astype(np.float32), terms), PICTURE)


def test_values_that_are_no_numbers_become_some() -> None:
    broken = LEVELS.copy()
    broken[0, 0] = np.nan, np.inf, -np.inf
    assert undo(Mistake.NONE, broken, CONTRACT)[0, 0].tolist() == [0, 255, 0]


def test_only_what_can_have_happened_is_tried() -> None:
    terms = dataclasses.replace(
        CONTRACT, pixel_mean=tuple(IMAGENET[0][::-1].tolist()), pixel_std=tuple(IMAGENET[1][::-1].tolist())
    )
    values = {Mistake.UNIT_RANGE, Mistake.SCALED_UP, Mistake.NORMALISED, Mistake.NORMALISED_IMAGENET}
    always = set(Mistake) - {Mistake.NONE} - values
    tiny, bright, large = PICTURE // 80, PICTURE | np.uint8(253), (2_000, 2_000)

    def tried(pixels: UInt8Array, size: tuple[int, int] = large, threshold: float = 0.5) -> set[Mistake]:
        return set(applicable(look(pixels, pixels), size, CONTRACT, threshold))

    assert tried(PICTURE) == always
    assert tried(tiny) == always | values - {Mistake.SCALED_UP}
    assert tried(bright) == always | values - {Mistake.UNIT_RANGE}
    assert tried(PICTURE, size=(24, 40)) == always - {Mistake.TOO_FAR}
    assert tried(PICTURE, size=(1_600, 1_600)) == always
    assert tried(PICTURE, size=(1_599, 1_600)) == always - {Mistake.TOO_FAR}
    assert tried(PICTURE, threshold=CONTRACT.floor) == always - {Mistake.THRESHOLD}
    same = set(applicable(look(tiny, tiny), large, terms, 0.5))
    assert same == always | {Mistake.UNIT_RANGE, Mistake.NORMALISED}
    subtracting = dataclasses.replace(CONTRACT, pixel_std=(1.0, 1.0, 1.0))
    assert Mistake.NORMALISED in applicable(look(PICTURE, PICTURE), large, subtracting, 0.5)


@pytest.mark.parametrize(
    ("changes", "tried"),
    [
        ({"highest": 3}, {Mistake.UNIT_RANGE, Mistake.NORMALISED, Mistake.NORMALISED_IMAGENET}),
        ({"highest": 4}, set()),
        ({"saturated": 0.5}, {Mistake.SCALED_UP}),
        ({"saturated": 0.49}, set()),
        ({"middle": 0.02}, set()),
        ({"middle": 0.019}, {Mistake.NORMALISED, Mistake.NORMALISED_IMAGENET}),
    ],
)
def test_values_are_suspected_from_their_limits_on(changes: dict[str, Any], tried: set[Mistake]) -> None:
    seen = dataclasses.replace(look(PICTURE, PICTURE), **changes)
    values = {Mistake.UNIT_RANGE, Mistake.SCALED_UP, Mistake.NORMALISED, Mistake.NORMALISED_IMAGENET}
    assert values & set(applicable(seen, (24, 40), CONTRACT, 0.5)) == tried


@pytest.mark.parametrize(("std", "tried"), [(1.9, True), (2.0, False)])
def test_a_model_that_only_subtracts_wraps_around(std: float, *, tried: bool) -> None:
    terms = dataclasses.replace(CONTRACT, pixel_std=(1.0, 1.0, std))
    assert (Mistake.NORMALISED in applicable(look(PICTURE, PICTURE), (24, 40), terms, 0.5)) == tried
    blue = undo(Mistake.NORMALISED, np.full((1, 1, 3), 250, np.float32), terms)[0, 0, 0]
    assert blue == (250 + 120 - 256 if tried else -6 * 2 + 120)


@pytest.mark.parametrize(("off", "tried"), [(0.9, False), (1.5, True)])
def test_imagenets_constants_are_tried_where_the_models_differ(off: float, *, tried: bool) -> None:
    mean, std = (IMAGENET[:, ::-1] + off).tolist()
    terms = dataclasses.replace(CONTRACT, pixel_mean=tuple(mean), pixel_std=tuple(std))
    tiny = look(PICTURE // 80, PICTURE // 80)
    assert (Mistake.NORMALISED_IMAGENET in applicable(tiny, (24, 40), terms, 0.5)) == tried

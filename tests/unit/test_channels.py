"""Channels of a model as its config says, and the consequences for inputs, findings and mistakes."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vedette_server.contract import files
from vedette_server.contract.contract import Input, InputContract, Names
from vedette_server.contract.derive import derive
from vedette_server.contract.image import ChannelOrder, EncodedImage, PixelFormat, RawImage, SentImage
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.contract.mistakes import Mistake, applicable, undo
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.predictor.look import brightness, entered, look

from tests.support.contracts import config

MEAN = [100.0, 110.0, 120.0, 90.0, 80.0, 130.0, 70.0, 60.0, 50.0, 40.0, 30.0, 20.0]


def contract(channels: int, image_format: str = "BGR", **settings: Any) -> InputContract:
    given = config(PIXEL_MEAN=MEAN[:channels], PIXEL_STD=[50.0] * channels)
    given["INPUT"]["FORMAT"] = image_format
    return derive(given, Names("ab"), source_digest="1", **settings)


@pytest.mark.parametrize(("channels", "image_format", "order", "seen"), [
    (1, "L", ChannelOrder.GRAY, 1),
    (1, "BGR", ChannelOrder.GRAY, 1),
    (3, "L", ChannelOrder.GRAY, 1),
    (3, "BGR", ChannelOrder.BGR, 3),
    (3, "RGB", ChannelOrder.RGB, 3),
    (2, "BGR", ChannelOrder.MODEL, 2),
    (4, "RGB", ChannelOrder.MODEL, 4),
    (12, "BGR", ChannelOrder.MODEL, 12),
])  # fmt: skip
def test_channels_follow_from_format_and_mean(channels: int, image_format: str, order: ChannelOrder, seen: int) -> None:
    derived = contract(channels, image_format)
    assert (derived.channel_order, derived.channels) == (order, seen)


@pytest.mark.parametrize("image_format", ["YUV-BT.601", "HSV", "RGBA", "CMYK", "I;16", "bgr", ""])
def test_a_format_that_cannot_be_served_is_refused_by_name(image_format: str) -> None:
    with pytest.raises(LoadRefusedError, match=rf"INPUT\.FORMAT is '{image_format}'.*Supported are BGR, RGB, L"):
        contract(3, image_format)


def test_more_than_eight_bits_are_refused_by_name() -> None:
    derive(config(PIXEL_MEAN=[255.0] * 3), Names("ab"), source_digest="1")
    with pytest.raises(LoadRefusedError, match="more than 8 bits"):
        derive(config(PIXEL_MEAN=[1353.0] * 12, PIXEL_STD=[200.0] * 12), Names("ab"), source_digest="1")


OF_COLOURS = "encoded, BGR8, RGB8, GRAY8, BGRA8, RGBA8, NV12, I420, tensor"


@pytest.mark.parametrize(("channels", "inputs", "taken"), [
    (4, ["BGR8", "8UCN", "encoded"], "8UCN, tensor"),
    (3, ["8UCN"], OF_COLOURS),
    (1, ["8UCN", "GRAY8"], OF_COLOURS),
])  # fmt: skip
def test_an_operator_cannot_allow_what_the_channels_do_not_permit(channels: int, inputs: list[str], taken: str) -> None:
    wrong = ", ".join(name for name in inputs if name not in taken)
    told = rf"model\.toml allows {wrong} as inputs of a model of {channels} channels, which takes {taken};"
    with pytest.raises(LoadRefusedError, match=told):
        contract(channels, inputs=[Input(name) for name in inputs])


def test_an_operator_may_narrow_inputs_and_colour_models_take_what_they_took() -> None:
    assert contract(4, inputs=[Input.TENSOR]).inputs == (Input.TENSOR,)
    assert contract(3).inputs == tuple(item for item in Input if item not in (Input.GRAY8, Input.CHANNELS8))
    assert contract(1).inputs == tuple(item for item in Input if item is not Input.CHANNELS8)
    assert contract(4).inputs == (Input.CHANNELS8, Input.TENSOR)


RNG = np.random.default_rng(3)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 12])
def test_statistics_are_of_every_channel(channels: int) -> None:
    pixels = RNG.integers(0, 256, (70, 66, channels), np.uint8)
    seen = look(pixels, pixels)
    np.testing.assert_allclose(seen.mean, pixels.mean(axis=(0, 1)))
    np.testing.assert_allclose(seen.spread, pixels.std(axis=(0, 1)))
    assert seen.colour == 0
    np.testing.assert_array_equal(brightness(pixels), np.rint(pixels.mean(axis=2, dtype=np.float32)))
    given = entered(pixels.astype(np.float32), tuple(MEAN[:channels]), (50.0,) * channels)
    np.testing.assert_allclose(given.mean, (pixels.mean(axis=(0, 1)) - MEAN[:channels]) / 50)


def test_a_grey_picture_is_itself_three_times_over() -> None:
    grey = RNG.integers(0, 256, (70, 66, 1), np.uint8)
    one, three = look(grey, grey), look(np.repeat(grey, 3, axis=2), np.repeat(grey, 3, axis=2))
    assert dataclasses.replace(three, mean=one.mean, spread=one.spread, checksum=one.checksum) == one
    assert entered(grey, (90.0, 100.0, 110.0), (50.0, 50.0, 50.0)).mean[0] > entered(grey, (110.0,), (50.0,)).mean[0]


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_mistakes_are_undone_whatever_the_channels(channels: int) -> None:
    terms = contract(channels)
    pixels = RNG.integers(0, 200, (24, 40, channels), np.uint8)
    levels, mean = pixels.astype(np.float32), np.array(MEAN[:channels], np.float32)
    made = {
        Mistake.NORMALISED: (levels - mean) / 50,
        Mistake.UNIT_RANGE: levels / 255,
        Mistake.ROTATED_90: np.rot90(levels, -1),
        Mistake.SIZE_SWAPPED: levels.reshape(40, 24, channels),
        Mistake.CHW_AS_HWC: levels.transpose(2, 0, 1).reshape(levels.shape),
        Mistake.HWC_AS_CHW: levels.reshape(channels, 24, 40).transpose(1, 2, 0),
    }
    for mistake, wrong in made.items():
        np.testing.assert_array_equal(undo(mistake, np.ascontiguousarray(wrong, np.float32), terms), pixels)
    for sent in (np.zeros_like(pixels), pixels, np.full_like(pixels, 255)):
        tried = applicable(look(sent, sent), (24, 40), terms, 0.5)
        for mistake in tried:
            assert undo(mistake, sent.astype(np.float32), terms).shape[2] == channels
        assert not {Mistake.CHANNELS_SWAPPED, Mistake.COLOUR_FOR_GREY, Mistake.NORMALISED_IMAGENET} & set(tried)
        assert (Mistake.CHW_AS_HWC in tried) == (channels > 1)


def test_a_grey_model_of_three_means_is_normalised_by_their_average() -> None:
    terms = contract(3, "L")
    pixels = RNG.integers(0, 256, (24, 40, 1), np.uint8)
    normalised = (pixels.astype(np.float32) - np.float32(110)) / np.float32(50)
    np.testing.assert_array_equal(undo(Mistake.NORMALISED, normalised, terms), pixels)


def npy(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), **options)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_on_disk_is_raw_samples(version: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (5, 6, 4), np.uint8)
    image = files.declare(npy(pixels, version=version), contract(4))
    assert image.spec == RawImage(PixelFormat.CHANNELS8, 5, 6)
    assert bytes(image.data) == pixels.tobytes()
    assert files.picture(npy(pixels)).size == (6, 5)
    image = files.declare(npy(pixels[:, :, :1].copy()), contract(1))
    assert image.spec == RawImage(PixelFormat.GRAY8, 5, 6)


PNG = io.BytesIO()
Image.new("RGBA", (6, 5)).save(PNG, "PNG")


UNREADABLE = "a .npy file that cannot be read"


@pytest.mark.parametrize(("data", "kind"), [
    (npy(np.zeros((5, 6, 3), np.uint8)), "a .npy file of uint8 and shape (5, 6, 3)"),
    (npy(np.zeros((5, 6), np.uint8)), "a .npy file of uint8 and shape (5, 6)"),
    (npy(np.zeros((5, 6, 4), np.float32)), "a .npy file of float32 and shape (5, 6, 4)"),
    (npy(np.asfortranarray(np.zeros((5, 6, 4), np.uint8))), "a .npy file of uint8 and shape (5, 6, 4)"),
    (npy(np.zeros((5, 6, 4), np.uint8))[:20], UNREADABLE),
    (npy(np.zeros((5, 6, 4), np.uint8), version=(3, 0)), UNREADABLE),
    (npy(np.array([{"a": 1}], object), allow_pickle=True), "a .npy file of object and shape (1,)"),
    (PNG.getvalue(), "encoded"),
])  # fmt: skip
def test_what_does_not_hold_the_channels_is_refused(data: bytes, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        files.declare(data, contract(4))
    assert caught.value.reason is Reason.INPUT_NOT_ALLOWED
    assert caught.value.facts["kind"] == kind
    assert "4 channels" in caught.value.facts["allowed"]


def test_a_model_of_colours_takes_image_files() -> None:
    for data in (b"whatever", npy(np.zeros((5, 6, 3), np.uint8))):
        assert files.declare(data, contract(3)) == SentImage(EncodedImage(), data)


def test_a_grey_model_takes_image_files_beside_arrays() -> None:
    assert files.declare(PNG.getvalue(), contract(1)) == SentImage(EncodedImage(), PNG.getvalue())


def test_a_file_is_shown_upright_and_an_array_as_the_average_of_its_channels() -> None:
    pixels = RNG.integers(0, 256, (5, 6, 4), np.uint8)
    grey = np.rint(pixels.mean(axis=2)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(files.picture(npy(pixels))), grey[:, :, None].repeat(3, axis=2))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 3  # upside down
    Image.fromarray(grey).save(file, "PNG", exif=exif)
    shown = np.asarray(files.picture(file.getvalue()))
    np.testing.assert_array_equal(shown, grey[::-1, ::-1, None].repeat(3, axis=2))


def test_an_array_of_objects_is_never_unpickled() -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        files.picture(npy(np.array([{"a": 1}], object), allow_pickle=True))

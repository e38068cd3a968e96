"""The known mistakes by which an image reaches a model as something else than was meant, and how each is undone.

Undoing works on pixels as they were declared, shape (height, width, channels), float32, BGR where there are three
channels; a mistaken image may well have values outside 0 to 255. What is about colours is tried on colours alone.
"""

from collections.abc import Callable
from enum import StrEnum

import numpy as np

from vedette_server.contract.answer import NO_MIDDLE, PixelStatistics
from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.types import Float32Array, UInt8Array

# torchvision's constants for models trained on ImageNet, times 255, as blue, green, red.
IMAGENET = np.array([[103.53, 116.28, 123.675], [57.375, 57.12, 58.395]], np.float32)
HIGHEST_NORMALISED = 3  # level of normalised values once they are 8 bits and cut at zero
_SCALED_UP = 0.5  # share of saturated samples that values multiplied by 255 exceed
_GAMMA = 2.2
_SUBTRACTED_ONLY = 2.0  # a standard deviation below it, as Caffe's models have, which only subtract the mean
_SIGNED = 128  # where an 8-bit sample that was cut from a negative value begins
_OF_COLOURS = ("CHANNELS_SWAPPED", "COLOUR_FOR_GREY", "NORMALISED_IMAGENET")
_OF_CHANNELS = ("CHW_AS_HWC", "HWC_AS_CHW")  # with one channel, both are the same
_LUMINANCE = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601, of blue, green, red


class Mistake(StrEnum):
    """What may have been done to an image, or to the question. Its own value undoes nothing: the image as sent."""

    NONE = "NONE"
    CHANNELS_SWAPPED = "CHANNELS_SWAPPED"
    UNIT_RANGE = "UNIT_RANGE"
    SCALED_UP = "SCALED_UP"
    NORMALISED = "NORMALISED"
    NORMALISED_IMAGENET = "NORMALISED_IMAGENET"
    ROTATED_90 = "ROTATED_90"
    ROTATED_180 = "ROTATED_180"
    ROTATED_270 = "ROTATED_270"
    MIRRORED = "MIRRORED"
    INVERTED = "INVERTED"
    COLOUR_FOR_GREY = "COLOUR_FOR_GREY"
    CHW_AS_HWC = "CHW_AS_HWC"
    HWC_AS_CHW = "HWC_AS_CHW"
    SIZE_SWAPPED = "SIZE_SWAPPED"
    TOO_FAR = "TOO_FAR"
    TOO_DARK = "TOO_DARK"
    TOO_BRIGHT = "TOO_BRIGHT"
    THRESHOLD = "THRESHOLD"  # of the question: undone by asking at the floor


Undo = Callable[[Float32Array, InputContract], Float32Array]


def undo(mistake: Mistake, pixels: Float32Array, contract: InputContract) -> UInt8Array:
    """The image as it would have been without the mistake, rounded and cut to 8 bits."""
    undone = _UNDO[mistake](pixels, contract)
    return np.ascontiguousarray(np.clip(np.rint(np.nan_to_num(undone)), 0, 255).astype(np.uint8))


def applicable(
    pixels: PixelStatistics, size: tuple[int, int], contract: InputContract, threshold: float
) -> list[Mistake]:
    """The mistakes that can have been made about an image of `size` (height, width) that looks so."""
    constants, channels = _constants(contract), contract.channels
    tiny = pixels.highest <= HIGHEST_NORMALISED
    normalised = tiny or pixels.middle < NO_MIDDLE
    impossible = {
        Mistake.NONE: True,
        Mistake.UNIT_RANGE: not tiny,
        Mistake.SCALED_UP: pixels.saturated < _SCALED_UP,
        Mistake.NORMALISED: not normalised and constants[1].max() >= _SUBTRACTED_ONLY,
        Mistake.NORMALISED_IMAGENET: not normalised or (channels == 3 and np.allclose(constants, IMAGENET, atol=1)),
        Mistake.TOO_FAR: _crop(*size, contract) is None,
        Mistake.THRESHOLD: threshold <= contract.floor,
    }
    without = (*(_OF_COLOURS if channels != 3 else ()), *(_OF_CHANNELS if channels == 1 else ()))
    return [mistake for mistake in Mistake if mistake not in without and not impossible.get(mistake, False)]


def _constants(contract: InputContract) -> Float32Array:
    """Means and standard deviations that the model normalises with: shape (2, channels), of three blue, green, red.

    A model that makes several channels of one grey has as many of them; their average stands for it.
    """
    step = -1 if contract.channel_order is ChannelOrder.RGB else 1
    constants = np.array([contract.pixel_mean[::step], contract.pixel_std[::step]], np.float32)
    grey: Float32Array = constants.mean(axis=1, keepdims=True)
    return grey if contract.channels == 1 else constants


def _denormalised(pixels: Float32Array, constants: Float32Array) -> Float32Array:
    """From normalised values to levels; 8-bit samples are read as what wraps around at zero when it is cast."""
    mean, std = constants
    if pixels.min() < 0 or (pixels % 1).any():
        levels = pixels * std + mean
    elif std.max() < _SUBTRACTED_ONLY:
        levels = (pixels + mean) % 256
    else:
        levels = np.where(pixels >= _SIGNED, pixels - 256, pixels) * std + mean
    return np.asarray(levels, np.float32)


def _normalised(pixels: Float32Array, contract: InputContract) -> Float32Array:
    return _denormalised(pixels, _constants(contract))


def _imagenet(pixels: Float32Array, _contract: InputContract) -> Float32Array:
    return _denormalised(pixels, IMAGENET)


def _grey(pixels: Float32Array, _contract: InputContract) -> Float32Array:
    return np.repeat(np.asarray(pixels @ _LUMINANCE, np.float32)[:, :, None], 3, axis=2)


def _planar(pixels: Float32Array, _contract: InputContract) -> Float32Array:
    height, width, channels = pixels.shape
    return pixels.reshape(channels, height, width).transpose(1, 2, 0)


def _interleaved(pixels: Float32Array, _contract: InputContract) -> Float32Array:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(pixels.shape)


def _crop(height: int, width: int, contract: InputContract) -> tuple[int, int] | None:
    """Height and width of the middle part that the model would see unreduced; None: hardly less than all of it."""
    edge = contract.resize.shortest_edge
    if not edge or min(height, width) < 2 * edge:
        return None
    return round(height * edge / min(height, width)), round(width * edge / min(height, width))


def _middle(pixels: Float32Array, contract: InputContract) -> Float32Array:
    height, width = pixels.shape[:2]
    rows, columns = _crop(height, width, contract) or (height, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def _power(exponent: float) -> Undo:
    return lambda pixels, _contract: np.power(np.clip(pixels, 0, 255) / 255, np.float32(exponent)) * 255


_UNDO: dict[Mistake, Undo] = {
    Mistake.NONE: lambda pixels, _contract: pixels,
    Mistake.CHANNELS_SWAPPED: lambda pixels, _contract: pixels[:, :, ::-1],
    Mistake.UNIT_RANGE: lambda pixels, _contract: pixels * np.float32(255),
    Mistake.SCALED_UP: lambda pixels, _contract: pixels * np.float32(1 / 255),
    Mistake.NORMALISED: _normalised,
    Mistake.NORMALISED_IMAGENET: _imagenet,
    Mistake.ROTATED_90: lambda pixels, _contract: np.rot90(pixels, 1),
    Mistake.ROTATED_180: lambda pixels, _contract: np.rot90(pixels, 2),
    Mistake.ROTATED_270: lambda pixels, _contract: np.rot90(pixels, 3),
    Mistake.MIRRORED: lambda pixels, _contract: pixels[:, ::-1],
    Mistake.INVERTED: lambda pixels, _contract: 255 - pixels,
    Mistake.COLOUR_FOR_GREY: _grey,
    Mistake.CHW_AS_HWC: _planar,
    Mistake.HWC_AS_CHW: _interleaved,
    Mistake.SIZE_SWAPPED: lambda pixels, _contract: pixels.reshape(pixels.shape[1], pixels.shape[0], -1),
    Mistake.TOO_FAR: _middle,
    Mistake.TOO_DARK: _power(1 / _GAMMA),
    Mistake.TOO_BRIGHT: _power(_GAMMA),
    Mistake.THRESHOLD: lambda pixels, _contract: pixels,
}

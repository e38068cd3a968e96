"""The known mistakes that alter an image on its way to a model, and the inverse of each.

Inverses work on the pixels as declared, shape (height, width, channels), float32, BGR if there are three channels. A
mistaken image may have values outside 0 to 255. Inverses of colour mistakes apply to colour images only.
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
HIGHEST_NORMALISED = 3  # highest level of normalised values after they are cast to 8 bits and clipped at zero
_SCALED_UP = 0.5  # share of saturated samples that values multiplied by 255 exceed
_GAMMA = 2.2
_SUBTRACTED_ONLY = 2.0  # standard deviations below it mark models that only subtract the mean, as Caffe's do
_SIGNED = 128  # first 8-bit sample that results from casting a negative value
_OF_COLOURS = ("CHANNELS_SWAPPED", "COLOUR_FOR_GREY", "NORMALISED_IMAGENET")
_OF_CHANNELS = ("CHW_AS_HWC", "HWC_AS_CHW")  # with one channel, both layouts are the same
_LUMINANCE = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601, for blue, green, red


class Mistake(StrEnum):
    """A mistake in an image or in the request. `NONE` undoes nothing and keeps the image as sent."""

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
    THRESHOLD = "THRESHOLD"  # in the request: undone by using the floor


Undo = Callable[[Float32Array, InputContract], Float32Array]


def undo(mistake: Mistake, pixels: Float32Array, contract: InputContract) -> UInt8Array:
    """Return the image without the mistake, rounded and clipped to 8 bits."""
    undone = _UNDO[mistake](pixels, contract)
    return np.ascontiguousarray(np.clip(np.rint(np.nan_to_num(undone)), 0, 255).astype(np.uint8))


def applicable(
    pixels: PixelStatistics, size: tuple[int, int], contract: InputContract, threshold: float
) -> list[Mistake]:
    """Return the mistakes possible in an image of `size` (height, width) with these statistics."""
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
    """Return the model's means and standard deviations: shape (2, channels); blue, green, red if three.

    A model that expands grey to several channels has one constant per channel; their average is returned.
    """
    step = -1 if contract.channel_order is ChannelOrder.RGB else 1
    constants = np.array([contract.pixel_mean[::step], contract.pixel_std[::step]], np.float32)
    grey: Float32Array = constants.mean(axis=1, keepdims=True)
    return grey if contract.channels == 1 else constants


def _denormalised(pixels: Float32Array, constants: Float32Array) -> Float32Array:
    """Convert normalised values to levels. 8-bit samples are assumed to have wrapped around at zero when cast."""
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
    """Return height and width of the centre that the model would see unreduced; None if that is nearly all."""
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

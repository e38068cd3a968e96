"""Pictures in our folders: image files, or NumPy arrays of channels that no image file can hold."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vedette_server.contract.contract import Input, InputContract
from vedette_server.contract.image import ChannelOrder, EncodedImage, PixelFormat, RawImage, SentImage
from vedette_server.contract.refusal import Reason, Refused

_MAGIC = b"\x93NUMPY"  # of the .npy format
_HEADERS: dict[tuple[int, int], Callable[[Any], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
ARRAYS = "a .npy file of {channels} channels: uint8, shape (height, width, {channels}), row by row"


def declare(data: bytes, contract: InputContract) -> SentImage:
    """Return a file as an image, for a model with this contract.

    Raises `Refused`, INPUT_NOT_ALLOWED, for an image file that cannot hold the model's channels, or an array with other
    channels.
    """
    if not data.startswith(_MAGIC) or contract.channels == 3:
        if contract.channel_order is ChannelOrder.MODEL:
            raise _refused(Input.ENCODED, contract)
        return SentImage(EncodedImage(), data)
    file = io.BytesIO(data)
    try:
        shape, by_column, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise _refused("a .npy file that cannot be read", contract) from error
    if dtype != np.uint8 or by_column or len(shape) != 3 or shape[2] != contract.channels:
        kind = f"a .npy file of {dtype} and shape {shape}"
        raise _refused(kind, contract)
    pixel_format = PixelFormat.GRAY8 if contract.channels == 1 else PixelFormat.CHANNELS8
    return SentImage(RawImage(pixel_format, shape[0], shape[1]), memoryview(data)[file.tell() :])


def picture(data: bytes) -> Image.Image:
    """Render such a file for viewing: RGB, upright; an array becomes the average of its channels."""
    if data.startswith(_MAGIC):
        channels = np.load(io.BytesIO(data), allow_pickle=False)
        return Image.fromarray(np.rint(channels.mean(axis=2)).astype(np.uint8)).convert("RGB")
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _refused(kind: str, contract: InputContract) -> Refused:
    return Refused(Reason.INPUT_NOT_ALLOWED, kind=kind, allowed=ARRAYS.format(channels=contract.channels))

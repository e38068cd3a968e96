"""Colour to grey for grey models, as Detectron2's `read_image(path, "L")` does it, through Pillow."""

import numpy as np
from PIL import Image

from vedette_server.contract.types import UInt8Array


def fitted(bgr: UInt8Array, channels: int) -> UInt8Array:
    """Convert BGR to the channels of a model with one or three: shape (height, width, channels)."""
    if channels != 1:
        return bgr
    rgb = Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))
    return np.asarray(rgb.convert("L"))[:, :, None]

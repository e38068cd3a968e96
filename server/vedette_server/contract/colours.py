"""Colours for a model that has none: grey as Detectron2's `read_image(path, "L")` makes it, which is Pillow's."""

import numpy as np
from PIL import Image

from vedette_server.contract.types import UInt8Array


def fitted(bgr: UInt8Array, channels: int) -> UInt8Array:
    """Colours, BGR, as a model of three channels or of one takes them: shape (height, width, channels)."""
    if channels != 1:
        return bgr
    rgb = Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))
    return np.asarray(rgb.convert("L"))[:, :, None]

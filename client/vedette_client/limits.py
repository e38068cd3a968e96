"""A model's limits, and lossless compression of pixels to fit them."""

import io
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import image_pb2

from vedette_client import arguments
from vedette_client.errors import LocalError, ServerError
from vedette_client.results import Contract

Buffer: TypeAlias = bytes | memoryview
Limits: TypeAlias = Callable[[], Contract | None]  # only called for large images; None: unavailable

_LARGE = 2**20  # bytes, above which it pays to ask for the model's limits
MOST_BYTES = 2**31 - 2**20  # of an image within a message, in every Protobuf implementation
_REMEMBERED_SECONDS = 60.0
_COLOURS: dict[int, tuple[Any, int]] = {  # positions of red, green and blue in a pixel, and samples per pixel
    image_pb2.PIXEL_FORMAT_BGR8: (slice(2, None, -1), 3),
    image_pb2.PIXEL_FORMAT_RGB8: (slice(3), 3),
    image_pb2.PIXEL_FORMAT_GRAY8: (0, 1),
    image_pb2.PIXEL_FORMAT_BGRA8: (slice(2, None, -1), 4),
    image_pb2.PIXEL_FORMAT_RGBA8: (slice(3), 4),
}
_FAST = 1  # zlib level: a third of the default's time, and hardly larger


def none() -> None:
    """Return None: the limits are unknown."""


class Remembered:
    """A cache of contracts, each for a minute, because an operator may change the limits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._contracts: dict[object, tuple[float, Contract]] = {}

    def get(self, ask: Mapping[str, Any], fetch: Callable[[], Contract]) -> Contract | None:
        """Return the requested model's contract; None if it is unavailable: the call itself will report the reason."""
        model, now = (ask.get("model"), ask.get("version")), self._clock()
        fetched, contract = self._contracts.get(model, (0.0, None))
        if contract is None or now - fetched >= _REMEMBERED_SECONDS:
            try:
                contract = fetch()
            except ServerError:
                return None
            self._contracts[model] = now, contract
        return contract


def edge(value: object, name: str) -> int:
    """Validate a height or a width. Raises `LocalError`."""
    pixels = arguments.whole(value, name)
    if pixels < 1:
        msg = f"{name} is {pixels}: an image needs at least one pixel"
        raise LocalError(msg, "SIZE_INVALID")
    return pixels


def check_size(height: int, width: int, size: int, known: Limits) -> Contract | None:
    """Refuse images with more pixels than the model takes; return its contract if an image of `size` bytes is large."""
    contract = known() if size > _LARGE else None
    if contract and (height * width > contract.max_pixels or max(height, width) > contract.max_edge):
        msg = (
            f"the image is {width} x {height} pixels; this model takes at most {contract.max_pixels} in all and "
            f"{contract.max_edge} per edge. Scale it down, or have the operator raise [limits] in model.toml"
        )
        raise LocalError(msg, "IMAGE_TOO_LARGE")
    return contract


def fits(data: bytes, known: Limits) -> bool:
    """Return whether a file can be sent unchanged."""
    contract = known() if len(data) > _LARGE else None
    return contract is None or (len(data) <= contract.max_bytes and "encoded" in contract.inputs)


def fit(declared: image_pb2.Image, data: Buffer, known: Limits) -> tuple[image_pb2.Image, Buffer]:
    """Compress pixels that exceed the model's bytes, without loss. Raises `LocalError` if they still exceed them."""
    size = len(data)
    spec = declared.tensor if declared.HasField("tensor") else declared.raw
    contract = check_size(spec.height, spec.width, size, known)
    most = min(contract.max_bytes, MOST_BYTES) if contract else MOST_BYTES
    if size <= most:
        return declared, data
    seen = f"the image has {size} bytes"
    if contract and declared.raw.pixel_format in _COLOURS and "encoded" in contract.inputs:
        png = _png(declared.raw, data)
        if len(png) <= most:
            upright = image_pb2.EncodedImage(orientation=image_pb2.ORIENTATION_IGNORE)
            return image_pb2.Image(encoded=upright), png
        seen += f", and {len(png)} as a PNG"
    msg = (
        f"{seen}; the limit is {most}. Send it as the bytes of a JPEG, scale it down, or have the operator raise "
        "limits.max_bytes in model.toml"
    )
    raise LocalError(msg, "IMAGE_TOO_MANY_BYTES")


def _png(spec: image_pb2.RawImage, data: Buffer) -> bytes:
    """Encode the same pixels as a file, without alpha."""
    colours, channels = _COLOURS[spec.pixel_format]
    stride = spec.row_stride if spec.HasField("row_stride") else spec.width * channels
    shape, strides = (spec.height, spec.width, channels), (stride, channels, 1)
    samples: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
    pixels = np.lib.stride_tricks.as_strided(samples, shape, strides, writeable=False)  # the last row may be shorter
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., colours])).save(written, "PNG", compress_level=_FAST)
    return written.getvalue()

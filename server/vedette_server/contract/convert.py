"""Conversion of a caller's image to pixels, exactly once.

`check` reads only sizes and headers and is cheap enough for the gateway. `decode` runs in a worker, produces the
pixels, and finds the faults that only pixels show. Every image becomes HWC, uint8, 0 to 255. Colours become BGR, as
Detectron2's `DefaultPredictor` takes them, whatever the model's own channel order. A model with one channel receives
grey. A model with any other number of channels receives them as sent, in its own order.
"""

import numpy as np

from vedette_server.contract import encoded, raw, tensor
from vedette_server.contract.contract import ImageLimits, Input, InputContract
from vedette_server.contract.image import EncodedImage, ImageSpec, RawImage, SentImage, TensorImage
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.resize import output_shape
from vedette_server.contract.types import Float32Array, UInt8Array

_MOST_RESIZED = ImageLimits.max_pixels  # of an image after resizing, even if the limit for callers is lower


def check(image: SentImage, contract: InputContract) -> tuple[int, int]:
    """Refuse an image that its declaration, header or length shows to be wrong, without decoding it.

    Returns the height and width from the header or the declaration, in pixels. Raises `Refused` with one of the
    IMAGE_*, RAW_*, TENSOR_* and INPUT_* reasons.
    """
    spec, data = image.spec, image.data
    kind = _kind(spec)
    if kind not in contract.inputs:
        raise Refused(Reason.INPUT_NOT_ALLOWED, kind=kind, allowed=", ".join(contract.inputs))
    if not len(data):
        raise Refused(Reason.IMAGE_MISSING)
    limits = contract.limits
    if len(data) > limits.max_bytes:
        raise Refused(Reason.IMAGE_TOO_MANY_BYTES, bytes=len(data), max_bytes=limits.max_bytes)
    match spec:
        case EncodedImage():
            size = encoded.size(data)
            _check_size(*size, limits)
        case RawImage():
            size = spec.height, spec.width
            _check_size(*size, limits)
            raw.check(spec, data, contract.channels)
        case TensorImage():
            size = spec.height, spec.width
            _check_size(*size, limits)
            tensor.check(spec, data, contract.channel_order, contract.channels)
    _check_resized(size, contract)
    return size


def _kind(spec: ImageSpec) -> Input:
    match spec:
        case EncodedImage():
            return Input.ENCODED
        case RawImage():
            return Input(spec.pixel_format)
        case TensorImage():
            return Input.TENSOR


def _check_size(height: int, width: int, limits: ImageLimits) -> None:
    if height <= 0 or width <= 0:
        raise Refused(Reason.SIZE_INVALID, height=height, width=width)
    if height * width > limits.max_pixels or max(height, width) > limits.max_edge:
        raise Refused(
            Reason.IMAGE_TOO_LARGE,
            height=height,
            width=width,
            max_pixels=limits.max_pixels,
            max_edge=limits.max_edge,
        )


def _check_resized(size: tuple[int, int], contract: InputContract) -> None:
    """Refuse images that resizing would reduce to nothing, or blow up if the rule has no longest edge."""
    height, width = size
    rows, columns = output_shape(size, contract.resize)
    most = max(contract.limits.max_pixels, height * width, _MOST_RESIZED)
    if not rows or not columns or rows * columns > most:
        raise Refused(
            Reason.IMAGE_TOO_NARROW,
            height=height,
            width=width,
            resized_height=rows,
            resized_width=columns,
            shortest_edge=contract.resize.shortest_edge,
            longest_edge=contract.resize.longest_edge,
            max_pixels=most,
        )


def decode(image: SentImage, channels: int = 3) -> UInt8Array:
    """Decode an image that `check` has passed: uint8, shape (height, width, channels); BGR if three channels.

    Raises `Refused` for faults that only the pixels show.
    """
    match image.spec:
        case EncodedImage() as spec:
            return encoded.decode(spec, image.data, channels)
        case RawImage() as spec:
            return raw.decode(spec, image.data, channels)
        case TensorImage() as spec:
            return tensor.decode(spec, image.data, channels)


def read(image: SentImage, channels: int = 3) -> Float32Array:
    """Decode an image that `check` has passed, trusting its declaration: shape (height, width, channels).

    Values are levels, 0 to 255 in a correct image. Values that `decode` would refuse are returned unchanged.
    """
    match image.spec:
        case EncodedImage() as spec:
            return encoded.decode(spec, image.data, channels).astype(np.float32)
        case RawImage() as spec:
            return raw.read(spec, image.data, channels).astype(np.float32)
        case TensorImage() as spec:
            return tensor.read(spec, image.data, channels)

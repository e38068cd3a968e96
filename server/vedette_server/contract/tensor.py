"""Floating-point pixels, accepted only if their values agree with their declaration.

They are rounded to 8 bits, because models are trained on those, and because Detectron2 resizes floats without
antialiasing.
"""

import numpy as np

from vedette_server.contract import planes
from vedette_server.contract.image import Buffer, ChannelOrder, TensorImage, TensorLayout, ValueRange
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.types import Float32Array, UInt8Array

_BYTES = 4  # per sample
_HIGHEST = {ValueRange.TO_255: 255.0, ValueRange.TO_1: 1.0}
_SLACK = 0.5 / 255  # of the range: rounds to its end


def check(spec: TensorImage, data: Buffer, own: ChannelOrder, channels: int) -> None:
    """Refuse channels other than the model's, whose order is `own`, and a length that contradicts the size.

    Raises `Refused`: CHANNELS_NOT_THE_MODELS, TENSOR_LENGTH_MISMATCH.
    """
    if spec.channel_order not in (allowed := orders(own)):
        raise Refused(
            Reason.CHANNELS_NOT_THE_MODELS,
            channel_order=spec.channel_order,
            channels=channels,
            allowed=" or ".join(allowed),
        )
    expected = spec.height * spec.width * channels * _BYTES
    if len(data) != expected:
        raise Refused(
            Reason.TENSOR_LENGTH_MISMATCH,
            bytes=len(data),
            expected=expected,
            height=spec.height,
            width=spec.width,
            channels=channels,
        )


def orders(own: ChannelOrder) -> tuple[ChannelOrder, ...]:
    """Return the channel orders accepted by a model whose order is `own`: either for colours, else its own."""
    colours = (ChannelOrder.BGR, ChannelOrder.RGB)
    return colours if own in colours else (own,)


def decode(spec: TensorImage, data: Buffer, channels: int) -> UInt8Array:
    """Convert a tensor that `check` has passed: uint8, shape (height, width, channels); BGR if three channels.

    Raises `Refused`: VALUES_NOT_FINITE, VALUES_NORMALISED, VALUES_IN_UNIT_RANGE, VALUES_OUT_OF_RANGE,
    LAYOUT_CONTRADICTED.
    """
    values = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    _check_values(spec, values)
    if channels == 3:
        _check_layout(spec, values)
    rounded: Float32Array = np.clip(np.rint(read(spec, data, channels)), 0, 255)
    return rounded.astype(np.uint8, order="C")


def read(spec: TensorImage, data: Buffer, channels: int) -> Float32Array:
    """Scale the same pixels to levels before rounding, trusting their declaration, whatever their values."""
    values = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    if spec.layout is TensorLayout.CHW:
        pixels = values.reshape(channels, spec.height, spec.width).transpose(1, 2, 0)
    else:
        pixels = values.reshape(spec.height, spec.width, channels)
    if spec.channel_order is ChannelOrder.RGB:
        pixels = pixels[:, :, ::-1]
    scaled: Float32Array = pixels * np.float32(255 / _HIGHEST[spec.value_range])
    return scaled


def _check_values(spec: TensorImage, values: Float32Array) -> None:
    lowest, highest = float(values.min()), float(values.max())
    facts = {"lowest": f"{lowest:g}", "highest": f"{highest:g}", "value_range": spec.value_range}
    if not np.isfinite(lowest + highest):  # NaN and both infinities carry over to the sum
        raise Refused(Reason.VALUES_NOT_FINITE, count=int((~np.isfinite(values)).sum()))
    full = _HIGHEST[spec.value_range]
    if lowest < -_SLACK * full:
        raise Refused(Reason.VALUES_NORMALISED, **facts)
    if spec.value_range is ValueRange.TO_255 and 0 < highest <= 1 and (values % 1).any():
        raise Refused(Reason.VALUES_IN_UNIT_RANGE, **facts)
    if highest > full * (1 + _SLACK):
        raise Refused(Reason.VALUES_OUT_OF_RANGE, **facts)


def _check_layout(spec: TensorImage, values: Float32Array) -> None:
    interleaved = spec.layout is TensorLayout.HWC
    contradicted = planes.look_planar if interleaved else planes.look_interleaved
    if contradicted(values, spec.height, spec.width):
        seen = TensorLayout.CHW if interleaved else TensorLayout.HWC
        raise Refused(Reason.LAYOUT_CONTRADICTED, field="image.tensor.layout", declared=spec.layout, seen=seen)

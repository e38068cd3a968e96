"""Raw 8-bit samples: interleaved colours, grey, a model's own channels, and decoders' two usual YUV layouts."""

from dataclasses import dataclass

import numpy as np

from vedette_server.contract import colours, planes
from vedette_server.contract.image import Buffer, PixelFormat, RawImage, YuvMatrix, YuvRange
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.types import Float32Array, UInt8Array

_CHANNELS = {
    PixelFormat.BGR8: 3,
    PixelFormat.RGB8: 3,
    PixelFormat.GRAY8: 1,
    PixelFormat.BGRA8: 4,
    PixelFormat.RGBA8: 4,
}
_WITH_ALPHA = (PixelFormat.BGRA8, PixelFormat.RGBA8)
_RED_FIRST = (PixelFormat.RGB8, PixelFormat.RGBA8)

# ITU-R BT.601-7 and BT.709-6: the weights of red and blue in luma.
_WEIGHTS = {YuvMatrix.BT601: (0.299, 0.114), YuvMatrix.BT709: (0.2126, 0.0722)}


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The memory layout of an image's samples."""

    packed: int  # bytes per row of the first plane
    stride: int  # bytes from row to row of the first plane
    chroma_rows: int  # per chroma plane
    chroma_stride: int  # bytes from row to row of a chroma plane
    chroma_planes: int

    def lengths(self, height: int) -> tuple[int, int]:
        """Return the bytes of all planes, with and without padding after the last row of interleaved samples."""
        chroma = self.chroma_planes * self.chroma_rows * self.chroma_stride
        full = self.stride * height + chroma
        return full, full if chroma else full - self.stride + self.packed


def _interleaved(spec: RawImage, model: int) -> int:
    """Return the samples per pixel, `model` being the model's channels; 0 for planar formats."""
    return model if spec.pixel_format is PixelFormat.CHANNELS8 else _CHANNELS.get(spec.pixel_format, 0)


def _layout(spec: RawImage, model: int) -> _Layout:
    if channels := _interleaved(spec, model):
        packed = spec.width * channels
        return _Layout(packed=packed, stride=_stride(spec, packed), chroma_rows=0, chroma_stride=0, chroma_planes=0)
    stride, rows = _stride(spec, spec.width), -(-spec.height // 2)
    if spec.pixel_format is PixelFormat.NV12:
        return _Layout(
            packed=spec.width, stride=stride, chroma_rows=rows, chroma_stride=stride + stride % 2, chroma_planes=1
        )
    return _Layout(packed=spec.width, stride=stride, chroma_rows=rows, chroma_stride=-(-stride // 2), chroma_planes=2)


def _stride(spec: RawImage, packed: int) -> int:
    return packed if spec.row_stride is None else spec.row_stride


def check(spec: RawImage, data: Buffer, channels: int) -> None:
    """Refuse a declaration that contradicts itself or the data's length; `channels` are the model's.

    Raises `Refused`: ROW_STRIDE_INVALID, RAW_LENGTH_MISMATCH, YUV_UNDECLARED, ALPHA_NOT_DROPPED.
    """
    layout = _layout(spec, channels)
    if layout.stride < layout.packed:
        raise Refused(Reason.ROW_STRIDE_INVALID, row_stride=layout.stride, least=layout.packed, width=spec.width)
    if len(data) not in (lengths := layout.lengths(spec.height)):
        raise Refused(
            Reason.RAW_LENGTH_MISMATCH,
            bytes=len(data),
            expected=lengths[0],
            height=spec.height,
            width=spec.width,
            pixel_format=spec.pixel_format,
            row_stride=layout.stride,
        )
    declared = spec.yuv_matrix is not None and spec.yuv_range is not None
    undeclared = spec.yuv_matrix is None and spec.yuv_range is None
    if not (declared if layout.chroma_planes else undeclared):
        raise Refused(Reason.YUV_UNDECLARED, pixel_format=spec.pixel_format)
    if spec.pixel_format in _WITH_ALPHA and not spec.drop_alpha:
        raise Refused(Reason.ALPHA_NOT_DROPPED, field="image.raw.drop_alpha", format=spec.pixel_format)


def decode(spec: RawImage, data: Buffer, channels: int) -> UInt8Array:
    """Convert samples that `check` has passed: uint8, shape (height, width, channels); BGR if three channels.

    Raises `Refused`: LAYOUT_CONTRADICTED.
    """
    layout = _layout(spec, channels)
    interleaved = _CHANNELS.get(spec.pixel_format) == 3 and layout.stride == layout.packed
    if interleaved and planes.look_planar(np.frombuffer(data, np.uint8), spec.height, spec.width):
        raise Refused(Reason.LAYOUT_CONTRADICTED, field="image.raw.data", declared="HWC", seen="CHW")
    return read(spec, data, channels)


def read(spec: RawImage, data: Buffer, channels: int) -> UInt8Array:
    """Convert the same samples, trusting their declaration."""
    samples = np.frombuffer(data, np.uint8)
    sent = _interleaved(spec, channels)
    if not sent:
        return colours.fitted(_from_yuv(spec, samples), channels)
    layout = _layout(spec, channels)
    shape, strides = (spec.height, spec.width, sent), (layout.stride, sent, 1)
    pixels = np.lib.stride_tricks.as_strided(samples, shape, strides, writeable=False)
    if spec.pixel_format is PixelFormat.CHANNELS8:
        return np.ascontiguousarray(pixels)
    if sent == 1:
        return np.repeat(pixels, channels, axis=2)
    bgr = pixels[:, :, 2::-1] if spec.pixel_format in _RED_FIRST else pixels[:, :, :3]
    return colours.fitted(np.ascontiguousarray(bgr), channels)


def _from_yuv(spec: RawImage, samples: UInt8Array) -> UInt8Array:
    """Convert YUV to BGR: replicate chroma over its 2 x 2 pixels, apply ITU-R's formula, and round."""
    layout = _layout(spec, 0)
    luma = samples[: layout.stride * spec.height].reshape(spec.height, layout.stride)[:, : spec.width]
    shape = (layout.chroma_planes, layout.chroma_rows, layout.chroma_stride)
    chroma = samples[layout.stride * spec.height :].reshape(shape)
    columns = -(-spec.width // 2)
    if spec.pixel_format is PixelFormat.NV12:
        u, v = chroma[0, :, : 2 * columns : 2], chroma[0, :, 1 : 2 * columns : 2]
    else:
        u, v = chroma[0, :, :columns], chroma[1, :, :columns]
    red_weight, blue_weight = _WEIGHTS[spec.yuv_matrix or YuvMatrix.BT601]
    limited = spec.yuv_range is YuvRange.LIMITED
    y = _spread(luma, 16 if limited else 0, 219 if limited else 255)
    cb, cr = (_double(_spread(plane, 128, 224 if limited else 255), spec) for plane in (u, v))
    red = y + 2 * (1 - red_weight) * cr
    blue = y + 2 * (1 - blue_weight) * cb
    green = (y - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    bgr = np.stack([blue, green, red], axis=2)
    return np.clip(np.rint(bgr * np.float32(255)), 0, 255).astype(np.uint8)


def _spread(plane: UInt8Array, zero: int, span: int) -> Float32Array:
    return (plane.astype(np.float32) - zero) / np.float32(span)


def _double(plane: Float32Array, spec: RawImage) -> Float32Array:
    return plane.repeat(2, axis=0).repeat(2, axis=1)[: spec.height, : spec.width]

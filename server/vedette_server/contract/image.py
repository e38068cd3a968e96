"""Images as declared by callers. `contract.convert` converts them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import msgspec

Buffer: TypeAlias = bytes | memoryview


class Orientation(StrEnum):
    """Handling of the orientation in a file's EXIF data."""

    APPLY = "APPLY"
    REFUSE = "REFUSE"
    IGNORE = "IGNORE"


class PixelFormat(StrEnum):
    """The order and meaning of raw samples, 8 bits each."""

    BGR8 = "BGR8"
    RGB8 = "RGB8"
    GRAY8 = "GRAY8"
    BGRA8 = "BGRA8"
    RGBA8 = "RGBA8"
    NV12 = "NV12"
    I420 = "I420"
    CHANNELS8 = "8UCN"  # named as in ROS and OpenCV: 8 bits, unsigned, n channels of no fixed meaning


class YuvMatrix(StrEnum):
    """The matrix that converts YUV to RGB."""

    BT601 = "BT601"
    BT709 = "BT709"


class YuvRange(StrEnum):
    """The range of 8-bit YUV samples: luma 16 to 235 and chroma 16 to 240, or 0 to 255."""

    LIMITED = "LIMITED"
    FULL = "FULL"


class ChannelOrder(StrEnum):
    """The channels in their order."""

    BGR = "BGR"
    RGB = "RGB"
    GRAY = "GRAY"
    MODEL = "MODEL"  # as in the model's training, in its own order


class TensorLayout(StrEnum):
    """The order of a tensor's axes."""

    HWC = "HWC"
    CHW = "CHW"


class ValueRange(StrEnum):
    """The range of a tensor's values."""

    TO_255 = "0-255"
    TO_1 = "0-1"


class EncodedImage(msgspec.Struct, frozen=True, tag=True):
    """A compressed file, whose format is recognised by its content."""

    orientation: Orientation = Orientation.APPLY
    drop_alpha: bool = False


class RawImage(msgspec.Struct, frozen=True, tag=True):
    """Raw samples: rows from top to bottom, `row_stride` bytes from row to row (None: packed).

    NV12 and I420 require `yuv_matrix` and `yuv_range`; their chroma planes follow the luma rows. Formats with alpha
    require `drop_alpha`. The contract defines the number of channels of 8UCN.
    """

    pixel_format: PixelFormat
    height: int
    width: int
    row_stride: int | None = None
    yuv_matrix: YuvMatrix | None = None
    yuv_range: YuvRange | None = None
    drop_alpha: bool = False


class TensorImage(msgspec.Struct, frozen=True, tag=True):
    """Little-endian 32-bit floats, packed, not normalised."""

    channel_order: ChannelOrder
    layout: TensorLayout
    value_range: ValueRange
    height: int
    width: int


ImageSpec: TypeAlias = EncodedImage | RawImage | TensorImage


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image on its way from a caller to a predictor: its declaration, and its bytes, never copied."""

    spec: ImageSpec
    data: Buffer


NO_IMAGE = SentImage(EncodedImage(), b"")

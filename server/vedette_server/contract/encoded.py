"""Compressed files: JPEG, PNG, WebP, BMP, TIFF, GIF and AVIF, recognised by content and decoded by Pillow.

Files other than plain 8-bit RGB are treated as follows:

- Grey, palette and bilevel files are expanded, which is lossless. CMYK is converted as by Detectron2's `read_image`.
- Alpha is dropped if it is opaque everywhere; otherwise only if the request says so.
- A JPEG with several pictures (a second view, a gain map) yields its first, as in every viewer.
- More than 8 bits a sample, animations and multiple pages are refused: there is no single right way to reduce them.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from vedette_server.contract import avif, formats, tiff
from vedette_server.contract.image import Buffer, EncodedImage, Orientation
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.types import UInt8Array

# Pillow's guard warns or raises at a fixed size. Ours refuses at the contract's limit, before decoding.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about unused metadata in words that the sender chooses, and Python would keep each warning forever.
warnings.filterwarnings("ignore", module=r"PIL\.")

CODECS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
_BEGINNINGS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "GIF": (b"GIF87a", b"GIF89a"),
}
_DEEP_MODES = ("I", "F")
_PNG_DEPTH = 24  # offset of the bits per sample in a PNG's header; Pillow silently reduces 16-bit colour
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
_BYTES_OF_A_PIXEL = 8  # used by decoding: the codec's pixels and the requested ones
_MUCH = 16_000_000  # pixels, if the actual number is unknown
_SCAN = b"\xff\xda"  # start of each JPEG scan; within a scan, 0xff is never followed by this byte
_USUAL_SCANS, _MOST_SCANS = 20, 100  # per file, including previews; encoders write about ten
_MOST_SCANNED = 800_000_000  # pixels over all scans, beyond which only the usual number is allowed: about a second
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def size(data: Buffer) -> tuple[int, int]:
    """Return height and width from a file's header, as stored.

    Raises `Refused`: IMAGE_UNREADABLE, IMAGE_TRUNCATED, IMAGE_TOO_DEEP, IMAGE_TOO_COSTLY, IMAGE_ANIMATED.
    """
    codec = _codec(data)
    if codec == "TIFF":
        return tiff.size(data)
    image = _open(data, codec)
    if image.mode.startswith(_DEEP_MODES) or (codec == "PNG" and data[_PNG_DEPTH] > 8):
        raise Refused(Reason.IMAGE_TOO_DEEP, codec=codec)
    if codec == "JPEG":
        _check_scans(data, image)
    if codec == "AVIF":
        avif.check(data, image.height * image.width)
    if frames := _frames(data, image, codec):
        raise Refused(Reason.IMAGE_ANIMATED, frames=frames)
    return image.height, image.width


def _frames(data: Buffer, image: Image.Image, codec: str) -> str:
    """Return the number of frames of an animation, or "" if there is one only. Pillow may read past the header."""
    try:
        if codec == "JPEG" or not getattr(image, "is_animated", False):
            return ""
        # Counting the frames of a GIF would require reading all of it.
        return "several" if codec == "GIF" else str(getattr(image, "n_frames", 0))
    except MemoryError:
        raise
    except Exception as error:  # codecs raise anything for a broken file
        raise _truncated(data, codec) from error


def _check_scans(data: Buffer, image: Image.Image) -> None:
    """Refuse a progressive JPEG whose scans would occupy a worker for minutes: each costs as much as a picture."""
    scans, within = bytes(data).count(_SCAN), _MOST_SCANNED // (image.width * image.height)
    most = min(max(_USUAL_SCANS, within), _MOST_SCANS)
    if scans > most:
        raise Refused(Reason.IMAGE_TOO_COSTLY, scans=scans, width=image.width, height=image.height, most=most)


def _codec(data: Buffer) -> str:
    start = bytes(data[:12])
    for codec, beginnings in _BEGINNINGS.items():
        if start.startswith(beginnings):
            return codec
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return "WEBP"
    if avif.is_avif(data):
        return "AVIF"
    seen, remedy = formats.recognise(data)
    raise Refused(Reason.IMAGE_UNREADABLE, seen=seen, remedy=remedy)


def _open(data: Buffer, codec: str) -> Image.Image:
    """Read a file's header without decoding anything."""
    try:
        return Image.open(io.BytesIO(data), formats=(codec,))
    except MemoryError:
        raise
    except Exception as error:  # codecs raise anything for a broken file
        raise _truncated(data, codec) from error


def _truncated(data: Buffer, codec: str) -> Refused:
    return Refused(Reason.IMAGE_TRUNCATED, bytes=len(data), codec=codec)


def decode(spec: EncodedImage, data: Buffer, channels: int) -> UInt8Array:
    """Decode a file whose header was checked: uint8, (height, width, channels); BGR for three, grey for one.

    Raises `Refused`: IMAGE_TRUNCATED, IMAGE_NOT_UPRIGHT, ALPHA_NOT_DROPPED; `MemoryError`.
    """
    codec = _codec(data)
    try:
        image = _open(data, codec)
    except Refused:  # `size` opened it before; opening a WebP allocates its pixels
        _check_memory(_MUCH)
        raise
    try:
        turned = tiff.orientation(data) if codec == "TIFF" else None
        image.load()
        if turned is None:
            turned = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
        _check_upright(turned, spec.orientation)
        _check_alpha(image, codec, drop_alpha=spec.drop_alpha)
        image = _turned(image, codec, turned, spec.orientation)
        if channels == 1:
            return np.asarray(image.convert("L"))[:, :, None]
        rgb = np.asarray(image.convert("RGB"))
    except Refused:
        raise
    except Exception as error:  # codecs raise anything for a broken file
        _check_memory(image.width * image.height)
        raise _truncated(data, codec) from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _check_memory(pixels: int) -> None:
    """Raise `MemoryError` if memory for `pixels` pixels is lacking: few codecs report that themselves."""
    np.empty((pixels, _BYTES_OF_A_PIXEL), np.uint8)


def _turned(image: Image.Image, codec: str, turned: int, wanted: Orientation) -> Image.Image:
    """Turn a loaded image upright, or back to its stored orientation. Pillow turns a TIFF when loading it."""
    if codec == "TIFF":
        back = None if wanted is Orientation.APPLY else _BACK.get(turned)
        return image if back is None else image.transpose(back)
    return ImageOps.exif_transpose(image) if wanted is Orientation.APPLY else image


def _check_upright(turned: int, wanted: Orientation) -> None:
    if wanted is Orientation.REFUSE and turned != _UPRIGHT:
        raise Refused(Reason.IMAGE_NOT_UPRIGHT, orientation=turned)


def _check_alpha(image: Image.Image, codec: str, *, drop_alpha: bool) -> None:
    if drop_alpha or not image.has_transparency_data:
        return
    lowest, _highest = image.convert("RGBA").getchannel("A").getextrema()
    if lowest != 255:
        raise Refused(Reason.ALPHA_NOT_DROPPED, field="image.encoded.drop_alpha", format=codec)

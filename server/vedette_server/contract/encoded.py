"""Compressed files: JPEG, PNG, WebP and BMP, told apart by content, decoded by Pillow.

What is done with what is not plain 8-bit RGB:

- grey, palette and bilevel files are expanded, which loses nothing; CMYK is converted as Detectron2's `read_image`
  does;
- alpha that is opaque everywhere is dropped; else only if the request says so;
- more than 8 bits a sample and animations are refused: there is no single right way to reduce either.
"""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vedette_server.contract.image import Buffer, EncodedImage, Orientation
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.types import UInt8Array

# Pillow's own guard warns or raises at a fixed size; ours refuses at the contract's, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

CODECS = ("JPEG", "PNG", "WEBP", "BMP")
_DEEP_MODES = ("I", "F")
_PNG_DEPTH = 24  # where a PNG's header says the bits a sample; Pillow reduces 16-bit colour without a word
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1


def size(data: Buffer) -> tuple[int, int]:
    """Height and width of a file as stored, from its header.

    Raises `Refused`: IMAGE_UNREADABLE, IMAGE_TOO_DEEP, IMAGE_ANIMATED.
    """
    image = _open(data)
    return image.height, image.width


def _open(data: Buffer) -> Image.Image:
    """Read a file's header; nothing is decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=CODECS)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        seen = bytes(data[:8]).hex(" ")
        raise Refused(Reason.IMAGE_UNREADABLE, codecs=", ".join(CODECS), first_bytes=seen) from error
    if image.mode.startswith(_DEEP_MODES) or (image.format == "PNG" and data[_PNG_DEPTH] > 8):
        raise Refused(Reason.IMAGE_TOO_DEEP, codec=image.format)
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise Refused(Reason.IMAGE_ANIMATED, frames=getattr(image, "n_frames", 0))
    return image


def decode(spec: EncodedImage, data: Buffer, channels: int) -> UInt8Array:
    """The pixels of a file whose header was checked: uint8, (height, width, channels), BGR of three or grey of one.

    Raises `Refused`: IMAGE_TRUNCATED, IMAGE_NOT_UPRIGHT, ALPHA_NOT_DROPPED.
    """
    image = _open(data)
    try:
        image.load()
        turned = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
        if spec.orientation is Orientation.REFUSE and turned != _UPRIGHT:
            raise Refused(Reason.IMAGE_NOT_UPRIGHT, orientation=turned)
        _check_alpha(image, drop_alpha=spec.drop_alpha)
        if spec.orientation is Orientation.APPLY:
            image = ImageOps.exif_transpose(image)
        if channels == 1:
            return np.asarray(image.convert("L"))[:, :, None]
        rgb = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, IndexError) as error:
        raise Refused(Reason.IMAGE_TRUNCATED, bytes=len(data), codec=image.format) from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _check_alpha(image: Image.Image, *, drop_alpha: bool) -> None:
    if drop_alpha or not image.has_transparency_data:
        return
    lowest, _highest = image.convert("RGBA").getchannel("A").getextrema()
    if lowest != 255:
        raise Refused(Reason.ALPHA_NOT_DROPPED, field="image.encoded.drop_alpha", format=image.format)

"""Conversion of Pillow images that gives the same result as sending their files.

An image that was opened and never touched is sent as its file, if that fits. Otherwise it is sent as the pixels that
its file would yield: turned upright by its EXIF data, with transparency refused unless it is to be dropped. More than 8
bits a sample are refused, whatever Pillow does with them. So are animations, whose frames are separate images.
Reductions and rotations that Pillow applied earlier, when the image was loaded, are no longer visible.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vedette_client import limits
from vedette_client.errors import LocalError
from vedette_client.limits import Limits

_EXIF_ORIENTATION, _UPRIGHT = 0x0112, 1  # TIFF's own tag has the same number
_TIFF_BITS = 258  # tag of the bits per sample
_BACK = {6: 8, 8: 6}  # orientations whose inverse is another; the rest are their own inverse
# File formats that servers read, by Pillow's names, with the format to open them.
_READ = {kind: kind for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")} | {"MPO": "JPEG"}
# Modes with a single conversion to RGB.
_COLOURS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_DEEP_SAMPLES = re.compile(r"'((L|LA|RGB|RGBA|RGBa|RGBX|CMYK);16|SGI16')")  # as named by Pillow's readers


def file(image: Image.Image) -> bytes | None:
    """Return the bytes of an untouched image's file; None if it was decoded or changed, or never had one."""
    source = getattr(image, "fp", None)
    untouched = getattr(image, "_im", image) is None and image.format in _READ
    if source is None or not untouched:
        return None
    try:
        position = source.tell()
        source.seek(0)
        data: bytes = source.read()
        source.seek(position)
        with Image.open(io.BytesIO(data), formats=(_READ[str(image.format)],)) as fresh:
            turned = image._exif is not None and _orientation(image) != _orientation(fresh)  # noqa: SLF001  unread
            return None if turned or _looks(image) != _looks(fresh) else data
    except Exception:  # noqa: BLE001  faults appear when it is decoded
        return None


def _looks(image: Image.Image) -> tuple[object, ...]:
    """Return the properties that reveal changes to an undecoded image."""
    return image.mode, image.size, image.tell(), image.info, repr(getattr(image, "tile", ""))


def _orientation(image: Image.Image) -> int:
    turned: int = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
    return turned


def pixels(image: Image.Image, orientation: str, known: Limits, *, drop_alpha: bool) -> NDArray[np.uint8]:
    """Return RGB pixels, shape (height, width, 3). Raises `LocalError` with the server's reason for such a file."""
    with _decoding():
        _check_depth(image)
        _check_frames(image)
    height, width = limits.edge(image.height, "height"), limits.edge(image.width, "width")
    limits.check_size(height, width, 3 * height * width, known)
    with _decoding():
        stored = getattr(image, "tag_v2", {}).get(_EXIF_ORIENTATION)  # of a TIFF, which Pillow turns when loading it
        image.load()
        _check_depth(image)  # again, because some files reveal another mode only now
        turned = stored or _orientation(image)
        if orientation == "REFUSE" and turned != _UPRIGHT:
            msg = f"the PIL image is not upright (EXIF orientation {turned}), and orientation='REFUSE' was given"
            raise LocalError(msg, "IMAGE_NOT_UPRIGHT")
        colours = _opaque(image, drop_alpha=drop_alpha)
        if orientation == "APPLY":
            return np.asarray(colours if stored else _upright(colours, turned))
        return np.asarray(_upright(colours, _BACK.get(stored, stored)) if stored else colours)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image of ours by an EXIF orientation, ignoring its own EXIF data, which may be unreadable."""
    image.info = {}
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Convert exceptions of Pillow's readers, which may raise anything."""
    try:
        yield
    except LocalError:
        raise
    except Exception as error:
        msg = f"the PIL image cannot be decoded: {str(error) or type(error).__name__}"
        raise LocalError(msg, "IMAGE_TRUNCATED") from error


def _check_depth(image: Image.Image) -> None:
    """Refuse more than 8 bits a sample, in undecoded files as well: Pillow silently reduces colour."""
    bits = np.atleast_1d(getattr(image, "tag_v2", {}).get(_TIFF_BITS, 8))
    deep = image.mode.startswith(("I", "F")) or bits.max(initial=0) > 8
    if deep or any(map(_is_deep, getattr(image, "tile", ()))):
        msg = (
            f"the PIL image of mode {image.mode} has more than 8 bits a sample; there is no single right way to reduce "
            "them. Convert it like the model's training images, for example with Image.fromarray"
        )
        raise LocalError(msg, "IMAGE_TOO_DEEP")


def _is_deep(tile: Any) -> bool:  # noqa: ANN401  readers describe undecoded parts differently
    """Return whether an undecoded part of a file has more than 8 bits a sample."""
    levels = tile[3][1] if tile[0] in ("ppm", "ppm_plain") else 255
    return levels > 255 or _DEEP_SAMPLES.search(repr(tile)) is not None


def _check_frames(image: Image.Image) -> None:
    """Refuse an animation; a photo with a second picture (MPO) is not one."""
    if getattr(image, "is_animated", False) and image.format != "MPO":
        count = getattr(image, "n_frames", "several")
        msg = (
            f"the PIL image is a {image.format} of {count} frames, and none is chosen automatically. Choose "
            "one with image.seek(number), and send image.copy()"
        )
        raise LocalError(msg, "IMAGE_ANIMATED")


def _opaque(image: Image.Image, *, drop_alpha: bool) -> Image.Image:
    """Return the colours, dropping alpha that hides nothing."""
    if image.mode not in _COLOURS:
        msg = f"the PIL image has the mode {image.mode}, which has several conversions to RGB: convert it to 'RGB'"
        raise LocalError(msg, "IMAGE_UNREADABLE")
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    if not drop_alpha and straight.getchannel("A").getextrema()[0] != 255:
        msg = (
            f"the PIL image of mode {image.mode} has transparent pixels, but models cannot use alpha. Give "
            "drop_alpha=True to ignore it, or composite the image onto its background"
        )
        raise LocalError(msg, "ALPHA_NOT_DROPPED")
    return straight.convert("RGB")

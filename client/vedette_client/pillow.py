"""A Pillow image, worth what its file is.

One that was opened and not touched since still is its file, and is sent as that, if it fits. Of any other the pixels
are sent that its file would give: turned upright by its EXIF data, its transparency refused unless it is to be dropped.
More than 8 bits a sample are refused, whatever Pillow makes of them, and so are animations, whose frames are images of
their own. What Pillow has reduced, or turned, because the image was loaded before it came here, shows no more.
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
_TIFF_BITS = 258  # the tag that says how many bits a sample has
_BACK = {6: 8, 8: 6}  # the orientations that undo others; all the rest undo themselves
# Kinds of files that a server reads, as Pillow calls them, and how it is told to open them.
_READ = {kind: kind for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")} | {"MPO": "JPEG"}
# Modes that Pillow converts to RGB in one way alone.
_COLOURS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_DEEP_SAMPLES = re.compile(r"'((L|LA|RGB|RGBA|RGBa|RGBX|CMYK);16|SGI16')")  # as Pillow's readers call them


def file(image: Image.Image) -> bytes | None:
    """The bytes of the file that an image still is; None: it has been decoded or changed, or was never one."""
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
            turned = image._exif is not None and _orientation(image) != _orientation(fresh)  # noqa: SLF001  not read yet
            return None if turned or _looks(image) != _looks(fresh) else data
    except Exception:  # noqa: BLE001  what is wrong with it shows when it is decoded
        return None


def _looks(image: Image.Image) -> tuple[object, ...]:
    """What changes with an image that is not decoded yet."""
    return image.mode, image.size, image.tell(), image.info, repr(getattr(image, "tile", ""))


def _orientation(image: Image.Image) -> int:
    turned: int = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
    return turned


def pixels(image: Image.Image, orientation: str, known: Limits, *, drop_alpha: bool) -> NDArray[np.uint8]:
    """RGB, of shape (height, width, 3). Raises `LocalError` with the reason that the server has for the file."""
    with _decoding():
        _check_depth(image)
        _check_frames(image)
    height, width = limits.edge(image.height, "height"), limits.edge(image.width, "width")
    limits.check_size(height, width, 3 * height * width, known)
    with _decoding():
        stored = getattr(image, "tag_v2", {}).get(_EXIF_ORIENTATION)  # of a TIFF, which Pillow turns when it loads it
        image.load()
        _check_depth(image)  # again: some files hold another, whose mode shows only now
        turned = stored or _orientation(image)
        if orientation == "REFUSE" and turned != _UPRIGHT:
            msg = f"the PIL image is not upright (EXIF orientation {turned}), and orientation='REFUSE' was given"
            raise LocalError(msg, "IMAGE_NOT_UPRIGHT")
        colours = _opaque(image, drop_alpha=drop_alpha)
        if orientation == "APPLY":
            return np.asarray(colours if stored else _upright(colours, turned))
        return np.asarray(_upright(colours, _BACK.get(stored, stored)) if stored else colours)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turned as an EXIF orientation asks for; an image of ours, whose own EXIF data may be none that can be read."""
    image.info = {}
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Make our error of what Pillow's readers raise, which is whatever goes wrong within them."""
    try:
        yield
    except LocalError:
        raise
    except Exception as error:
        msg = f"the PIL image cannot be decoded: {str(error) or type(error).__name__}"
        raise LocalError(msg, "IMAGE_TRUNCATED") from error


def _check_depth(image: Image.Image) -> None:
    """Refuse more than 8 bits a sample, of an undecoded file too: Pillow reduces colour without a word."""
    bits = np.atleast_1d(getattr(image, "tag_v2", {}).get(_TIFF_BITS, 8))
    deep = image.mode.startswith(("I", "F")) or bits.max(initial=0) > 8
    if deep or any(map(_is_deep, getattr(image, "tile", ()))):
        msg = (
            f"the PIL image of mode {image.mode} has more than 8 bits a sample; there is no single right way to reduce "
            "them. Convert it the way the model's training images were, for one with Image.fromarray"
        )
        raise LocalError(msg, "IMAGE_TOO_DEEP")


def _is_deep(tile: Any) -> bool:  # noqa: ANN401  how Pillow says what is yet to be decoded differs from reader to reader
    """Whether a part of a file that is yet to be decoded has more than 8 bits a sample."""
    levels = tile[3][1] if tile[0] in ("ppm", "ppm_plain") else 255
    return levels > 255 or _DEEP_SAMPLES.search(repr(tile)) is not None


def _check_frames(image: Image.Image) -> None:
    """Refuse an animation; a photo that carries a second one beside it (MPO) is none."""
    if getattr(image, "is_animated", False) and image.format != "MPO":
        count = getattr(image, "n_frames", "several")
        msg = (
            f"the PIL image is a {image.format} of {count} frames; which one to look at is not to be guessed. Choose "
            "one with image.seek(number), and send image.copy()"
        )
        raise LocalError(msg, "IMAGE_ANIMATED")


def _opaque(image: Image.Image, *, drop_alpha: bool) -> Image.Image:
    """The colours, without an alpha that hides none of them."""
    if image.mode not in _COLOURS:
        msg = f"the PIL image has the mode {image.mode}, of which there is more than one RGB: convert it to 'RGB'"
        raise LocalError(msg, "IMAGE_UNREADABLE")
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    if not drop_alpha and straight.getchannel("A").getextrema()[0] != 255:
        msg = (
            f"the PIL image of mode {image.mode} has transparent pixels, which the model cannot see. Give "
            "drop_alpha=True to have the alpha ignored, or lay the image over the background that it belongs to"
        )
        raise LocalError(msg, "ALPHA_NOT_DROPPED")
    return straight.convert("RGB")

"""A Pillow image, as the pixels that its file would give.

It is turned upright by its EXIF data. Its transparency is refused unless it is to be dropped; more than 8 bits a sample
are refused, whatever Pillow makes of them, and so are animations, whose frames are images of their own. What Pillow has
reduced already, because the image was loaded before it came here, shows no more.
"""

import contextlib
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vedette_client import limits
from vedette_client.errors import LocalError
from vedette_client.limits import Limits

_EXIF_ORIENTATION, _UPRIGHT = 0x0112, 1
_TIFF_BITS = 258  # the tag that says how many bits a sample has
_DEEP_SAMPLES = re.compile(r"'(L|LA|RGB|RGBA|RGBa|RGBX|CMYK);16")  # what Pillow is about to reduce, in its own words


def pixels(image: Image.Image, orientation: str, known: Limits, *, drop_alpha: bool) -> NDArray[np.uint8]:
    """RGB, of shape (height, width, 3). Raises `LocalError` with the reason that the server has for the file."""
    with _decoding():
        _check_depth(image)
        _check_frames(image)
    height, width = limits.edge(image.height, "height"), limits.edge(image.width, "width")
    limits.check_size(height, width, 3 * height * width, known)
    with _decoding():
        image.load()
        turned = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
        if orientation == "REFUSE" and turned != _UPRIGHT:
            msg = f"the PIL image is not upright (EXIF orientation {turned}), and orientation='REFUSE' was given"
            raise LocalError(msg, "IMAGE_NOT_UPRIGHT")
        if orientation == "APPLY" and turned != _UPRIGHT:
            image = ImageOps.exif_transpose(image)
        return np.asarray(_opaque(image, drop_alpha=drop_alpha))


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
    if deep or any(_DEEP_SAMPLES.search(repr(tile)) for tile in getattr(image, "tile", ())):
        msg = (
            f"the PIL image of mode {image.mode} has more than 8 bits a sample; there is no single right way to reduce "
            "them. Convert it the way the model's training images were, for one with Image.fromarray"
        )
        raise LocalError(msg, "IMAGE_TOO_DEEP")


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

"""Small pictures of every form that is taken, and of some that are not: what mutations begin with."""

import io
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import tifffile
from PIL import Image

_ORIENTATION = 0x0112
_MODES: dict[str, tuple[str, ...]] = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("L", "P"),
    "AVIF": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"),
}
_WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({}, {"progressive": True}, {"restart_marker_blocks": 2}, {"optimize": True, "subsampling": 2}),
    "PNG": ({}, {"optimize": True}),
    "WEBP": ({}, {"lossless": True}),
    "GIF": ({"interlace": 0}, {"interlace": 1}),
    "AVIF": ({"speed": 10}, {"speed": 10, "subsampling": "4:4:4"}),
    "TIFF": tuple({"compression": one} for one in ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg")),
}
_STRANGERS = ("JPEG2000", "PPM", "DDS", "PDF", "TGA", "EPS", "ICO", "SGI", "PCX")


def picture(mode: str, size: tuple[int, int] = (37, 22)) -> Image.Image:
    """A ramp with some noise, the same each time."""
    width, height = size
    rng = np.random.default_rng(width)
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 3)[..., None] + rng.integers(
        0, 40, (height, width, 4)
    )
    colours = Image.fromarray((ramp % 256).astype(np.uint8), "RGBA")
    return Image.fromarray(ramp[..., 0].astype(np.uint16) * 90) if mode == "I;16" else colours.convert(mode)


def _saved(image: Image.Image, codec: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec, **how)
    return buffer.getvalue()


def _tagged(codec: str) -> bytes:
    """One that is stored turned, as cameras do."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    return _saved(picture("RGB"), codec, exif=exif)


def _tiffs() -> Iterator[tuple[str, bytes]]:
    """Layouts that Pillow reads and does not write."""
    pixels = np.asarray(picture("RGB", (70, 50)))
    ways: dict[str, dict[str, Any]] = {
        "tiled": {"tile": (16, 16)},
        "planar": {"planarconfig": "separate", "data": np.ascontiguousarray(pixels.transpose(2, 0, 1))},
        "big": {"bigtiff": True},
        "motorola": {"byteorder": ">"},
        "strips": {"rowsperstrip": 8},
    }
    for name, how in ways.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, how.pop("data", pixels), photometric="rgb", **how)
        yield f"TIFF {name}", buffer.getvalue()


def _several(codec: str) -> bytes:
    """An animation, or a file of two pages."""
    return _saved(picture("RGB"), codec, save_all=True, append_images=[picture("RGB").rotate(90)])


@cache
def pictures() -> dict[str, bytes]:
    """Pictures by what they are."""
    made = {}
    for codec, modes in _MODES.items():
        for mode in modes:
            for number, how in enumerate(_WAYS.get(codec, ({},))):
                if codec != "TIFF" or how["compression"] != "jpeg" or mode in ("L", "RGB", "YCbCr"):
                    made[f"{codec} {mode} {number}"] = _saved(picture(mode), codec, **how)
    made |= {f"{codec} turned": _tagged(codec) for codec in ("JPEG", "PNG", "WEBP", "TIFF")}
    made |= {f"{codec} several": _several(codec) for codec in ("PNG", "WEBP", "GIF", "TIFF")}
    made |= dict(_tiffs())
    made["JPEG with more of them"] = _saved(picture("RGB"), "MPO", save_all=True, append_images=[picture("RGB")])
    made["PNG transparent"] = _saved(picture("P"), "PNG", transparency=3)
    return made | {codec: _saved(picture("RGB"), codec) for codec in _STRANGERS}


@cache
def large() -> dict[str, bytes]:
    """Pictures of many pixels in few bytes, and of as many passes over them as their formats allow."""
    flat = Image.new("RGB", (4_000, 2_900), (90, 120, 30))
    ways: dict[str, dict[str, Any]] = {
        "PNG": {},
        "GIF": {},
        "JPEG": {"progressive": True, "quality": 20},
        "WEBP": {"lossless": True, "method": 0},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "BMP": {},
    }
    return {
        f"{codec} large": _saved(flat.convert("1") if codec == "BMP" else flat, codec, **how)
        for codec, how in ways.items()
    }

"""Tools of the drawers: fields of noise, soft shapes, lines of text, and the effects of a sensor and a lens."""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]  # (height, width) grey, or (height, width, 3) RGB
Field = NDArray[np.float32]  # (height, width)
Colour = tuple[int, int, int]

_WORDS = """
the of and to in is that for with as was on are by this be from at or an which have not were but has invoice amount
total due account number date page section figure table result method patient sample report quarter delivery order item
price tax street city phone reference approved signature notes
"""


def rng(*seed: int | str) -> np.random.Generator:
    """A generator that depends on nothing but its seed."""
    return np.random.default_rng([int.from_bytes(str(part).encode(), "big") % 2**32 for part in seed])


def folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@functools.cache
def _font_file(face: str) -> str:
    return str(folder("matplotlib") / "mpl-data/fonts/ttf" / f"{face}.ttf")


def font(size: float, face: str = "DejaVuSans") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_file(face), size)


def shipped(package: str, path: str, *, grey: bool = False) -> Picture:
    """A picture that comes inside a package."""
    image = Image.open(folder(package) / path)
    return np.asarray(image.convert("L" if grey else "RGB"))


def bits(values: NDArray[Any]) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def clouds(chance: np.random.Generator, height: int, width: int, scale: float, octaves: int = 4) -> Field:
    """Fractal noise, 0 to 1; its largest blobs measure `scale` of the shorter edge."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = max(2.0, scale * min(height, width) / 2**octave)
        grid = chance.random((int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def ramp(height: int, width: int, top: float, bottom: float) -> Field:
    return np.repeat(np.linspace(top, bottom, height, dtype=np.float32)[:, None], width, axis=1)


def blurred(picture: NDArray[Any], width: float) -> NDArray[Any]:
    """The same out of focus; `width` is the standard deviation, in pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), width))


def sensor(chance: np.random.Generator, picture: NDArray[Any], noise: float = 2.0, blur: float = 0.0) -> Picture:
    """Add the effects of a lens and a sensor."""
    values: Field = np.asarray(picture, np.float32)
    if blur:
        values = blurred(values, blur)
    return bits(values + chance.normal(0, noise, values.shape))


def colour(value: Field, low: Sequence[float], high: Sequence[float]) -> NDArray[np.float32]:
    """A field, 0 to 1, as a blend of two colours."""
    first, last = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return np.asarray(first + value[:, :, None] * (last - first), np.float32)


def blob(canvas: Field, middle: tuple[float, float], radius: tuple[float, float], angle: float, level: float) -> None:
    """Add a soft ellipse."""
    rows, columns = np.mgrid[: canvas.shape[0], : canvas.shape[1]].astype(np.float32)
    down, across = rows - middle[0], columns - middle[1]
    first = (across * np.cos(angle) + down * np.sin(angle)) / radius[1]
    second = (down * np.cos(angle) - across * np.sin(angle)) / radius[0]
    canvas += level / (1 + np.exp(np.minimum(8 * (np.hypot(first, second) - 1), 80)))


def spots(chance: np.random.Generator, canvas: Field, count: int, sigma: float, brightest: float) -> None:
    """Add points of light with the spread of a lens, few of them bright."""
    reach = max(1, round(4 * sigma))
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    shape = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * sigma**2)) if sigma else np.ones((1, 1))
    reach = shape.shape[0] // 2
    height, width = canvas.shape
    for _ in range(count):
        row, column = int(chance.integers(reach, height - reach)), int(chance.integers(reach, width - reach))
        level = brightest * float(chance.random()) ** 3 + 20
        canvas[row - reach : row + reach + 1, column - reach : column + reach + 1] += level * shape


def words(chance: np.random.Generator, count: int) -> str:
    return " ".join(chance.choice(_WORDS.split(), count))


def paragraph(
    chance: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    size: float,
    ink: Colour | int,
) -> None:
    """Lines of words that fill a box: left, top, right, bottom."""
    left, top, right, bottom = box
    face, line = font(size), round(size * 1.5)
    for y in range(top, bottom - line, line):
        length = float(chance.uniform(0.5, 1)) * (right - left)
        text = words(chance, 40)
        while draw.textlength(text, face) > length and " " in text:
            text = text.rpartition(" ")[0]
        draw.text((left, y), text, ink, face)


def page(chance: np.random.Generator, width: int, height: int, paper: Colour, size: float, ink: Colour) -> Image.Image:
    """A page with a title and text."""
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    margin = width // 10
    draw.text((margin, margin // 2), words(chance, 4).title(), ink, font(size * 1.8, "DejaVuSerif-Bold"))
    paragraph(chance, draw, (margin, margin + round(size * 2), width - margin, height - margin), size, ink)
    return image

"""Backgrounds of the signs: streets, country roads, woods and walls, drawn from noise and simple shapes."""

from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vedette_server.contract.types import Float32Array, UInt8Array

T = TypeVar("T")
Colour: TypeAlias = tuple[int, int, int]

_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((92, 148, 214), (196, 218, 236)),  # clear
    ((150, 156, 164), (205, 208, 210)),  # overcast
    ((64, 72, 120), (232, 160, 110)),  # dusk
    ((14, 18, 34), (46, 50, 66)),  # night
    ((120, 170, 220), (240, 240, 230)),  # haze
)
_EARTHS: tuple[Colour, ...] = ((88, 112, 60), (120, 104, 72), (70, 92, 52), (142, 136, 120), (60, 70, 48))
_WALLS: tuple[Colour, ...] = ((150, 92, 70), (170, 160, 145), (110, 112, 118), (196, 186, 160), (96, 70, 60))


def noise(rng: np.random.Generator, size: tuple[int, int], octaves: int = 4) -> Float32Array:
    """Return smooth fractal noise in [0, 1], shape (height, width), for `size` = (width, height)."""
    total = np.zeros(size[::-1], np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 2)
        coarse = Image.fromarray(rng.random((cells, cells), np.float32), mode="F")
        total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) / 2**octave
    total -= total.min()
    return np.divide(total, max(float(total.max()), 1e-6), dtype=np.float32)


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _vary(rng: np.random.Generator, colour: Colour, spread: int = 22) -> Colour:
    red, green, blue = (int(np.clip(value + rng.integers(-spread, spread + 1), 0, 255)) for value in colour)
    return red, green, blue


def _sky(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    top, bottom = (np.array(_vary(rng, colour), np.float32) for colour in _pick(rng, _SKIES))
    ramp = np.linspace(0, 1, size[1], dtype=np.float32)[:, None, None]
    clouds = (noise(rng, size)[..., None] - 0.5) * float(rng.uniform(0, 70))
    pixels = np.broadcast_to(top + (bottom - top) * ramp, (size[1], size[0], 3)) + clouds
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _hills(rng: np.random.Generator, picture: Image.Image, horizon: int) -> None:
    draw = ImageDraw.Draw(picture)
    width, _height = picture.size
    for layer in range(int(rng.integers(1, 4))):
        ridge = noise(rng, (width, 1), octaves=5)[0] * picture.height * 0.25
        base = horizon - (2 - layer) * 8
        outline = [(x, base - float(ridge[x])) for x in range(0, width, 4)]
        draw.polygon(
            [(0, picture.height), *outline, (width, base), (width, picture.height)], _vary(rng, _pick(rng, _EARTHS))
        )


def _buildings(rng: np.random.Generator, picture: Image.Image, horizon: int) -> None:
    draw = ImageDraw.Draw(picture)
    left = -20
    while left < picture.width:
        width, top = int(rng.integers(40, 130)), horizon - int(rng.integers(40, max(60, horizon)))
        draw.rectangle((left, top, left + width, horizon + 12), fill=_vary(rng, _pick(rng, _WALLS)))
        window, step = _vary(rng, (90, 100, 120), 40), int(rng.integers(14, 26))
        for x in range(left + 6, left + width - 8, step):
            for y in range(top + 8, horizon - 6, step):
                draw.rectangle((x, y, x + step // 2, y + step // 2), fill=window)
        left += width + int(rng.integers(0, 24))


def _road(rng: np.random.Generator, picture: Image.Image, horizon: int) -> None:
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    draw.rectangle((0, horizon, width, height), fill=_vary(rng, _pick(rng, _EARTHS)))
    vanish = int(rng.uniform(0.25, 0.75) * width)
    left, right = int(rng.uniform(-0.5, 0.3) * width), int(rng.uniform(0.7, 1.5) * width)
    draw.polygon(
        [(vanish - 4, horizon), (vanish + 4, horizon), (right, height), (left, height)], _vary(rng, (86, 86, 90))
    )
    middle = (left + right) // 2
    for step in range(6):  # the dashed line, shortened towards the horizon
        near, far = ((step + part) / 6 for part in (0.5, 0.0))
        ends = [(vanish + (middle - vanish) * t**1.5, horizon + (height - horizon) * t**1.5) for t in (far, near)]
        draw.line(ends, fill=(224, 222, 210), width=1 + step)


def _car(rng: np.random.Generator, picture: Image.Image, horizon: int) -> None:
    """Draw a parked car with lamps, in any colour, including red and blue."""
    draw = ImageDraw.Draw(picture)
    width = int(rng.integers(50, 150))
    height = width // 3
    x, y = int(rng.integers(-20, picture.width - 20)), horizon + int(rng.integers(5, max(6, picture.height - horizon)))
    paint = _vary(rng, _pick(rng, ((190, 30, 34), (30, 70, 170), (220, 220, 220), (40, 42, 46), (120, 128, 130))))
    draw.rounded_rectangle((x, y - height, x + width, y), 6, fill=paint)
    draw.rounded_rectangle(
        (x + width // 5, y - int(height * 1.7), x + int(width * 0.8), y - height + 4), 8, fill=(50, 58, 70)
    )
    for lamp in (x + 4, x + width - 12):
        draw.ellipse(
            (lamp, y - height + 4, lamp + 8, y - height + 12), fill=_pick(rng, ((220, 30, 30), (250, 240, 200)))
        )
    for wheel in (x + width // 5, x + int(width * 0.7)):
        draw.ellipse((wheel, y - height // 3, wheel + height // 2, y + height // 6), fill=(22, 22, 24))


def _foliage(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    green = Image.new("RGB", picture.size, _vary(rng, _pick(rng, ((52, 84, 38), (86, 110, 50), (120, 96, 40)))))
    cover = noise(rng, picture.size, octaves=6) > float(rng.uniform(0.45, 0.75))
    mask = Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    return Image.composite(green, picture, mask)


def _bricks(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    picture = Image.new("RGB", size, (150, 145, 138))
    draw = ImageDraw.Draw(picture)
    wall, height = _pick(rng, _WALLS), int(rng.integers(8, 22))
    for row, y in enumerate(range(0, size[1], height)):
        for x in range(-(row % 2) * height, size[0], height * 2):
            draw.rectangle((x, y, x + height * 2 - 2, y + height - 2), fill=_vary(rng, wall, 12))
    return picture


def paint(rng: np.random.Generator, size: tuple[int, int]) -> UInt8Array:
    """Paint a background of `size` = (width, height): RGB, shape (height, width, 3)."""
    kind = rng.random()
    if kind < 0.12:
        picture = _bricks(rng, size)
    else:
        horizon = int(size[1] * rng.uniform(0.4, 0.75))
        picture = _sky(rng, size)
        if rng.random() < 0.6:
            _hills(rng, picture, horizon)
        if rng.random() < 0.55:
            _buildings(rng, picture, horizon)
        _road(rng, picture, horizon)
        for _ in range(int(rng.integers(0, 3))):
            _car(rng, picture, horizon)
        if rng.random() < 0.45:
            picture = _foliage(rng, picture)
    texture = (noise(rng, size, octaves=6)[..., None] - 0.5) * float(rng.uniform(10, 60))
    grain = rng.normal(0, float(rng.uniform(0, 8)), (size[1], size[0], 1)).astype(np.float32)
    pixels = np.asarray(picture, np.float32) + texture + grain
    return np.clip(pixels, 0, 255).astype(np.uint8)

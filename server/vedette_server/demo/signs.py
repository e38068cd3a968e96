"""The faces of the road signs, drawn as vector art on square RGBA patches.

Six classes whose colours matter, and decoys: the same faces with red and blue swapped, and plain panels. A decoy is not
a sign, so a model that receives RGB instead of BGR sees decoys in place of signs.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vedette_server.contract.types import UInt8Array

CLASSES = ("stop", "yield", "warning", "parking", "mandatory", "speed_limit")

PATCH = 192  # side of a drawn face, in pixels
_SCALE = 2  # faces are drawn this many times larger, then reduced, for smooth edges

_RED = (196, 30, 36)
_BLUE = (24, 84, 178)
_WHITE = (240, 240, 236)
_BLACK = (24, 24, 26)

Painter: TypeAlias = Callable[[ImageDraw.ImageDraw, np.random.Generator], None]
Point: TypeAlias = tuple[float, float]


def _px(value: float) -> float:
    """Convert a coordinate of the unit square to the drawing's pixels."""
    return value * PATCH * _SCALE


def _polygon(draw: ImageDraw.ImageDraw, points: list[Point], fill: tuple[int, int, int]) -> None:
    draw.polygon([(_px(x), _px(y)) for x, y in points], fill=fill)


def _disc(draw: ImageDraw.ImageDraw, radius: float, fill: tuple[int, int, int]) -> None:
    low, high = _px(0.5 - radius), _px(0.5 + radius)
    draw.ellipse((low, low, high, high), fill=fill)


def _regular(sides: int, radius: float, turn: float) -> list[Point]:
    """Return the corners of a regular polygon around the centre, the first at angle `turn` (radians)."""
    angles = [turn + 2 * math.pi * index / sides for index in range(sides)]
    return [(0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for angle in angles]


def _triangle(radius: float, *, pointing_down: bool) -> list[Point]:
    turn = math.pi / 2 if pointing_down else -math.pi / 2
    shift = -0.08 if pointing_down else 0.08
    return [(x, y + shift) for x, y in _regular(3, radius, turn)]


def _text(draw: ImageDraw.ImageDraw, text: str, height: float, fill: tuple[int, int, int]) -> None:
    font = ImageFont.load_default(size=_px(height))
    draw.text((_px(0.5), _px(0.5)), text, font=font, fill=fill, anchor="mm", stroke_width=_px(0.008), stroke_fill=fill)


def _stop(draw: ImageDraw.ImageDraw, _rng: np.random.Generator) -> None:
    _polygon(draw, _regular(8, 0.5, math.pi / 8), _WHITE)
    _polygon(draw, _regular(8, 0.46, math.pi / 8), _RED)
    _text(draw, "STOP", 0.28, _WHITE)


def _yield(draw: ImageDraw.ImageDraw, _rng: np.random.Generator) -> None:
    _polygon(draw, _triangle(0.56, pointing_down=True), _RED)
    _polygon(draw, _triangle(0.33, pointing_down=True), _WHITE)


def _warning(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _polygon(draw, _triangle(0.56, pointing_down=False), _RED)
    _polygon(draw, _triangle(0.36, pointing_down=False), _WHITE)
    if rng.random() < 0.5:  # an exclamation mark, or a crossroads
        _polygon(draw, [(0.47, 0.42), (0.53, 0.42), (0.52, 0.6), (0.48, 0.6)], _BLACK)
        draw.ellipse((_px(0.475), _px(0.63), _px(0.525), _px(0.68)), fill=_BLACK)
    else:
        _polygon(draw, [(0.475, 0.42), (0.525, 0.42), (0.525, 0.7), (0.475, 0.7)], _BLACK)
        _polygon(draw, [(0.39, 0.55), (0.61, 0.55), (0.61, 0.6), (0.39, 0.6)], _BLACK)


def _parking(draw: ImageDraw.ImageDraw, _rng: np.random.Generator) -> None:
    draw.rounded_rectangle((_px(0.06), _px(0.06), _px(0.94), _px(0.94)), _px(0.08), fill=_WHITE)
    draw.rounded_rectangle((_px(0.09), _px(0.09), _px(0.91), _px(0.91)), _px(0.06), fill=_BLUE)
    _text(draw, "P", 0.68, _WHITE)


def _mandatory(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _disc(draw, 0.49, _WHITE)
    _disc(draw, 0.465, _BLUE)
    arrow = [(0.44, 0.8), (0.44, 0.44), (0.31, 0.44), (0.5, 0.16), (0.69, 0.44), (0.56, 0.44), (0.56, 0.8)]
    angle = float(rng.choice([0.0, 0.5, -0.5, 0.25, -0.25])) * math.pi
    cos, sin = math.cos(angle), math.sin(angle)
    turned = [(0.5 + cos * (x - 0.5) - sin * (y - 0.5), 0.5 + sin * (x - 0.5) + cos * (y - 0.5)) for x, y in arrow]
    _polygon(draw, turned, _WHITE)


def _speed_limit(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _disc(draw, 0.49, _RED)
    _disc(draw, 0.37, _WHITE)
    _text(draw, str(rng.choice(["20", "30", "40", "50", "60", "70", "80", "90"])), 0.42, _BLACK)


_PAINTERS: dict[str, Painter] = {
    "stop": _stop,
    "yield": _yield,
    "warning": _warning,
    "parking": _parking,
    "mandatory": _mandatory,
    "speed_limit": _speed_limit,
}


def _paint(painter: Painter, rng: np.random.Generator) -> UInt8Array:
    canvas = Image.new("RGBA", (PATCH * _SCALE, PATCH * _SCALE), (0, 0, 0, 0))
    painter(ImageDraw.Draw(canvas), rng)
    return np.asarray(canvas.resize((PATCH, PATCH), Image.Resampling.BOX)).copy()


def face(name: str, rng: np.random.Generator) -> UInt8Array:
    """Draw a sign of class `name`: RGBA, shape (PATCH, PATCH, 4), transparent outside the sign."""
    return _paint(_PAINTERS[name], rng)


def decoy(rng: np.random.Generator) -> UInt8Array:
    """Draw a decoy, which resembles a sign: a face with red and blue swapped, or a plain panel."""
    if rng.random() < 0.7:
        patch = face(str(rng.choice(CLASSES)), rng)
        return np.ascontiguousarray(patch[..., [2, 1, 0, 3]])
    colour = tuple(int(value) for value in rng.integers(30, 230, 3))

    def panel(draw: ImageDraw.ImageDraw, _rng: np.random.Generator) -> None:
        draw.rectangle((_px(0.02), _px(0.2), _px(0.98), _px(0.8)), fill=colour)
        _text(draw, str(rng.choice(["CAFE", "SALE", "24h", "TAXI", "HOTEL"])), 0.24, _WHITE)

    return _paint(panel, rng)

"""Honest pictures of trades that the bundled model knows nothing of, as those who have them send them.

Nothing is wrong with any of them, so whoever accuses one of a fault is mistaken. Most are drawn, from seeds; the others
come inside packages that the tests need anyway. A third of the trades is held out: nothing was tuned on them.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from vedette_client import ImageLike, Raw, Tensor

from tests.honest import documents, graphics, medicine, places, sky
from tests.honest.canvas import Picture

TRADES: dict[str, tuple[Callable[[int], Picture], int]] = {
    **documents.TRADES,
    **medicine.TRADES,
    **sky.TRADES,
    **places.TRADES,
    **graphics.TRADES,
}
# Feeds of which every picture is another, from a seed.
FEEDS: dict[str, Callable[[int], Picture]] = {
    "scans": documents.scan,
    "faxes": documents.faxed,
    "x-rays": medicine.chest,
    "stars": sky.field_of_stars,
}
HELD_OUT = tuple(sorted(TRADES)[1::3])


@dataclass(frozen=True)
class Honest:
    """A picture: RGB, uint8, shape (height, width, 3)."""

    trade: str
    number: int
    rgb: Picture

    @property
    def name(self) -> str:
        return f"{self.trade} {self.number}"

    @property
    def grey(self) -> bool:
        return bool((self.rgb == self.rgb[:, :, :1]).all())

    @property
    def bilevel(self) -> bool:
        """True if 1 bit holds it without loss."""
        return bool(np.isin(self.rgb, (0, 255)).all()) and self.grey


def picture(trade: str, number: int) -> Honest:
    draw, _ = TRADES[trade]
    return Honest(trade, number, _colours(draw(number)))


def pictures(trade: str) -> Iterator[Honest]:
    return (picture(trade, number) for number in range(TRADES[trade][1]))


def feed(name: str, frames: int) -> Iterator[Honest]:
    return (Honest(name, number, _colours(FEEDS[name](number))) for number in range(frames))


def _colours(picture: Picture) -> Picture:
    return np.ascontiguousarray(np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture)


def every() -> Iterator[Honest]:
    for trade in TRADES:
        yield from pictures(trade)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg(quality: int) -> Callable[[Honest], bytes]:
    return lambda one: _file(Image.fromarray(one.rgb), "JPEG", quality=quality)


def _grey(one: Honest) -> Image.Image:
    return Image.fromarray(one.rgb).convert("L")


def _palette(one: Honest) -> Image.Image:
    return Image.fromarray(one.rgb).quantize(256)


def png(one: Honest) -> bytes:
    return _file(Image.fromarray(one.rgb), "PNG", compress_level=1)


# How each is sent. What an encoding would spoil is not sent so: see `encodings`.
ENCODINGS: dict[str, Callable[[Honest], ImageLike]] = {
    "JPEG 30": _jpeg(30),
    "JPEG 60": _jpeg(60),
    "JPEG 95": _jpeg(95),
    "PNG": png,
    "grey PNG": lambda one: _file(_grey(one), "PNG", compress_level=1),
    "grey JPEG 75": lambda one: _file(_grey(one), "JPEG", quality=75),
    "palette PNG": lambda one: _file(_palette(one), "PNG", compress_level=1),
    "1-bit PNG": lambda one: _file(_grey(one).convert("1"), "PNG"),
    "raw BGR": lambda one: Raw(
        np.ascontiguousarray(one.rgb[:, :, ::-1]).tobytes(),
        pixel_format="BGR8",
        height=one.rgb.shape[0],
        width=one.rgb.shape[1],
    ),
    "raw RGB": lambda one: Raw(one.rgb.tobytes(), pixel_format="RGB8", height=one.rgb.shape[0], width=one.rgb.shape[1]),
    "tensor to 255": lambda one: Tensor(one.rgb.astype(np.float32), "RGB", "HWC", "0-255"),
    "tensor to 1": lambda one: Tensor(one.rgb.transpose(2, 0, 1).astype(np.float32) / 255, "RGB", "CHW", "0-1"),
}


def encodings(one: Honest) -> tuple[str, ...]:
    """The ways in which a picture is sent: in 1 bit (dithered) and by a palette where those leave what it shows."""
    shown = float(np.asarray(_grey(one).convert("1")).mean())
    left = int(np.asarray(_palette(one).convert("RGB")).max())
    spoilt = {"1-bit PNG": not 0.002 < shown < 0.998, "palette PNG": left < int(one.rgb.max()) // 2}
    return tuple(name for name in ENCODINGS if not spoilt.get(name))

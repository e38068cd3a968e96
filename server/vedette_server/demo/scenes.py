"""Scenes with road signs: described by a seed, drawn the same way every time, labelled to the pixel.

`describe` turns a seed into a `Scene`, `draw` turns a scene into a `Picture`. A `Clip` moves a camera along one
scene, frame by frame. Everything random comes from the seed.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vedette_server.contract.types import BoolArray, Float32Array, UInt8Array
from vedette_server.demo import backgrounds, signs

SIZE = (512, 384)  # width and height of a scene, in pixels
_LEAST_VISIBLE = 0.6  # an occluder that leaves less of a sign visible is omitted
_QUIET_SHARE = 0.2  # share of scenes without signs


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A sign (or a decoy, whose class is None) in a scene: its position and rotation."""

    name: str | None
    x: float  # centre of the face, in pixels
    y: float
    side: float  # edge of the square patch, in pixels
    roll: float  # in the image plane, radians
    yaw: float  # around the vertical axis, away from the camera, radians
    seed: int  # for variation of the face itself: text, wear, light


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Light and lens: all effects on the whole picture."""

    gain: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    vignette: float = 0.0  # darkening of the corners, 0 to 1
    fog: float = 0.0  # share of grey mixed in, 0 to 1
    rain: int = 0  # number of streaks
    blur: float = 0.0  # radius of a Gaussian, in pixels
    noise: float = 0.0  # standard deviation of sensor noise, in grey levels
    jpeg_quality: int | None = None  # of a lossy round trip, if any


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn."""

    seed: int
    placed: tuple[Placed, ...]  # nearest last
    weather: Weather


@dataclass(frozen=True)
class Sign:
    """The label of a visible sign: its class and visible pixels, bool, shape (height, width) of the picture."""

    name: str
    mask: BoolArray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """XYXY around the visible pixels, absolute, far edges exclusive."""
        ys, xs = np.nonzero(self.mask)
        return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


@dataclass(frozen=True)
class Picture:
    """A drawn scene: RGB uint8 pixels, shape (height, width, 3), and its labels."""

    pixels: UInt8Array
    signs: tuple[Sign, ...] = field(repr=False)


def _weather(rng: np.random.Generator) -> Weather:
    def sometimes(chance: float, low: float, high: float) -> float:
        value = float(rng.uniform(low, high))
        return value if rng.random() < chance else 0.0

    return Weather(
        gain=float(np.exp(rng.uniform(math.log(0.45), math.log(1.35)))),
        tint=(float(rng.uniform(0.87, 1.13)), float(rng.uniform(0.94, 1.06)), float(rng.uniform(0.87, 1.13))),
        contrast=float(rng.uniform(0.75, 1.2)),
        vignette=sometimes(0.4, 0.1, 0.5),
        fog=sometimes(0.2, 0.1, 0.4),
        rain=int(sometimes(0.15, 40, 160)),
        blur=sometimes(0.6, 0.3, 1.8),
        noise=sometimes(0.8, 1.0, 12.0),
        jpeg_quality=int(sometimes(0.5, 40, 95)) or None,
    )


def _place(rng: np.random.Generator, taken: list[Placed], name: str | None) -> Placed | None:
    """Find a free spot; None if there is none after a few tries."""
    for _ in range(20):
        side = float(np.exp(rng.uniform(math.log(30), math.log(150))))
        x = float(rng.uniform(0.4 * side, SIZE[0] - 0.4 * side))
        y = float(rng.uniform(0.45 * side, SIZE[1] - 0.5 * side))
        if all(math.hypot(x - other.x, y - other.y) > 0.55 * (side + other.side) for other in taken):
            roll, yaw = float(rng.normal(0, 0.12)), float(rng.uniform(-0.8, 0.8))
            return Placed(name=name, x=x, y=y, side=side, roll=roll, yaw=yaw, seed=int(rng.integers(2**31)))
    return None


def describe(seed: int, *, quiet: bool | None = None) -> Scene:
    """Describe the scene of `seed`; `quiet` says whether it has no signs, None leaves that to the seed."""
    rng = np.random.default_rng([seed, 1])
    drawn_quiet = bool(rng.random() < _QUIET_SHARE)
    count = 0 if (drawn_quiet if quiet is None else quiet) else 1 + int(rng.poisson(1.6))
    names: list[str | None] = [str(rng.choice(signs.CLASSES)) for _ in range(min(count, 6))]
    names += [None] * int(rng.choice([0, 0, 1, 1, 2, 3]))
    placed: list[Placed] = []
    for name in names:
        if spot := _place(rng, placed, name):
            placed.append(spot)
    return Scene(seed, tuple(sorted(placed, key=lambda item: item.side)), _weather(rng))


def _worn(patch: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Add fading, dirt and lighting to a face, without changing its alpha."""
    colour = patch[..., :3].astype(np.float32)
    grey = colour.mean(axis=2, keepdims=True)
    colour = grey + (colour - grey) * float(rng.uniform(0.65, 1.1))
    dirt = backgrounds.noise(rng, (signs.PATCH, signs.PATCH))[..., None]
    left, right = rng.uniform(0.75, 1.1, 2).tolist()
    shade = np.linspace(left, right, signs.PATCH, dtype=np.float32)[None, :, None]
    colour *= shade * (1 - dirt * float(rng.uniform(0, 0.35)))
    return np.concatenate([np.clip(colour, 0, 255).astype(np.uint8), patch[..., 3:]], axis=2)


def _warp(patch: UInt8Array, item: Placed) -> Image.Image:
    """Rotate a face and project it onto a transparent canvas of the scene's size."""
    half = item.side / 2
    cos, sin = math.cos(item.roll), math.sin(item.roll)
    corners = []
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        depth = 1 + 0.18 * math.sin(item.yaw) * x  # the far edge is smaller
        u, v = x * math.cos(item.yaw) * half / depth, y * half / depth
        corners.append((item.x + cos * u - sin * v, item.y + sin * u + cos * v))
    side = float(signs.PATCH)
    coefficients = _perspective(corners, [(0.0, 0.0), (side, 0.0), (side, side), (0.0, side)])
    # Shrink before warping, because the warp does not average.
    blur = max(0.0, signs.PATCH / item.side / 2 - 0.5)
    premultiplied = patch.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    source = Image.fromarray(premultiplied.astype(np.uint8)).filter(ImageFilter.BoxBlur(blur))
    return source.transform(SIZE, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)


def _perspective(target: list[tuple[float, float]], source: list[tuple[float, float]]) -> list[float]:
    """Return the eight coefficients with which Pillow maps a point of the target to its point in the source."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(values))]


def _over(canvas: Float32Array, layer: Image.Image) -> BoolArray:
    """Composite a premultiplied layer over the canvas in place, and return where it is opaque."""
    opaque = np.zeros(canvas.shape[:2], bool)
    if box := layer.getbbox(alpha_only=False):  # the rest of the layer is transparent
        left, top, right, bottom = box
        pixels = np.asarray(layer.crop(box), np.float32)
        alpha = pixels[..., 3:] / 255
        here = canvas[top:bottom, left:right]
        here *= 1 - alpha
        here += pixels[..., :3]
        opaque[top:bottom, left:right] = alpha[..., 0] > 0.5
    return opaque


def _pole(canvas: Float32Array, item: Placed) -> BoolArray:
    picture = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    half = max(1.0, item.side * 0.035)
    box = (item.x - half, item.y, item.x + half, SIZE[1])
    ImageDraw.Draw(picture).rectangle(box, fill=(118, 120, 122, 255))
    return _over(canvas, picture)


def _occluder(rng: np.random.Generator, item: Placed) -> Image.Image:
    """Draw a branch with leaves, a post or a sticker in front of a sign."""
    picture = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    angle, reach = float(rng.uniform(0, 2 * math.pi)), item.side * 0.5
    x, y = item.x + reach * math.cos(angle), item.y + reach * math.sin(angle)
    if rng.random() < 0.3:
        half = item.side * float(rng.uniform(0.05, 0.12))
        draw.rectangle((x - half, 0, x + half, SIZE[1]), fill=(*(int(v) for v in rng.integers(40, 130, 3)), 255))
        return picture
    green = rng.integers((30, 70, 20), (110, 140, 60))
    for _ in range(int(rng.integers(4, 14))):
        leaf_x, leaf_y = x + rng.normal(0, item.side * 0.18), y + rng.normal(0, item.side * 0.18)
        radius = item.side * rng.uniform(0.04, 0.12)
        tone = tuple(int(np.clip(value + rng.integers(-20, 20), 0, 255)) for value in green)
        draw.ellipse(
            (leaf_x - radius, leaf_y - radius * 0.7, leaf_x + radius, leaf_y + radius * 0.7), fill=(*tone, 255)
        )
    return picture


def _expose(canvas: Float32Array, weather: Weather, rng: np.random.Generator) -> UInt8Array:
    """Apply light, weather, lens and sensor, in the order in which light passes them."""
    height, width = canvas.shape[:2]
    if weather.fog:
        canvas = canvas * (1 - weather.fog) + 190 * weather.fog
    canvas = (canvas - 128) * weather.contrast + 128
    canvas = canvas * weather.gain * np.array(weather.tint, np.float32)
    if weather.vignette:
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        canvas = canvas * (1 - weather.vignette * np.clip((x * x + y * y) / 2, 0, 1))[..., None].astype(np.float32)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(weather.rain):
        left, top, length = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 26)
        draw.line((left, top, left + length * 0.25, top + length), fill=(215, 220, 230, 90))
    picture = picture.filter(ImageFilter.GaussianBlur(weather.blur))
    if weather.noise:
        noisy = np.asarray(picture, np.float32) + rng.normal(0, weather.noise, (height, width, 3))
        picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if weather.jpeg_quality:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=weather.jpeg_quality)
        picture = Image.open(buffer)
    return np.asarray(picture).copy()


def _stand(canvas: Float32Array, item: Placed, nearer_than: list[BoolArray]) -> BoolArray:
    """Draw a sign or decoy on its pole in front of the scene so far, and return its visible pixels."""
    own = np.random.default_rng(item.seed)
    patch = signs.face(item.name, own) if item.name else signs.decoy(own)
    hidden = _pole(canvas, item)
    visible = _over(canvas, _warp(_worn(patch, own), item))
    _hide(nearer_than, hidden | visible)
    if own.random() < 0.3:
        layer = _occluder(own, item)
        behind = np.asarray(layer)[..., 3] > 127
        everything = [*nearer_than, visible]
        if all((mask & ~behind).sum() >= _LEAST_VISIBLE * max(mask.sum(), 1) for mask in everything):
            _over(canvas, layer)
            _hide(everything, behind)
    return visible


def _hide(masks: list[BoolArray], behind: BoolArray) -> None:
    """Remove what an object hides from the masks, in place."""
    for mask in masks:
        np.logical_and(mask, ~behind, out=mask)


def draw(scene: Scene, background: UInt8Array | None = None) -> Picture:
    """Draw a scene and its labels; the same scene always gives the same pixels.

    `background` is a photograph to draw on, RGB, shape (height, width, 3) of `SIZE`; by default one is painted.
    """
    rng = np.random.default_rng([scene.seed, 2])
    canvas = (backgrounds.paint(rng, SIZE) if background is None else background).astype(np.float32)
    names: list[str] = []
    masks: list[BoolArray] = []
    for item in scene.placed:
        visible = _stand(canvas, item, masks)
        if item.name:
            names.append(item.name)
            masks.append(visible)
    pixels = _expose(canvas, scene.weather, rng)
    return Picture(pixels, tuple(Sign(name, mask) for name, mask in zip(names, masks, strict=True) if mask.any()))


@dataclass(frozen=True)
class Clip:
    """A camera that drives towards the signs of one scene: `frames` pictures at `fps` frames per second."""

    seed: int
    frames: int = 50
    fps: int = 25

    def scene(self, index: int) -> Scene:
        """Return the scene in frame `index`: closer, and therefore farther from the centre."""
        start = describe(self.seed, quiet=False)
        zoom = 0.6 + 0.5 * index / max(1, self.frames - 1)
        moved = (
            replace(
                item,
                x=SIZE[0] / 2 + (item.x - SIZE[0] / 2) * zoom,
                y=SIZE[1] / 2 + (item.y - SIZE[1] / 2) * zoom,
                side=item.side * zoom,
            )
            for item in start.placed
        )
        return replace(start, placed=tuple(moved))

    def __iter__(self) -> Iterator[Picture]:
        """Draw the frames in order."""
        return (draw(self.scene(index)) for index in range(self.frames))

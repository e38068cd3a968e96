"""Real answers of the bundled model to drawn scenes by day and night, dry and in rain; inferred once, then kept.

A situation is what a camera sees for a while: a sign that comes nearer, or a road without one. Each is drawn at every
light, dry and in rain, and holds the answers to a few of its pictures.
"""

import hashlib
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from vedette_server.contract.answer import Answer, Evidence, PixelStatistics
from vedette_server.contract.image import ImageSpec, PixelFormat, RawImage, SentImage
from vedette_server.contract.options import Asked, MaskFormat, resolve
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.demo.scenes import Clip, Scene, Weather
from vedette_server.pool.channel import _read_array, _write_array
from vedette_server.repository.repository import ModelVersion

BUILD = Path(__file__).parents[2] / "build"
LIGHTS = (0.4, 0.55, 0.7, 0.85, 1.0, 1.2)  # the exposure's gain, from night to noon
SEED = 9_000_000  # held out: no other program draws these scenes
_LOOK = 1  # to be counted up when the pictures change: what was kept is then inferred anew


class Situation(msgspec.Struct, frozen=True):
    """The view of a camera for a while."""

    light: int  # index into LIGHTS
    rain: bool
    quiet: bool
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Size:
    """The number of situations of each light and weather, and of pictures of each."""

    signs: int = 10
    signs_pictures: int = 3
    quiet: int = 4
    quiet_pictures: int = 2


class Pool:
    """Situations by what they are, and a black camera."""

    def __init__(self, situations: Sequence[Situation], black: Sequence[Answer]) -> None:
        self.situations = tuple(situations)
        self.black = tuple(black)
        self._by_kind: dict[tuple[int, bool, bool], list[Situation]] = {}
        for one in situations:
            self._by_kind.setdefault((one.light, one.rain, one.quiet), []).append(one)

    def of(self, light: int, *, rain: bool, quiet: bool) -> list[Situation]:
        return self._by_kind[light, rain, quiet]


class _Kept(msgspec.Struct, frozen=True):
    situations: tuple[Situation, ...]
    black: tuple[Answer, ...]


def pool(version: ModelVersion, size: Size) -> Pool:
    """The pool of that size, from where it is kept if it is."""
    weights = hashlib.sha256((version.folder / "model.safetensors").read_bytes()).hexdigest()
    shapes = map(inspect.signature, (Answer, Evidence, PixelStatistics))
    about = (version.contract.fingerprint, weights, _LOOK, size, *shapes)
    path = BUILD / f"nights-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.msgpack"
    if not path.exists():
        kept = _infer(version, size)
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".part").write_bytes(msgspec.msgpack.encode(kept, enc_hook=_write_array))
        path.with_suffix(".part").rename(path)
    kept = msgspec.msgpack.decode(path.read_bytes(), type=_Kept, dec_hook=_read_array)
    return Pool(kept.situations, kept.black)


def _infer(version: ModelVersion, size: Size) -> _Kept:
    from vedette_server.predictor.predictor import load  # imports torch, which a kept pool need not wait for

    predictor = load(version.folder, version.contract, "cpu", 1)
    options = resolve(Asked(mask_format=MaskFormat.NONE), version.contract)

    def answer(pixels: UInt8Array) -> Answer:
        height, width = pixels.shape[:2]
        spec: ImageSpec = RawImage(PixelFormat.RGB8, height, width)
        return predictor.predict(SentImage(spec, np.ascontiguousarray(pixels).tobytes()), options)

    def situation(light: int, rain: bool, index: int) -> Situation:  # noqa: FBT001  as in a product of ranges
        seed, quiet = SEED + 10 * index, index >= size.signs
        weather = _weather(light, rain, seed)
        drawn = (scenes.draw(scene).pixels for scene in _scenes(seed, size, quiet=quiet, weather=weather))
        return Situation(light, rain, quiet, tuple(map(answer, drawn)))

    each = itertools.product(range(len(LIGHTS)), (False, True), range(size.signs + size.quiet))
    situations = tuple(itertools.starmap(situation, each))
    noise = np.random.default_rng(SEED).normal(2.0, 1.5, (3, scenes.SIZE[1], scenes.SIZE[0], 3))
    black = tuple(answer(np.clip(np.rint(one), 0, 255).astype(np.uint8)) for one in noise)
    return _Kept(situations, black)


def _scenes(seed: int, size: Size, *, quiet: bool, weather: Weather) -> list[Scene]:
    if quiet:
        bare = [scenes.describe(seed + index, quiet=True) for index in range(size.quiet_pictures)]
    else:
        clip = Clip(seed, size.signs_pictures)
        bare = [clip.scene(index) for index in range(clip.frames)]
    return [replace(scene, weather=weather) for scene in bare]


def _weather(light: int, rain: bool, seed: int) -> Weather:  # noqa: FBT001  a table's key
    """Rain blurs, greys and streaks; the darker it is, the more the sensor's noise shows."""
    rng = np.random.default_rng([seed, light, rain])
    gain = LIGHTS[light]
    warmth = float(rng.uniform(0.97, 1.05)) + (0.05 if gain < 0.6 else 0.0)  # lamps by night
    return Weather(
        gain=gain * float(rng.uniform(0.94, 1.06)),
        tint=(warmth, 1.0, 2 - warmth),
        contrast=float(rng.uniform(0.8, 0.9) if rain else rng.uniform(0.95, 1.1)),
        fog=float(rng.uniform(0.1, 0.3)) if rain else 0.0,
        rain=int(rng.integers(60, 160)) if rain else 0,
        blur=float(rng.uniform(0.6, 1.4) if rain else rng.uniform(0.0, 0.6)),
        noise=float(rng.uniform(1.0, 3.0)) + 6.0 * max(0.0, 1.0 - gain),
        jpeg_quality=85,
    )

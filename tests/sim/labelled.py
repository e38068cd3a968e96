"""Labelled pictures: drawn scenes, and photographs that come inside Python packages with signs drawn in."""

import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes

# Photographs in colour, by package and path within it.
_PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
_LEAST_SHARE = 0.6  # of a photograph's width or height that a picture shows


@dataclass(frozen=True)
class Labelled:
    """A picture, BGR, and how many signs it shows."""

    seed: int
    bgr: UInt8Array
    signs: int


def pictures(seeds: Iterator[int] | range, *, quiet: bool) -> Iterator[Labelled]:
    """One picture for each seed: drawn where it is even, a photograph with what is drawn in where it is odd."""
    for seed in seeds:
        scene = scenes.describe(seed, quiet=quiet)
        picture = scenes.draw(scene, _photograph(seed) if seed % 2 else None)
        if bool(picture.signs) is not quiet:
            yield Labelled(seed, np.ascontiguousarray(picture.pixels[:, :, ::-1]), len(picture.signs))


def drawn(seeds: range, *, quiet: bool) -> Iterator[Labelled]:
    """The same, drawn alone: for tests that need no photographs."""
    return pictures(range(seeds.start - seeds.start % 2, seeds.stop, 2), quiet=quiet)


def background(seed: int) -> UInt8Array:
    """A picture of nothing, BGR."""
    return _photograph(seed)[:, :, ::-1] if seed % 2 else next(pictures(range(seed, seed + 20), quiet=True)).bgr


@functools.cache
def _photographs() -> list[Image.Image]:
    return [Image.open(_folder(package) / path).convert("RGB") for package, path in _PHOTOGRAPHS]


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _photograph(seed: int) -> UInt8Array:
    """A part of a photograph, mirrored or not, of the scenes' size: RGB."""
    rng = np.random.default_rng([seed, 3])
    photograph = _photographs()[int(rng.integers(len(_PHOTOGRAPHS)))]
    width, height = scenes.SIZE
    scale = float(rng.uniform(_LEAST_SHARE, 1)) * min(photograph.width / width, photograph.height / height)
    across, down = width * scale, height * scale
    left, top = rng.uniform(0, photograph.width - across), rng.uniform(0, photograph.height - down)
    part = photograph.resize(scenes.SIZE, Image.Resampling.BICUBIC, (left, top, left + across, top + down))
    pixels = np.asarray(part)
    return pixels[:, ::-1].copy() if rng.random() < 0.5 else pixels.copy()

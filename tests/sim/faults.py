"""The faults that the labelled set holds: what is done to pictures, what is asked, which model is served."""

import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from vedette_client import ImageLike, Raw
from vedette_client.asking import StreamAsk
from vedette_server.contract.contract import Names
from vedette_server.contract.types import UInt8Array
from vedette_server.demo.signs import CLASSES
from vedette_server.importer import write_version
from vedette_server.predictor.build import build
from vedette_server.predictor.predictor import read_config
from vedette_server.predictor.weights import read_weights
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.sim import labelled

MEAN, STD = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.12, 58.395])
Send = Callable[[UInt8Array, int], ImageLike]


def raw(bgr: UInt8Array, _seed: int = 0) -> ImageLike:
    return Raw(np.ascontiguousarray(bgr).tobytes(), pixel_format="BGR8", height=bgr.shape[0], width=bgr.shape[1])


def _through(change: Callable[[UInt8Array], UInt8Array]) -> Send:
    return lambda bgr, _seed: raw(change(bgr))


def _rounded(values: Any) -> UInt8Array:
    """As OpenCV writes floats into an 8-bit file."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _normalised(bgr: UInt8Array, seed: int) -> ImageLike:
    """As OpenCV makes 8 bits of it, or as NumPy's cast does, which wraps around."""
    values = (bgr - MEAN) / STD
    return raw(_rounded(values) if seed % 4 < 2 else values.astype(np.int8).view(np.uint8))


def _black(bgr: UInt8Array, seed: int) -> ImageLike:
    return raw(_rounded(np.random.default_rng(seed).normal(2.0, 1.5, bgr.shape)))


def _flat(bgr: UInt8Array, seed: int) -> ImageLike:
    """The one colour that decoders show for a lost signal, with and without a sensor's last noise."""
    rng = np.random.default_rng(seed)
    return raw(_rounded(rng.uniform(30, 220, 3) + rng.normal(0, 0.5, bgr.shape)))


def _grey(bgr: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def _small(bgr: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.resize(bgr, (48, 36), interpolation=cv2.INTER_AREA), np.uint8)


def _large(bgr: UInt8Array, seed: int) -> ImageLike:
    """A wide view at eight times the size, of which the picture is one small part."""
    height, width = bgr.shape[:2]
    around = labelled.background(seed)
    view = cv2.resize(around, (8 * width, 8 * height), interpolation=cv2.INTER_CUBIC)
    top, left = 7 * height // 2, 7 * width // 2
    view[top : top + height, left : left + width] = bgr
    buffer = io.BytesIO()
    Image.fromarray(view[:, :, ::-1]).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@dataclass(frozen=True)
class Fault:
    """One way to be empty, and the primary reasons that name it."""

    codes: tuple[str, ...]
    send: Send = raw
    ask: StreamAsk = field(default_factory=StreamAsk)
    model: str = "roadsigns"
    quiet: bool = False  # whether the pictures show nothing
    frozen: bool = False  # whether one picture comes again and again
    mistake: str = ""  # as Diagnose names it


FAULTS: Mapping[str, Fault] = {
    "below threshold": Fault(("BELOW_THRESHOLD",), ask={"threshold": 0.9999}, mistake="THRESHOLD"),
    "class filter": Fault(("CLASS_FILTER",), ask={"classes": ["parking"]}),
    "capped to nothing": Fault(("CAPPED",), model="capped"),
    "no proposals": Fault(("NO_PROPOSALS",), model="no_proposals"),
    "not finite": Fault(("NON_FINITE_VALUES",), model="not_finite"),
    "black camera": Fault(("IMAGE_BLACK",), _black),
    "flat": Fault(("IMAGE_FLAT",), _flat),
    "frozen feed": Fault(("FEED_FROZEN",), quiet=True, frozen=True),
    "unit range": Fault(("VALUES_IN_UNIT_RANGE",), _through(lambda bgr: _rounded(bgr / 255)), mistake="UNIT_RANGE"),
    "normalised": Fault(("VALUES_NORMALISED",), _normalised, mistake="NORMALISED"),
    "channels swapped": Fault(("CHANNELS_SWAPPED",), _through(lambda bgr: bgr[:, :, ::-1]), mistake="CHANNELS_SWAPPED"),
    "grey for colour": Fault(("GREY_FOR_COLOUR",), _through(_grey)),
    "far too small": Fault(("IMAGE_TOO_SMALL",), _through(_small)),
    "far too large": Fault(("IMAGE_TOO_LARGE",), _large, mistake="TOO_FAR"),
    "upside down": Fault(("IMAGE_ROTATED",), _through(lambda bgr: bgr[::-1, ::-1]), mistake="ROTATED_180"),
    "on its side": Fault(("IMAGE_ROTATED",), _through(lambda bgr: np.rot90(bgr, -1)), mistake="ROTATED_90"),
    "random heads": Fault(("SCORES_FLAT",), model="random_heads"),
    "golden failing": Fault(("GOLDEN_FAILING",), model="golden_failing"),
}

# Mistakes that leave the bundled model's answers seldom empty, for Diagnose alone.
MISTAKES: Mapping[str, Fault] = {
    **{name: fault for name, fault in FAULTS.items() if fault.mistake},
    "on its other side": Fault((), _through(lambda bgr: np.rot90(bgr, 1)), mistake="ROTATED_270"),
    "inverted": Fault((), _through(lambda bgr: 255 - bgr), mistake="INVERTED"),
    "planes as pixels": Fault(
        (), lambda bgr, _seed: raw(bgr.transpose(2, 0, 1).reshape(bgr.shape)), mistake="CHW_AS_HWC"
    ),
    "height and width exchanged": Fault(
        (), _through(lambda bgr: bgr.reshape(bgr.shape[1], bgr.shape[0], 3)), mistake="SIZE_SWAPPED"
    ),
    "too dark": Fault((), _through(lambda bgr: _rounded((bgr / 255) ** 2.2 * 255)), mistake="TOO_DARK"),
    "too bright": Fault((), _through(lambda bgr: _rounded((bgr / 255) ** (1 / 2.2) * 255)), mistake="TOO_BRIGHT"),
}

_WAIVERS = 'waivers = ["ALWAYS_EMPTY", "VALUES_NOT_FINITE", "SCORES_FLAT", "GOLDEN_CHANGED", "CHECKSUM_CHANGED"]\n'


def repository(root: Path) -> Path:
    """A repository of the bundled model and of its faulty variants, whose checks are waived."""
    bundled = BUNDLED_REPOSITORY / "roadsigns"
    (root / "roadsigns").symlink_to(bundled)
    for name, (settings, damage) in _VARIANTS.items():
        folder = root / name
        folder.mkdir()
        (folder / "model.toml").write_text("threshold = 0.5\n" + _WAIVERS)
        config = read_config(bundled / "1")
        for path, value in settings.items():
            *parents, last = path.split(".")
            section = config
            for parent in parents:
                section = section[parent]
            section[last] = value
        model = build(config, (), "cpu")
        model.load_state_dict(read_weights(bundled / "1" / "model.safetensors", model, None))
        with torch.no_grad():
            damage(model)
        write_version(folder, 1, config, model, names=Names(CLASSES), pictures={})
        if name == "golden_failing":  # what it must give is what the sound model gives
            shutil.copytree(bundled / "1" / "golden", folder / "1" / "golden", dirs_exist_ok=True)
    return root


def _nan(model: torch.nn.Module) -> None:
    model.get_parameter("roi_heads.box_predictor.cls_score.weight").fill_(float("nan"))


def _random_heads(model: torch.nn.Module) -> None:
    torch.manual_seed(3)
    for name in ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"):
        model.get_parameter(f"{name}.weight").normal_(std=0.01)
        model.get_parameter(f"{name}.bias").zero_()


def _background(model: torch.nn.Module) -> None:
    """A model that has forgotten everything but the background."""
    model.get_parameter("roi_heads.box_predictor.cls_score.bias")[-1] += 30


_VARIANTS: dict[str, tuple[dict[str, Any], Callable[[torch.nn.Module], None]]] = {
    "capped": ({"TEST.DETECTIONS_PER_IMAGE": 0}, lambda _model: None),
    "no_proposals": ({"MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 10_000}, lambda _model: None),
    "not_finite": ({}, _nan),
    "random_heads": ({}, _random_heads),
    "golden_failing": ({}, _background),
}

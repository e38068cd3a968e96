"""Publication of a training checkpoint as a version of the model `roadsigns`, with reliable golden images."""

import io
from pathlib import Path

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from PIL import Image

from vedette_server import importer
from vedette_server.contract.contract import Names
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import recipe, scenes
from vedette_server.demo.signs import CLASSES
from vedette_server.predictor.config import plain

MODEL_TOML = """\
description = "Six classes of drawn road signs whose colours matter; see MODEL_CARD.md"
threshold = 0.5
"""
_GOLDEN_SEEDS = range(2_000_000, 2_000_040)
_GOLDEN_WITH_SIGNS, _GOLDEN_QUIET = 4, 1
_SURE, _UNSURE = 0.9, 0.05


def jpeg(pixels: UInt8Array) -> bytes:
    """Encode a picture as a JPEG file; `pixels` are RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _golden_pictures(config: CfgNode, checkpoint: Path) -> dict[str, bytes]:
    """Choose pictures whose answers are correct and far from the threshold, so that they stay so on any machine."""
    config = config.clone()
    config.MODEL.WEIGHTS = str(checkpoint)
    config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = _UNSURE
    predictor = DefaultPredictor(config)
    wanted = {True: _GOLDEN_WITH_SIGNS, False: _GOLDEN_QUIET}
    chosen: dict[str, bytes] = {}
    for seed in _GOLDEN_SEEDS:
        picture = scenes.draw(scenes.describe(seed))
        data = jpeg(picture.pixels)
        bgr = np.asarray(Image.open(io.BytesIO(data)))[:, :, ::-1]
        found = predictor(bgr)["instances"].to("cpu")
        names = sorted(CLASSES[index] for index in found.pred_classes.tolist())
        sure = bool((found.scores > _SURE).all())
        if wanted[bool(picture.signs)] and sure and names == sorted(sign.name for sign in picture.signs):
            wanted[bool(picture.signs)] -= 1
            chosen["-".join(dict.fromkeys(names)) + ".jpg" if names else "no-sign.jpg"] = data
        if not any(wanted.values()):
            break
    return chosen


def publish(checkpoint: Path, root: Path) -> Path:
    """Write version 1 of `roadsigns` into the repository at `root`, and return its folder."""
    config = recipe.config()
    config.DATASETS.TRAIN = ()
    folder = root / "roadsigns"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(MODEL_TOML, encoding="utf-8")
    predictor = DefaultPredictor(config)
    DetectionCheckpointer(predictor.model).load(str(checkpoint))
    pictures = _golden_pictures(config, checkpoint)
    for parameter in predictor.model.parameters():
        if parameter.ndim > 1:  # halves the file; loading restores 32 bits, and the card measures the result
            parameter.data = parameter.data.half()
    return importer.write_version(folder, 1, plain(config), predictor.model, names=Names(CLASSES), pictures=pictures)

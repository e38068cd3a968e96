"""Evaluation of the bundled model on held-out scenes, which writes its card's table: `make card`."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.progress import track

from vedette_server.contract.answer import Detections
from vedette_server.contract.options import defaults
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.demo.signs import CLASSES
from vedette_server.predictor.encode import detections
from vedette_server.predictor.reference import default_predictor
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion
from vedette_server.settings import BUNDLED_REPOSITORY

HELD_OUT = range(300)  # seeds; those for training begin at a million
DETECTRON2_THRESHOLD = 0.05
_CARD = BUNDLED_REPOSITORY / "roadsigns" / "MODEL_CARD.md"
_TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- /table -->)", re.DOTALL)

Distort = Callable[[UInt8Array, ModelVersion], NDArray[Any]]


def _right(bgr: UInt8Array, _model: ModelVersion) -> NDArray[Any]:
    return bgr


def _swapped(bgr: UInt8Array, _model: ModelVersion) -> NDArray[Any]:
    return bgr[:, :, ::-1]


def _unit_range(bgr: UInt8Array, _model: ModelVersion) -> NDArray[Any]:
    return bgr.astype(np.float32) / 255


def _normalised(bgr: UInt8Array, model: ModelVersion) -> NDArray[Any]:
    contract = model.contract
    pixels: NDArray[Any] = (bgr - np.array(contract.pixel_mean, np.float32)) / np.array(contract.pixel_std, np.float32)
    return pixels


INPUTS: dict[str, Distort] = {
    "right (BGR, uint8, 0 to 255)": _right,
    "red and blue swapped": _swapped,
    "scaled to [0, 1]": _unit_range,
    "normalised before sending": _normalised,
}


@dataclass(frozen=True)
class Scored:
    """The signs in a scene, and the model's detections at Detectron2's low threshold."""

    truth: tuple[scenes.Sign, ...]
    found: Detections


def answers(model: ModelVersion, seeds: Sequence[int] = HELD_OUT) -> dict[str, list[Scored]]:
    """Infer the scenes of `seeds` with Detectron2's own predictor, sent in each of the ways of `INPUTS`."""
    predictor = default_predictor(model.folder, {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": DETECTRON2_THRESHOLD})
    scored: dict[str, list[Scored]] = {name: [] for name in INPUTS}
    for seed in track(seeds, "scenes", console=Console(stderr=True)):
        picture = scenes.draw(scenes.describe(seed))
        bgr = np.ascontiguousarray(picture.pixels[:, :, ::-1])
        for name, distort in INPUTS.items():
            found = detections(predictor(distort(bgr, model))["instances"].to("cpu"), defaults(model.contract))
            scored[name].append(Scored(picture.signs, found))
    return scored


def _above(found: Detections, threshold: float) -> Iterator[int]:
    return iter(np.flatnonzero(found.scores > threshold).tolist())


def _compressed(mask: NDArray[Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = rle.encode(np.asfortranarray(mask, np.uint8))
    return encoded


def average_precision(scored: Sequence[Scored], threshold: float, kind: str) -> float:
    """Return pycocotools' AP50 of all detections above `threshold`; `kind` is "bbox" or "segm"."""
    height, width = scenes.SIZE[::-1]
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scored):
        for sign in scene.truth:
            x0, y0, x1, y1 = sign.box
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image_id,
                    "category_id": CLASSES.index(sign.name),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(sign.mask.sum()),
                    "segmentation": _compressed(sign.mask),
                    "iscrowd": 0,
                }
            )
        for index in _above(scene.found, threshold):
            x0, y0, x1, y1 = scene.found.boxes[index].tolist()
            masks = scene.found.masks or ()
            found.append(
                {
                    "image_id": image_id,
                    "category_id": int(scene.found.class_ids[index]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(scene.found.scores[index]),
                    "segmentation": {"size": [height, width], "counts": masks[index].counts},
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints progress
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": image_id, "height": height, "width": width} for image_id in range(len(scored))],
            "annotations": truth,
            "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


def recall(scored: Sequence[Scored], threshold: float) -> float:
    """Return the share of signs covered by a detection of their class with an IoU of at least 0.5."""
    hits = total = 0
    for scene in scored:
        total += len(scene.truth)
        kept = list(_above(scene.found, threshold))
        for sign in scene.truth:
            same = [scene.found.boxes[index] for index in kept if CLASSES[scene.found.class_ids[index]] == sign.name]
            hits += any(_iou(box.tolist(), sign.box) >= 0.5 for box in same)
    return hits / total


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def empty_share(scored: Sequence[Scored], threshold: float) -> float:
    """Return the share of scenes with signs whose answer is empty."""
    with_signs = [scene for scene in scored if scene.truth]
    return sum(not list(_above(scene.found, threshold)) for scene in with_signs) / len(with_signs)


def table(model: ModelVersion, seeds: Sequence[int] = HELD_OUT) -> str:
    """Run all measurements on the scenes of `seeds`, and format them as the card's Markdown."""
    default = model.contract.default_threshold
    by_input = answers(model, seeds)
    right = next(iter(by_input.values()))
    lines = ["| threshold | box AP50 | mask AP50 |", "| --- | --- | --- |"]
    for name, threshold in (
        (f"{default} (the product's default)", default),
        (f"{DETECTRON2_THRESHOLD} (Detectron2's)", DETECTRON2_THRESHOLD),
    ):
        box, mask = (average_precision(right, threshold, kind) for kind in ("bbox", "segm"))
        lines.append(f"| {name} | {box:.3f} | {mask:.3f} |")
    signs = sum(len(scene.truth) for scene in right)
    with_signs = sum(bool(scene.truth) for scene in right)
    lines += ["", f"{len(right)} held-out scenes, {with_signs} of them with {signs} signs.", ""]
    lines += [f"| what is sent | recall at {default} | scenes with signs left empty |", "| --- | --- | --- |"]
    for name, scored in by_input.items():
        lines.append(f"| {name} | {recall(scored, default):.3f} | {empty_share(scored, default):.3f} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--repository", "root", type=click.Path(path_type=Path), default=BUNDLED_REPOSITORY, show_default=True)
def main(root: Path) -> None:
    """Print the card's table; for the bundled model, also write it into the card."""
    (model,) = repository.read(root)
    measured = table(model)
    if root == BUNDLED_REPOSITORY:
        _CARD.write_text(_TABLE.sub(lambda _match: measured, _CARD.read_text(encoding="utf-8")), encoding="utf-8")
    click.echo(measured)


if __name__ == "__main__":
    main()

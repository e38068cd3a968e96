"""Inference of a version's golden images on demand, with a comparison to the expected answers.

It is a separate program, like the importer, because it runs the model, which the gateway never does.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from vedette_commands import text

from vedette_server.contract.answer import Answer, corners
from vedette_server.contract.contract import named
from vedette_server.contract.files import declare, picture
from vedette_server.contract.options import defaults
from vedette_server.contract.refusal import Refused
from vedette_server.predictor.predictor import load
from vedette_server.predictor.prove import failure
from vedette_server.repository import runs
from vedette_server.repository.golden import (
    ExpectedObject,
    Golden,
    Pair,
    Tolerance,
    describe,
    difference,
    pairs,
    relabelled,
    tolerance,
)
from vedette_server.repository.repository import ModelVersion, RepositoryError

_BOX, _TINT = (255, 64, 160), 0.35  # a colour that is rare in pictures, and its share within a mask
_LINE = 13  # height of text, in pixels


@dataclass(frozen=True)
class Checked:
    """A golden image, its current answer, and their comparison."""

    golden: Golden
    answer: Answer
    pairs: Sequence[Pair]
    allowed: Tolerance

    @property
    def same(self) -> bool:
        """True if all expected objects were found, and nothing else."""
        return difference(self.golden, self.answer, self.allowed) is None

    @property
    def relabelled(self) -> float | None:
        """The share of pixels whose class changed; None if the model has no pixel classes."""
        return relabelled(self.golden, self.answer)


def check(version: ModelVersion, device: str, threads: int) -> Iterator[Checked]:
    """Infer a version's golden images one by one, as a worker does before it serves.

    Raises `LoadRefusedError` if the version cannot be loaded or fails on a picture, `RepositoryError` if a picture
    cannot be decoded.
    """
    contract = version.contract
    allowed = tolerance(contract.precision)
    predictor = load(version.folder, contract, device, threads)
    for golden in version.golden:
        try:
            answer = predictor.predict(declare(golden.data, contract), defaults(contract))
        except Refused as error:
            msg = f"{version.folder / 'golden' / golden.name} cannot be read: {error.reason}; import the model again"
            raise RepositoryError(msg) from error
        except Exception as error:  # a model may raise anything
            raise failure(error, golden.name) from error
        yield Checked(golden, answer, pairs(golden, answer), allowed)


def show(checked: Sequence[Checked], class_names: Sequence[str]) -> None:
    """Print a table with a row for each object, and one for each picture that is expected to be empty and is."""
    shown = text.table("picture", "class", "expected score", "seen score", "box differs by", "mask IoU", "verdict")
    for one in checked:
        for pair in one.pairs:
            box = "" if pair.box is None else f"{pair.box:.2f} px"
            iou = "" if pair.mask_iou is None else f"{pair.mask_iou:.3f}"
            found = pair.expected or pair.seen
            name = named(class_names, found.class_id) if found else ""
            verdict = pair.wrong(one.allowed) or "agrees"
            text.row(shown, one.golden.name, name, _score(pair.expected), _score(pair.seen), box, iou, verdict)
        if one.relabelled is not None:
            wrong = one.relabelled > one.allowed.labels
            verdict = f"{one.relabelled:.1%} of the pixels have another class" if wrong else "agrees"
            text.row(shown, one.golden.name, "every pixel", "", "", "", "", verdict)
        elif not one.pairs:
            text.row(shown, one.golden.name, "", "", "", "", "", "agrees: empty")
    text.show(shown)


def _score(found: ExpectedObject | None) -> str:
    return f"{found.score:.4f}" if found else "none"


def record(checked: Checked, version: ModelVersion) -> dict[str, Any]:
    """Return one picture's comparison as data for JSON."""
    return {
        "picture": checked.golden.name,
        "model": version.name,
        "version": str(version.version),
        "same": checked.same,
        "pixels_relabelled": checked.relabelled,
        "objects": [_object(pair, checked.allowed, version.contract.class_names) for pair in checked.pairs],
    }


def _object(pair: Pair, allowed: Tolerance, class_names: Sequence[str]) -> dict[str, Any]:
    found = pair.expected or pair.seen
    assert found is not None  # noqa: S101  a pair has at least one
    return {
        "class": named(class_names, found.class_id),
        "class_id": found.class_id,
        "expected": _found(pair.expected),
        "seen": _found(pair.seen),
        "box_difference": None if pair.box is None else round(pair.box, 3),
        "mask_iou": pair.mask_iou,
        "wrong": pair.wrong(allowed),
    }


def _found(found: ExpectedObject | None) -> dict[str, Any] | None:
    """Round as the client's commands do."""
    if found is None:
        return None
    return {"score": round(found.score, 6), "box": [round(edge, 3) for edge in found.box]}


def drawn(checked: Checked, class_names: Sequence[str]) -> bytes:
    """Draw the picture with the expected objects (left) and the detected ones (right), as PNG."""
    shown = picture(checked.golden.data)
    sides = (checked.golden.objects, describe(checked.answer.detections))
    sheet = Image.new("RGB", (2 * shown.width, shown.height))
    for index, objects in enumerate(sides):
        sheet.paste(_drawn(shown, objects, class_names), (index * shown.width, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _drawn(shown: Image.Image, objects: Sequence[ExpectedObject], class_names: Sequence[str]) -> Image.Image:
    """Return a copy of the picture with boxes, masks, class names and scores."""
    pixels = np.array(shown, np.float32)
    for item in objects:
        if item.mask is not None and runs.whole(item.mask.encode(), shown.height * shown.width):
            inside = rle.decode({"size": [shown.height, shown.width], "counts": item.mask.encode()}).astype(bool)
            pixels[inside] = (1 - _TINT) * pixels[inside] + _TINT * np.array(_BOX)
    canvas = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for item in objects:
        if item.rotated_box:
            outline = [tuple(corner) for corner in corners(item.rotated_box).tolist()]
            draw.polygon(outline, outline=_BOX, width=2)
        else:
            draw.rectangle(item.box, outline=_BOX, width=2)
        corner, label = (
            (item.box[0], max(item.box[1] - _LINE, 0)),
            f"{named(class_names, item.class_id)} {item.score:.2f}",
        )
        draw.text(corner, label, fill="white", stroke_width=2, stroke_fill="black")
    return canvas

"""Draw a result into its picture, with supervision's annotators."""

import io
from pathlib import Path

from PIL import Image, ImageOps

from vedette_client.errors import LocalError
from vedette_client.results import Result


def annotate(picture: Image.Image, result: Result) -> Image.Image:
    """Draw boxes, masks, class names and scores; `picture` is the image as sent, upright or with its EXIF data.

    Raises `LocalError` if the package supervision is missing.
    """
    found = result.to_supervision()
    import supervision  # an optional dependency: to_supervision has said what to do without it

    canvas = ImageOps.exif_transpose(picture).convert("RGB")
    labels = [f"{item.class_name} {item.score:.2f}" for item in result]
    if found.mask is not None:
        canvas = supervision.MaskAnnotator(opacity=0.3).annotate(canvas, found)
    canvas = supervision.BoxAnnotator(thickness=2).annotate(canvas, found)
    drawn: Image.Image = supervision.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(canvas, found, labels)
    return drawn


def save(source: Path, result: Result, folder: Path) -> Path:
    """Draw a result into the picture at `source`, and save it in `folder` as PNG; returns where."""
    target = folder / f"{source.stem}.png"
    buffer = io.BytesIO()
    try:
        with Image.open(source) as picture:
            annotate(picture, result).save(buffer, "PNG")
    except OSError as error:
        msg = f"cannot draw into {source}: {error}"
        raise LocalError(msg) from error
    return write(target, buffer.getvalue())


def write(target: Path, data: bytes) -> Path:
    """Write a picture's file, and its folder where there is none; returns where. Raises `LocalError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        msg = f"cannot save {target}: {error}"
        raise LocalError(msg) from error
    return target

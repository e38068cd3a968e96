"""Drawing of results into pictures: detections with supervision's annotators, the rest with NumPy and Pillow."""

import colorsys
import io
import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from vedette_client import unpacked
from vedette_client.errors import LocalError
from vedette_client.results import Detection, Result

_OVERLAY = 0.45  # opacity of a class's or a segment's colour
_TURN = (math.sqrt(5) - 1) / 2  # between the hues of neighbouring numbers, so that a few numbers all differ
_SHOWN_POINT = 0.05  # minimum score of a drawn keypoint, as in Detectron2's visualizer
_POINTS = 17  # COCO's keypoints of people, whose connections are known
_BONES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip


def annotate(picture: Image.Image, result: Result, *, upright: bool = True) -> Image.Image:
    """Draw the result: maps of segments or classes, boxes, masks, class names and scores, keypoints.

    `picture` is the image as sent; `upright` says whether the server turned it by its EXIF data, as it does by default.
    Raises `LocalError` if there are boxes to draw and the package supervision is missing.
    """
    canvas = _eight_bits(ImageOps.exif_transpose(picture) if upright else picture)
    if result.panoptic is not None:
        canvas = _overlaid(canvas, result.panoptic.segment_map_png)
    elif result.class_map_png is not None:
        canvas = _overlaid(canvas, result.class_map_png)
    if not len(result) and (result.panoptic is not None or result.class_map_png is not None):
        return canvas  # there are no boxes to draw
    return _with_points(_with_boxes(canvas, result), result)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Convert to RGB; samples with more than 8 bits keep the upper ones, which Pillow itself would clip to white."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")


def _with_boxes(canvas: Image.Image, result: Result) -> Image.Image:
    found = result.to_supervision()
    import supervision  # an optional dependency: to_supervision has reported it if missing

    labels = [f"{item.class_name} {item.score:.2f}" for item in result]
    if found.mask is not None:
        canvas = supervision.MaskAnnotator(opacity=0.3).annotate(canvas, found)
    boxes = supervision.OrientedBoxAnnotator if "xyxyxyxy" in found.data else supervision.BoxAnnotator
    canvas = boxes(thickness=2).annotate(canvas, found)
    drawn: Image.Image = supervision.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(canvas, found, labels)
    return drawn


def _with_points(canvas: Image.Image, result: Result) -> Image.Image:
    """Draw each keypoint as a dot, and connect those of a person."""
    if not any(item.keypoints for item in result):
        return canvas
    draw = ImageDraw.Draw(canvas)
    radius = max(2, round(max(canvas.size) / 300))
    for item in result:
        for first, second in _bones(item):
            ends = [(item.keypoints[index].x, item.keypoints[index].y) for index in (first, second)]
            draw.line(ends, fill=_colour(first), width=radius)
        for number, point in enumerate(item.keypoints):
            if point.score >= _SHOWN_POINT:
                box = (point.x - radius, point.y - radius, point.x + radius, point.y + radius)
                draw.ellipse(box, fill=_colour(number), outline="black")
    return canvas


def _bones(item: Detection) -> Iterable[tuple[int, int]]:
    if len(item.keypoints) != _POINTS:
        return []
    return (bone for bone in _BONES if all(item.keypoints[index].score >= _SHOWN_POINT for index in bone))


def _overlaid(canvas: Image.Image, png: bytes) -> Image.Image:
    """Blend each number's colour over its pixels in a map; borders are white."""
    shown = numbers(png)
    if shown.shape != (canvas.height, canvas.width):
        msg = f"the answer's map is {shown.shape[1]} x {shown.shape[0]}, the picture {canvas.width} x {canvas.height}"
        raise LocalError(msg)
    colours = np.array([_colour(number) for number in range(int(shown.max()) + 1)], np.float32)
    pixels = (1 - _OVERLAY) * np.asarray(canvas, np.float32) + _OVERLAY * colours[shown]
    pixels[_borders(shown)] = 255
    return Image.fromarray(pixels.astype(np.uint8))


def numbers(png: bytes) -> NDArray[np.int64]:
    """Return the number of each pixel of a map: shape (height, width). Raises `InternalError` for an invalid map."""
    return unpacked.png(png).astype(np.int64)


def _borders(shown: NDArray[np.int64]) -> NDArray[np.bool_]:
    border = np.zeros(shown.shape, bool)
    border[:, 1:] |= shown[:, 1:] != shown[:, :-1]
    border[1:] |= shown[1:] != shown[:-1]
    return border


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _TURN % 1, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def opened(data: bytes) -> Image.Image:
    """Decode a file's picture. Raises `LocalError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the server accepted it, so its size is intended
            picture = Image.open(io.BytesIO(data))
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        msg = f"cannot draw into it: {error}"
        raise LocalError(msg) from error
    return picture


def png(picture: Image.Image) -> bytes:
    """Encode a picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Place pictures of the same height in a row."""
    sheet = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)))
    left = 0
    for one in pictures:
        sheet.paste(one, (left, 0))
        left += one.width
    return sheet

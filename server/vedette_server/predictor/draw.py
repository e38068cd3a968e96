"""Thumbnails of a model's input with its detections."""

from collections.abc import Callable

import cv2
import numpy as np

from vedette_server.contract.answer import Detections
from vedette_server.contract.types import UInt8Array

_EDGE = 320  # maximum, in pixels
_COLOUR = (80, 220, 60)  # blue, green, red
_QUALITY = 85


def thumbnail(shown: UInt8Array, size: tuple[int, int], found: Detections, name: Callable[[int], str]) -> bytes:
    """Draw the detections on a model's input, BGR, as a JPEG; `size` (height, width) is that of the image as sent."""
    scale = min(1.0, _EDGE / max(shown.shape[:2]))
    height, width = (max(1, round(edge * scale)) for edge in shown.shape[:2])
    canvas = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)
    down, across = canvas.shape[0] / size[0], canvas.shape[1] / size[1]
    for index, (class_id, score) in enumerate(zip(found.class_ids.tolist(), found.scores.tolist(), strict=True)):
        outline = np.rint(found.outline(index) * np.array((across, down))).astype(np.int32)
        cv2.polylines(canvas, [outline], isClosed=True, color=_COLOUR, thickness=2)
        x0, y0 = outline.min(axis=0).tolist()
        label = f"{name(class_id)} {score:.2f}"
        cv2.putText(canvas, label, (x0, max(10, y0 - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _COLOUR, 1, cv2.LINE_AA)
    written, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert written  # noqa: S101  never fails at this size
    return data.tobytes()

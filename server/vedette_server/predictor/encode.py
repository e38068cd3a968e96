"""From Detectron2's structures to an answer's."""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle

from vedette_server.contract.answer import Detections, Mask, Panoptic, Segment
from vedette_server.contract.contract import Output
from vedette_server.contract.options import MaskFormat, Options
from vedette_server.contract.types import BoolArray

_LEAST_POINTS = 3  # of a polygon
_EIGHT_BITS, _SIXTEEN_BITS = 256, 65_536  # values of a grey PNG


def detections(instances: Any, options: Options) -> Detections:  # noqa: ANN401  detectron2 is untyped
    """Convert `Instances` on the CPU, already scaled to the sent image, in their own order (best score first)."""
    masks = options.masks and instances.has("pred_masks")
    keypoints = Output.KEYPOINTS in options.outputs and instances.has("pred_keypoints")
    return Detections(
        boxes=instances.pred_boxes.tensor.float().numpy(),
        scores=instances.scores.float().numpy(),
        class_ids=instances.pred_classes.to(torch.int32).numpy(),
        # One by one, so that one more copy of one mask exists at a time.
        masks=tuple(_mask(mask.numpy(), options.mask_format) for mask in instances.pred_masks) if masks else None,
        keypoints=instances.pred_keypoints.float().numpy() if keypoints else None,
    )


def _mask(mask: BoolArray, mask_format: MaskFormat) -> Mask:
    """Encode one mask, bool, shape (height, width)."""
    match mask_format:
        case MaskFormat.POLYGONS:
            return Mask(polygons=_polygons(mask))
        case MaskFormat.PNG:
            return Mask(png=_png(Image.fromarray(mask)))
        case _:
            return Mask(counts=rle.encode(np.asfortranarray(mask, np.uint8))["counts"])


def _polygons(mask: BoolArray) -> tuple[tuple[float, ...], ...]:
    """The outer outline of each connected part, through the middles of its border pixels."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # A pixel's middle lies half a pixel from its corner, where COCO's coordinates begin.
    return tuple(tuple((line.ravel() + 0.5).tolist()) for line in outlines if len(line) >= _LEAST_POINTS)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def class_map(scores: torch.Tensor) -> bytes:
    """Encode a semantic answer, scores of shape (classes, height, width), as a PNG of each pixel's best class.

    It has 8 bits where every class fits, else 16, however many of them this image shows.
    """
    depth = np.uint8 if len(scores) <= _EIGHT_BITS else np.uint16
    return _png(Image.fromarray(scores.argmax(dim=0).cpu().numpy().astype(depth)))


def panoptic(segment_map: torch.Tensor, segments: Sequence[dict[str, Any]]) -> Panoptic:
    """Convert `panoptic_seg`: an integer map of shape (height, width), and what each of its ids is.

    Where one of the ids is more than a 16-bit map can hold, all are numbered from 1; what is no segment is 0.
    """
    ids = segment_map.cpu().numpy()
    known = np.array(sorted(int(segment["id"]) for segment in segments), np.int64)
    fits = not len(known) or 0 < known[0] <= known[-1] < _SIXTEEN_BITS
    numbers = np.concatenate([[0], known if fits else np.arange(1, len(known) + 1)])
    places = np.searchsorted(known, ids)
    places = np.where(np.isin(ids, known), places + 1, 0)
    areas = np.bincount(places.ravel(), minlength=len(numbers))
    place = {old: index for index, old in enumerate(known.tolist(), start=1)}
    return Panoptic(
        _png(Image.fromarray(numbers[places].astype(np.uint16))),
        tuple(
            Segment(
                id=int(numbers[place[int(segment["id"])]]),
                is_thing=bool(segment["isthing"]),
                class_id=int(segment["category_id"]),
                area=int(areas[place[int(segment["id"])]]),
                score=float(segment["score"]) if "score" in segment else None,
            )
            for segment in segments
        ),
    )

"""Conversion of Detectron2's structures to an answer's."""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks
from PIL import Image
from pycocotools import mask as rle

from vedette_server.contract.answer import Detections, Mask, Panoptic, Segment
from vedette_server.contract.contract import Output
from vedette_server.contract.options import MaskFormat, Options
from vedette_server.contract.types import BoolArray, Float32Array

_LEAST_POINTS = 3  # of a polygon
_INSIDE = 0.5  # threshold of a mask given as probabilities
_OF_A_ROTATED_BOX = 5  # numbers
_EIGHT_BITS, _SIXTEEN_BITS = 256, 65_536  # values of a grey PNG


def detections(instances: Any, options: Options) -> Detections:  # noqa: ANN401  detectron2 is untyped
    """Convert `Instances` on the CPU, scaled to the sent image, keeping their order (best score first)."""
    masks = _masks(instances.pred_masks) if instances.has("pred_masks") else None
    keypoints = Output.KEYPOINTS in options.outputs and instances.has("pred_keypoints")
    boxes, turned = _boxes(instances, masks)
    return Detections(
        boxes=boxes,
        scores=instances.scores.float().numpy(),
        class_ids=instances.pred_classes.to(torch.int32).numpy(),
        # Convert one by one, so that only one mask is copied at a time.
        masks=None if masks is None or not options.masks else tuple(_mask(mask, options.mask_format) for mask in masks),
        box_masks=instances.box_masks.float().numpy() if options.box_masks and instances.has("box_masks") else None,
        keypoints=instances.pred_keypoints.float().numpy() if keypoints else None,
        rotated=turned if Output.ROTATED_BOXES in options.outputs else None,
    )


def rotated(instances: Any) -> bool:  # noqa: ANN401  detectron2 is untyped
    """Return whether objects have rotated boxes."""
    if not instances.has("pred_boxes"):
        return False
    boxes = getattr(instances.pred_boxes, "tensor", instances.pred_boxes)
    return bool(boxes.shape[1] == _OF_A_ROTATED_BOX)


def _masks(given: Any) -> BoolArray:  # noqa: ANN401  a tensor, or a structure of Detectron2 that holds one
    """Return masks of the image's size: shape (N, height, width)."""
    masks = getattr(given, "tensor", given)
    decided: BoolArray = (masks > _INSIDE if masks.is_floating_point() else masks.bool()).numpy()
    return decided


def _boxes(instances: Any, masks: BoolArray | None) -> tuple[Float32Array, Float32Array | None]:  # noqa: ANN401
    """Return the boxes, and the rotated boxes if that is their kind.

    In that case the plain boxes enclose the rotated ones, clipped to the image. A model with masks but no boxes (or all
    0, as in Mask2Former) gets the boxes around its masks.
    """
    if instances.has("pred_boxes"):
        boxes: Float32Array = getattr(instances.pred_boxes, "tensor", instances.pred_boxes).float().numpy()
        if rotated(instances):
            return _enclosing(boxes, instances.image_size), boxes
        if masks is None or boxes.any():
            return boxes, None
    assert masks is not None  # noqa: S101  without boxes there are masks
    return BitMasks(torch.from_numpy(masks)).get_bounding_boxes().tensor.numpy(), None


def _enclosing(rotated: Float32Array, size: tuple[int, int]) -> Float32Array:
    """Return the boxes around rotated boxes, clipped to an image of `size` (height, width): shape (N, 4)."""
    x, y, width, height, degrees = rotated.astype(np.float64).T
    cosine, sine = np.abs(np.cos(np.radians(degrees))), np.abs(np.sin(np.radians(degrees)))
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    edges = np.stack((x - across, y - down, x + across, y + down), axis=1)
    bottom, right = size
    return edges.clip(0, (right, bottom, right, bottom)).astype(np.float32)


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
    """Trace the outer outline of each connected part, through the centres of its border pixels."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # A pixel's centre is half a pixel from its corner, the origin of COCO's coordinates.
    return tuple(tuple((line.ravel() + 0.5).tolist()) for line in outlines if len(line) >= _LEAST_POINTS)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def class_map(classes: torch.Tensor, count: int) -> bytes:
    """Encode a semantic answer, each pixel's best of `count` classes, as a PNG.

    It has 8 bits if every class fits, otherwise 16, regardless of the classes in this image.
    """
    depth = np.uint8 if count <= _EIGHT_BITS else np.uint16
    return _png(Image.fromarray(classes.numpy().astype(depth)))


def panoptic(segment_map: torch.Tensor, segments: Sequence[dict[str, Any]]) -> Panoptic:
    """Convert `panoptic_seg`: an integer map of shape (height, width), and the segment of each id.

    If an id exceeds 16 bits, all segments are renumbered from 1. Pixels without a segment are 0.
    """
    ids = segment_map.numpy()
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
                is_thing=bool(segment.get("isthing", False)),
                class_id=int(segment["category_id"]),
                area=int(areas[place[int(segment["id"])]]),
                score=float(segment["score"]) if segment.get("score") is not None else None,
            )
            for segment in segments
        ),
    )

"""From Detectron2's structures to an answer's."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle

from vedette_server.contract.answer import Detections, Panoptic, Segment


def detections(instances: Any) -> Detections:  # noqa: ANN401  detectron2 is untyped
    """Convert `Instances` on the CPU, already scaled to the sent image, in their own order (best score first)."""
    return Detections(
        boxes=instances.pred_boxes.tensor.float().numpy(),
        scores=instances.scores.float().numpy(),
        class_ids=instances.pred_classes.to(torch.int32).numpy(),
        masks=_rle(instances.pred_masks) if instances.has("pred_masks") else None,
        keypoints=instances.pred_keypoints.float().numpy() if instances.has("pred_keypoints") else None,
    )


def _rle(masks: torch.Tensor) -> tuple[bytes, ...]:
    """Encode bool masks of shape (N, height, width), one by one, so that one transposed copy exists at a time."""
    return tuple(rle.encode(np.asfortranarray(mask.numpy(), np.uint8))["counts"] for mask in masks)


def panoptic(segment_map: torch.Tensor, segments: Sequence[dict[str, Any]]) -> Panoptic:
    """Convert `panoptic_seg`: an int32 map of shape (height, width), and what each of its ids is."""
    ids = segment_map.cpu().numpy()
    areas = np.bincount(ids.ravel())
    buffer = io.BytesIO()
    Image.fromarray(ids.astype(np.uint16)).save(buffer, "PNG")
    return Panoptic(
        buffer.getvalue(),
        tuple(
            Segment(
                id=int(segment["id"]),
                is_thing=bool(segment["isthing"]),
                class_id=int(segment["category_id"]),
                area=int(areas[segment["id"]]),
                score=float(segment["score"]) if "score" in segment else None,
            )
            for segment in segments
        ),
    )

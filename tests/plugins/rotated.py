"""The operators of rotated boxes on a CPU, as a Detectron2 that was built with them has: slow, and right."""

import importlib

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes to keep, best score first."""
    # OpenCV turns with the clock, Detectron2 against it.
    rectangles = [((x, y), (width, height), -angle) for x, y, width, height, angle in boxes.tolist()]
    order = scores.argsort(descending=True, stable=True).tolist()
    kept: list[int] = []
    for index in order:
        if all(_iou(rectangles[index], rectangles[other]) <= iou_threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def _iou(one: cv2.typing.RotatedRect, other: cv2.typing.RotatedRect) -> float:
    (ax, ay), (bx, by) = one[0], other[0]
    if np.hypot(ax - bx, ay - by) > (sum(one[1]) + sum(other[1])) / 2:
        return 0.0
    kind, region = cv2.rotatedRectangleIntersection(one, other)
    common = 0.0 if kind == cv2.INTERSECT_NONE or region is None else cv2.contourArea(cv2.convexHull(region))
    union = one[1][0] * one[1][1] + other[1][0] * other[1][1] - common
    return common / union if union > 0 else 0.0


def align(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, _ratio: int = 0) -> Tensor:
    """Sample each rotated region once in the middle of each bin."""
    rows, columns = size
    height, width = features.shape[2:]
    down = ((torch.arange(rows) + 0.5) / rows - 0.5).view(1, rows, 1)
    across = ((torch.arange(columns) + 0.5) / columns - 0.5).view(1, 1, columns)
    x, y, wide, high = (rois[:, index].view(-1, 1, 1) * scale for index in range(1, 5))
    angle = torch.deg2rad(rois[:, 5]).view(-1, 1, 1)
    cosine, sine = angle.cos(), angle.sin()
    u, v = across * wide, down * high
    grid = torch.stack(((u * cosine + v * sine + x) * 2 / width - 1, (v * cosine - u * sine + y) * 2 / height - 1), -1)
    images = rois[:, 0].long()
    out = features.new_zeros(len(rois), features.shape[1], rows, columns)
    for image in torch.unique(images).tolist():
        of_it = images == image
        flat = grid[of_it].reshape(1, -1, columns, 2)
        sampled = functional.grid_sample(features[image : image + 1], flat, align_corners=False)
        out[of_it] = sampled.reshape(features.shape[1], -1, rows, columns).transpose(0, 1)
    return out


vars(importlib.import_module("detectron2.layers.nms"))["nms_rotated"] = nms_rotated
vars(importlib.import_module("detectron2.layers.roi_align_rotated"))["roi_align_rotated"] = align

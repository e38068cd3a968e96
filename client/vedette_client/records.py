"""Results as plain objects for JSON, as printed by the commands."""

import base64
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette_client.results import Detection, Diagnosis, Empty, Result, Segment


def diagnosis(given: Diagnosis) -> dict[str, Any]:
    """Convert a diagnosis, with the most likely cause first."""
    return {
        "summary": given.summary,
        "cause": given.cause.code if given.cause else None,
        "candidates": [dataclasses.asdict(one) for one in given.candidates],
        "detections": given.detections,
        "best_score": round(given.best_score, 6),
        "threshold": given.threshold,
        "findings": [dataclasses.asdict(finding) for finding in given.findings],
    }


def answer(result: Result) -> dict[str, Any]:
    """Convert an answer. Maps are PNGs in base64, with a segment's or a class's id for each pixel."""
    record = {
        "model": result.model,
        "version": result.version,
        "detections": [_detection(item) for item in result],
        "empty": _empty(result.empty),
        "findings": [dataclasses.asdict(finding) for finding in result.findings],
        "width": result.width,
        "height": result.height,
        "threshold": result.threshold,
    }
    if result.panoptic:
        segments = [_segment(segment) for segment in result.panoptic.segments]
        record["panoptic"] = {"segments": segments, "segment_map_png": _text(result.panoptic.segment_map_png)}
    if result.class_map_png is not None and result.class_map is not None:
        record["semantic"] = {"classes": _areas(result.class_map), "class_map_png": _text(result.class_map_png)}
    return record


def _segment(given: Segment) -> dict[str, Any]:
    return {
        "id": given.id,
        "class": given.class_name,
        "class_id": given.class_id,
        "is_thing": given.is_thing,
        "score": None if given.score is None else round(given.score, 6),
        "area": given.area,
    }


def _areas(class_map: NDArray[np.int32]) -> list[dict[str, int]]:
    """List the classes in a map with their numbers of pixels."""
    ids, areas = np.unique(class_map, return_counts=True)
    return [{"class_id": one, "area": area} for one, area in zip(ids.tolist(), areas.tolist(), strict=True)]


def _text(png: bytes) -> str:
    """Encode a file in base64 for JSON."""
    return base64.b64encode(png).decode()


def _detection(item: Detection) -> dict[str, Any]:
    mask = item.mask and item.mask.record()
    record = {
        "class": item.class_name,
        "class_id": item.class_id,
        "score": round(item.score, 6),
        "box": [round(edge, 3) for edge in item.box],
        "mask": mask,
    }
    if item.rotated_box:
        record["rotated_box"] = [round(value, 3) for value in item.rotated_box]
    if item.keypoints:
        record["keypoints"] = [[point.x, point.y, point.score] for point in item.keypoints]
    return record


def _empty(empty: Empty | None) -> dict[str, Any] | None:
    if empty is None:
        return None
    return {
        "reason": empty.reason,
        "best_score": empty.best_score,
        "best_class": empty.best_class,
        "suppressed": empty.suppressed,
        "threshold": empty.threshold,
    }

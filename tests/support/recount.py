"""Detectron2's selections counted again in NumPy, from what plain modules of a model gave."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from vedette_server.contract.options import Options

Array = NDArray[Any]
_MOST_GROWTH = np.float32(np.log(1000 / 16))  # Detectron2's own limit of dw and dh


@dataclass
class Seen:
    """The inputs and outputs of modules, in the order of their calls, by their path."""

    inputs: dict[str, list[Any]] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)


def run(model: nn.Module, image: torch.Tensor, size: tuple[int, int]) -> tuple[Seen, dict[str, Any]]:
    """Run a plain model on one image, to be answered at (height, width)."""
    seen, handles = Seen(), []
    for name, module in model.named_modules():

        def hook(_: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            seen.inputs.setdefault(name, []).append(_copied(inputs))
            seen.outputs.setdefault(name, []).append(_copied(output))

        handles.append(module.register_forward_hook(hook))
    with torch.inference_mode():
        (answer,) = model([{"image": image, "height": size[0], "width": size[1]}])
    for handle in handles:
        handle.remove()
    return seen, answer


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy().copy()
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def decode(deltas: Array, boxes: Array, weights: Sequence[float]) -> Array:
    """(N, C * 4) deltas of (N, 4) boxes to (N, C, 4) boxes."""
    shifts = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4) / np.array(weights, np.float32)
    sizes = (boxes[:, 2:] - boxes[:, :2])[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        centres = shifts[..., :2] * sizes + (boxes[:, None, :2] + np.float32(0.5) * sizes)
        halves = np.float32(0.5) * np.exp(np.minimum(shifts[..., 2:], _MOST_GROWTH)) * sizes
        return np.concatenate([centres - halves, centres + halves], axis=-1)


def clip(boxes: Array, size: tuple[int, int]) -> Array:
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def suppress(boxes: Array, scores: Array, groups: Array, most_overlap: float) -> Array:
    """Non-maximum suppression in each group; indices of the boxes that stay, best first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if len(every := np.unique(groups)) > 1:
        parts = [np.nonzero(groups == group)[0] for group in every]
        stay = np.concatenate([part[suppress(boxes[part], scores[part], groups[part], most_overlap)] for part in parts])
        return np.asarray(stay[np.argsort(-scores[stay], kind="stable")])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[others, :2]), np.minimum(boxes[best, 2:], boxes[others, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        with np.errstate(invalid="ignore"):  # of two boxes without an area
            overlap = shared / (areas[best] + areas[others] - shared)
        order = others[~(overlap > most_overlap)]
    return np.array(kept, int)


@dataclass
class Candidates:
    """The input of non-maximum suppression."""

    boxes: Array  # (N, 4)
    scores: Array
    classes: Array

    def __getitem__(self, index: Array) -> "Candidates":
        return Candidates(self.boxes[index], self.scores[index], self.classes[index])

    def kept(self, most_overlap: float) -> "Candidates":
        return self[suppress(self.boxes, self.scores, self.classes, most_overlap)]


@dataclass
class Scored:
    """The scores of a model for an image."""

    scores: Array  # (rows, classes); the background's, if any, is the last of `shares`
    boxes: Array  # (rows, classes or 1, 4)
    certainty: float
    most_overlap: float
    dropped: dict[str, int] = field(default_factory=dict)
    levels: Array | None = None  # of each row; None: all candidates enter
    most: int = 0  # candidates of a level
    selected: dict[float, tuple[Candidates, Candidates]] = field(default_factory=dict)  # by threshold

    def select(self, threshold: float) -> tuple[Candidates, Candidates]:
        """The input of non-maximum suppression, and its output."""
        if threshold not in self.selected:
            candidates = self.above(threshold)
            self.selected[threshold] = candidates, candidates.kept(self.most_overlap)
        return self.selected[threshold]

    def above(self, threshold: float) -> Candidates:
        rows, classes = np.nonzero(self.scores > np.float32(threshold))
        scores = self.scores[rows, classes]
        boxes = self.boxes[rows, classes if self.boxes.shape[1] > 1 else 0]
        candidates = Candidates(boxes, scores, classes)
        if self.levels is None:
            return candidates
        level = self.levels[rows]
        best = [np.nonzero(level == item)[0] for item in np.unique(self.levels)]
        return candidates[
            np.concatenate([item[np.argsort(-scores[item], kind="stable")][: self.most] for item in best])
        ]


def regions(seen: Seen, model: Any) -> Scored:
    """The regions of an R-CNN, of one stage or of several."""
    (proposals,) = seen.inputs["roi_heads"][0][2]
    predictors = getattr(model.roi_heads, "box_predictor", None)
    stages: dict[str, Any] = {"roi_heads.box_predictor": predictors}
    if isinstance(predictors, nn.ModuleList):
        stages = {f"roi_heads.box_predictor.{index}": item for index, item in enumerate(predictors)}
    shares, boxes = [], proposals.proposal_boxes.tensor.numpy()[:, None]
    for name, layers in stages.items():
        logits, deltas = seen.outputs[name][0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares.append(powers / powers.sum(axis=1, keepdims=True))
        start = clip(boxes[:, 0], proposals.image_size)  # of the first stage they are within already
        boxes = decode(deltas, start, layers.box2box_transform.weights)
    mean: Array = np.asarray(np.mean(shares, axis=0, dtype=np.float32))
    finite = np.isfinite(mean).all(axis=1) & np.isfinite(boxes).all(axis=(1, 2))
    dropped = {"roi_heads.box_predictor": int((~finite).sum())}
    mean, boxes = mean[finite], clip(boxes[finite], proposals.image_size)
    certainty = mean.max(axis=1).mean(dtype=np.float64) if len(mean) else 1.0
    return Scored(mean[:, :-1], boxes, certainty, layers.test_nms_thresh, {k: v for k, v in dropped.items() if v})


def anchors(seen: Seen, model: Any) -> Scored:
    """The anchors of RetinaNet."""
    logits, deltas = seen.outputs["head"][0]
    generated = [item.tensor.numpy() for item in seen.outputs["anchor_generator"][0]]
    with np.errstate(over="ignore"):
        scores = [1 / (1 + np.exp(-_rows(level, model.num_classes))) for level in logits]
    weights = model.box2box_transform.weights
    boxes = [decode(_rows(level, 4), anchor, weights) for level, anchor in zip(deltas, generated, strict=True)]
    every, levels = np.concatenate(scores), np.repeat(np.arange(len(scores)), [len(item) for item in scores])
    finite = np.isfinite(every).all(axis=1) & np.isfinite(np.concatenate(boxes)).all(axis=(1, 2))
    dropped = {"head": int((~finite).sum())} if not finite.all() else {}
    rest = every[finite]
    best = rest.max(initial=0)
    certainty = 1 - rest.mean(dtype=np.float64) / best if best else float(not len(rest))
    return Scored(
        np.nan_to_num(every, nan=0),
        np.concatenate(boxes),
        certainty,
        model.test_nms_thresh,
        dropped,
        levels,
        model.test_topk_candidates,
    )


def _rows(level: Array, columns: int) -> Array:
    """(1, A * columns, H, W) of a head to (H * W * A, columns)."""
    _, channels, height, width = level.shape
    return level.reshape(channels // columns, columns, height, width).transpose(2, 3, 0, 1).reshape(-1, columns)


def proposals(seen: Seen, generator: Any) -> tuple[int, int, int]:
    """Count an RPN's regions before and after it filtered them, and those that it dropped before."""
    logits, deltas = seen.outputs["proposal_generator.rpn_head"][0]
    generated = [item.tensor.numpy() for item in seen.outputs["proposal_generator.anchor_generator"][0]]
    size = seen.inputs["proposal_generator"][0][0].image_sizes[0]
    found = []
    for level, (score, delta, anchor) in enumerate(zip(logits, deltas, generated, strict=True)):
        values = _rows(score, 1)[:, 0]
        best = np.argsort(-np.nan_to_num(values, nan=np.inf), kind="stable")[: generator.pre_nms_topk[False]]
        boxes = decode(_rows(delta, 4)[best], anchor[best], generator.box2box_transform.weights)[:, 0]
        found.append((boxes, values[best], np.full(len(best), level)))
    boxes, scores, levels = (np.concatenate(part) for part in zip(*found, strict=True))
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    boxes = clip(boxes, size)
    usable = finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    kept = suppress(boxes[usable], scores[usable], levels[usable], generator.nms_thresh)
    return len(finite), min(len(kept), generator.post_nms_topk[False]), int((~finite).sum())


def fates(
    scored: Scored, options: Options, floor: float, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> dict[str, int]:
    """Fates of the candidates; `sizes` are the image's, (height, width), in the model and as it was sent."""
    candidates, below = scored.select(floor)
    _, above = scored.select(options.threshold)
    wanted = above if options.class_ids is None else above[np.isin(above.classes, options.class_ids)]
    chosen = wanted[np.arange(len(wanted.scores))[: options.max_detections]]
    (height, width), (sent_height, sent_width) = sizes
    scale = np.array([sent_width / width, sent_height / height] * 2, np.float32)
    boxes = clip(chosen.boxes * scale, sizes[1])
    visible = int(((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).sum())
    suppressed = int((below.scores <= np.float32(options.threshold)).sum())
    return {
        "candidates": len(candidates.scores),
        "overlapped": len(candidates.scores) - suppressed - len(above.scores),
        "suppressed": suppressed,
        "filtered": len(above.scores) - len(wanted.scores),
        "capped": len(wanted.scores) - len(chosen.scores),
        "clipped": len(chosen.scores) - visible,
        "detections": visible,
    }

"""Bounds on the numbers in a config, so that no config can exhaust memory or time.

One table covers both dialects. Its keys are the last part of a number's key in lower case:
`MODEL.ROI_HEADS.NUM_CLASSES` and `model.roi_heads.num_classes` are both "num_classes". Other numbers must satisfy
`_ANY`.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from vedette_server.contract.loading import Check, LoadRefusedError

_MOST = 100_000  # values in a config
_LONGEST_LIST = 200  # entries; the longest in the model zoo has 48
_DEEPEST = 100  # nested collections, as in YAML
_LONGEST = 128  # bits of a number, or characters of a key, shown in messages


@dataclass(frozen=True)
class Bound:
    """The allowed range of a number, and why no model needs more."""

    least: float
    most: float
    why: str


_ANY = Bound(-(2**63), 2**63, "no number in a model is larger")
_CHANNELS = Bound(0, 65_536, "the widest layer of Detectron2's models, a classifier's, has 5,632")
_LAYERS = Bound(-1, 1_000, "the deepest of Detectron2's models has 200 layers")
_CANDIDATES = Bound(-1, 100_000, "an image of 1,333 x 800 pixels has 270,000 anchors, of which 2,000 are usual")
_OUTPUT = Bound(1, 512, "masks are cut from 14 x 14 or 28 x 28 cells")
_CLASSES = Bound(0, 100_000, "the largest vocabulary in use, of ImageNet-21k, has 21,841 classes")
_ANCHORS = Bound(0.01, 65_536, "an anchor is within an image, whose edges are at most 65,536 pixels")

BOUNDS: Mapping[str, Bound] = {
    "num_classes": _CLASSES,
    "num_keypoints": Bound(0, 10_000, "faces have 468, whole bodies 133"),
    "min_size_test": Bound(0, 4_096, "larger shortest edges take tens of gigabytes for one image"),
    "short_edge_length": Bound(0, 4_096, "larger shortest edges take tens of gigabytes for one image"),
    "max_size_test": Bound(1, 2**31 - 1, "an edge has at most as many pixels as 31 bits count"),
    "max_size": Bound(1, 2**63, "an edge has at most as many pixels as memory holds"),
    "detections_per_image": _CANDIDATES,
    "test_topk_per_image": _CANDIDATES,
    "max_detections_per_image": _CANDIDATES,
    "pre_nms_topk_test": _CANDIDATES,
    "post_nms_topk_test": _CANDIDATES,
    "pre_nms_topk": _CANDIDATES,
    "post_nms_topk": _CANDIDATES,
    "topk_candidates_test": _CANDIDATES,
    "test_topk_candidates": _CANDIDATES,
    "sizes": _ANCHORS,
    "aspect_ratios": Bound(0.001, 1_000, "no real box is a thousand times as wide as high"),
    "angles": Bound(-360, 360, "angles are degrees"),
    "angle": Bound(-360, 360, "angles are degrees"),
    "pixel_mean": Bound(-65_536, 65_536, "pixels are 8 bits, 16 at most"),
    "pixel_std": Bound(1e-6, 65_536, "values are divided by it"),
    "pooler_resolution": _OUTPUT,
    "output_size": _OUTPUT,
    "pooler_sampling_ratio": Bound(0, 64, "a cell is sampled at 1 to 4 points an edge"),
    "sampling_ratio": Bound(0, 64, "a cell is sampled at 1 to 4 points an edge"),
    "out_channels": _CHANNELS,
    "in_channels": _CHANNELS,
    "bottleneck_channels": _CHANNELS,
    "stem_out_channels": _CHANNELS,
    "res2_out_channels": _CHANNELS,
    "width_per_group": _CHANNELS,
    "num_groups": _CHANNELS,
    "conv_dim": _CHANNELS,
    "conv_dims": Bound(-1, 65_536, _CHANNELS.why),
    "convs_dim": _CHANNELS,
    "fc_dim": _CHANNELS,
    "fc_dims": _CHANNELS,
    "embed_dim": _CHANNELS,
    "num_conv": _LAYERS,
    "num_convs": _LAYERS,
    "num_fc": _LAYERS,
    "depth": _LAYERS,
    "num_blocks": _LAYERS,
    "stride": Bound(1, 1_024, "the coarsest map in use has a cell for 128 pixels"),
    "stem_stride": Bound(1, 1_024, "the coarsest map in use has a cell for 128 pixels"),
    "size_divisibility": Bound(-1, 4_096, "images are padded to a multiple of 32 or 64"),
    "img_size": Bound(1, 4_096, "positions are learnt for images of 1,024 x 1,024"),
}
# Sections that serving never reads: training settings, and data settings other than those for testing.
_NOT_READ = ("solver", "datasets", "dataloader.train", "dataloader.evaluator", "dataloader.num_workers")


def check(config: Mapping[str, object]) -> None:
    """Refuse implausible numbers and endless lists. Raises `LoadRefusedError`: CONFIG_OUT_OF_BOUNDS."""
    for key, value in _leaves(config):
        name = _name(key)
        number = _number(value, known=name in BOUNDS)
        if number is None:
            continue
        bound = BOUNDS.get(name, _ANY)
        endless = number in (math.inf, -math.inf) and name not in BOUNDS  # as some thresholds are
        if not (endless or bound.least <= number <= bound.most):  # false for NaN, too
            _refuse(f"{key} is {_short(number)}; it must be {bound.least:g} to {bound.most:g}: {bound.why}")


def _name(key: str) -> str:
    """Return the last part of a key that is not a list index."""
    return next((part for part in reversed(key.lower().split(".")) if not part.isdecimal()), "")


def _number(value: object, *, known: bool) -> int | float | None:
    """Return a value as a number, or None. Under a key `known` to be numeric, text is parsed as Python would."""
    if isinstance(value, str) and known:
        with contextlib.suppress(ValueError):
            return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _short(number: float) -> str:
    if isinstance(number, int) and number.bit_length() > _LONGEST:
        return f"a number of {number.bit_length()} bits"
    return str(number)


def _leaves(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield every value that serving reads, with its key. Raises `LoadRefusedError`."""
    waiting: list[tuple[str, int, object]] = [(str(key), 1, value) for key, value in config.items()]
    for _ in range(_MOST):
        if not waiting:
            return
        key, depth, node = waiting.pop()
        if key.lower() in _NOT_READ:
            continue
        if depth > _DEEPEST:
            _refuse(f"{key[:_LONGEST]}… is more than {_DEEPEST} levels deep")
        if isinstance(node, list | tuple) and len(node) > _LONGEST_LIST:
            _refuse(f"{key} has {len(node)} entries; a list has at most {_LONGEST_LIST}: each is a layer or an anchor")
        if isinstance(node, Mapping):
            waiting.extend((f"{key}.{name}", depth + 1, child) for name, child in node.items())
        elif isinstance(node, list | tuple):
            waiting.extend((f"{key}.{index}", depth + 1, child) for index, child in enumerate(node))
        else:
            yield key, node
    _refuse(f"it holds more than {_MOST} values")


def _refuse(seen: str) -> NoReturn:
    raise LoadRefusedError(Check.CONFIG_OUT_OF_BOUNDS, seen)

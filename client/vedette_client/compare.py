"""Detectron2's own `DefaultPredictor`, in this process, as a reference for a server's answers.

Only this module needs torch and Detectron2, and it imports them on demand. Nothing is repaired: a config and a
checkpoint are treated as Detectron2 treats them, and whatever it does silently is reported.
"""

import contextlib
import dataclasses
import importlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from vedette_client import drawing
from vedette_client.errors import LocalError
from vedette_client.results import Contract, Detection, Mask, Result

_INSTALL = (
    "python -m pip install 'vedette[server]', then Detectron2 itself: deploy/detectron2 of Vedette, or "
    "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"
)
_EXTENDS = re.compile(r"add_\w*config")  # Detectron2's convention for functions that add a project's keys to a config
_SHOWN = 3  # tensor names in a hint
# Harmless additional tensors: derived from the config, or never used in inference.
_HARMLESS = ("pixel_mean", "pixel_std", "num_batches_tracked")
_PARTS = {"RetinaNet": "RETINANET", "PanopticDeepLab": "SEM_SEG_HEAD"}  # sections with a model's threshold and classes


@dataclass(frozen=True, kw_only=True)
class Local:
    """A loaded `DefaultPredictor`, and what Detectron2 did silently when it loaded the checkpoint."""

    predictor: Any
    config: Any  # with the threshold of the comparison
    own_threshold: float | None  # of the config; None: the model has none
    random: tuple[str, ...]  # tensors of the model that are missing or misshapen in the checkpoint, and stay random
    ignored: tuple[str, ...]  # tensors of the checkpoint that are not in the model
    image_format: str = "BGR"  # format in which Detectron2 reads files for it; L: a model with one channel

    def detect(self, path: Path, served: Result, class_names: Sequence[str]) -> Result:
        """Run Detectron2 on a file, and return the objects above the served result's threshold.

        Raises `LocalError` if Detectron2 cannot read the file or fails on it.
        """
        from detectron2.data.detection_utils import read_image

        try:
            with _quiet():
                instances = self.predictor(read_image(str(path), format=self.image_format))["instances"].to("cpu")
        except Exception as error:
            msg = f"Detectron2 fails on it locally: {_first_line(error)}"
            raise LocalError(msg) from error
        found = tuple(item for item in _detections(instances, class_names) if item.score > served.threshold)
        return dataclasses.replace(served, detections=found, empty=None, panoptic=None, class_map_png=None, findings=())


def load(config: str, weights: Path, plugins: Sequence[str], threshold: float) -> Local:
    """Build the predictor of a config (a file, or a path in the model zoo) and a checkpoint, with a threshold.

    It runs on the config's device, or on the CPU if there is no GPU. `plugins` are modules of the model's project,
    which are run, as is any code in a .pkl or .pth that Detectron2 itself would run. Raises `LocalError` if torch or
    Detectron2 is missing, or Detectron2 refuses the model.
    """
    try:
        with _quiet():
            engine, torch = importlib.import_module("detectron2.engine"), importlib.import_module("torch")
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        msg = f"vedette compare runs Detectron2 on this machine, but cannot import {missing}: {_INSTALL}"
        raise LocalError(msg) from error
    if not weights.is_file():
        msg = f"no such file: {weights}"
        raise LocalError(msg)
    with _quiet():
        node = _config(config, plugins)
        part = node.MODEL[_part(node)]
        own = part.get("SCORE_THRESH_TEST")
        if own is not None:
            part.SCORE_THRESH_TEST = threshold
        node.MODEL.WEIGHTS = ""  # loaded below, by a checkpointer that records mismatches
        if not torch.cuda.is_available():
            node.MODEL.DEVICE = "cpu"
        grey = node.INPUT.FORMAT == "L" or len(node.MODEL.PIXEL_MEAN) == 1
        if grey:
            node.INPUT.FORMAT = "BGR"  # DefaultPredictor only accepts BGR and RGB, and leaves the channels of BGR alone
        try:
            predictor = engine.DefaultPredictor(node)
            random, ignored = _load_weights(predictor.model, weights)
        except Exception as error:
            msg = f"Detectron2 cannot load {weights} with {config}: {_first_line(error)}"
            raise LocalError(msg) from error
    return Local(
        predictor=predictor,
        config=node,
        own_threshold=own,
        random=random,
        ignored=ignored,
        image_format="L" if grey else "BGR",
    )


def _config(path: str, plugins: Sequence[str]) -> Any:  # noqa: ANN401  detectron2 is untyped
    import yaml
    from detectron2 import model_zoo
    from detectron2.config import get_cfg

    if path.endswith(".py"):
        msg = f"{path} is a LazyConfig, which Detectron2's DefaultPredictor does not support: give a YAML config"
        raise LocalError(msg)
    carried = not Path(path).exists()  # only Detectron2's own configs may contain expressions that are run
    node = get_cfg()
    try:
        for module in map(importlib.import_module, plugins):
            for name in filter(_EXTENDS.fullmatch, vars(module)):
                getattr(module, name)(node)
        node.merge_from_file(model_zoo.get_config_file(path) if carried else path, allow_unsafe=carried)
    except ImportError as error:
        msg = f"no plugin: {error}; give --plugin the name of a module on PYTHONPATH"
        raise LocalError(msg) from error
    except RuntimeError as error:
        msg = f"{path} is neither a file nor a config in the model zoo"
        raise LocalError(msg) from error
    except (OSError, KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        msg = f"Detectron2 does not accept the config {path} ({_first_line(error)}); does it need a --plugin?"
        raise LocalError(msg) from error
    return node


def _load_weights(model: Any, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:  # noqa: ANN401  detectron2 is untyped
    """Load a checkpoint as Detectron2 does; return the tensors that stay random, and those that are ignored."""
    from detectron2.checkpoint import DetectionCheckpointer

    left: list[Any] = []

    class Checkpointer(DetectionCheckpointer):  # type: ignore[misc]  # detectron2 is untyped
        def _load_file(self, filename: str) -> Any:  # noqa: ANN401  the inherited signature
            if not filename.endswith(".safetensors"):
                return super()._load_file(filename)
            from safetensors.torch import load_file

            return {"model": load_file(filename)}

        def _log_incompatible_keys(self, incompatible: Any) -> None:  # noqa: ANN401  the inherited signature
            left.append(incompatible)

    Checkpointer(model).load(str(path))
    random = [*left[0].missing_keys, *(name for name, *_ in left[0].incorrect_shapes)]
    return tuple(filter(_matters, random)), tuple(filter(_matters, left[0].unexpected_keys))


def _matters(name: str) -> bool:
    return not name.endswith(_HARMLESS)


def _detections(instances: Any, class_names: Sequence[str]) -> Iterator[Detection]:  # noqa: ANN401  detectron2 is untyped
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else [None] * len(instances)
    boxes, scores, classes = instances.pred_boxes.tensor.tolist(), instances.scores.tolist(), instances.pred_classes
    for box, score, number, mask in zip(boxes, scores, classes.tolist(), masks, strict=True):
        name = class_names[number] if number < len(class_names) else f"class {number}"
        yield Detection(
            box=tuple(box), score=score, class_id=number, class_name=name, mask=mask if mask is None else _mask(mask)
        )


def _mask(mask: Any) -> Mask:  # noqa: ANN401  a bool array of shape (height, width)
    height, width = mask.shape
    return Mask(height=height, width=width, counts=rle.encode(np.asfortranarray(mask, np.uint8))["counts"])


def hints(local: Local, contract: Contract, threshold: float, *, same: bool) -> list[str]:
    """Explain differences between the local config and the served contract, and what Detectron2 did silently.

    `threshold` is the one used for the comparison, `same` whether the answers agreed.
    """
    told = [*_settings(local.config, contract), *_silences(local)]
    if not same and not told:
        told.append("the config matches the served version, so the weights may differ")
    own, part = local.own_threshold, _part(local.config)
    if own is not None and not _alike(own, threshold):
        told.append(
            f"MODEL.{part}.SCORE_THRESH_TEST is {own:g} in the config, but both were compared at the served "
            f"{threshold:g}: Detectron2 alone applies its own"
        )
    return told


def _settings(node: Any, contract: Contract) -> list[str]:  # noqa: ANN401  detectron2 is untyped
    part = _part(node)
    classes, most = node.MODEL[part].NUM_CLASSES, node.TEST.DETECTIONS_PER_IMAGE
    return [
        f"{key} is {mine} in the config, but the server has {theirs}: {meaning}"
        for key, mine, theirs, meaning in (
            ("INPUT.FORMAT", node.INPUT.FORMAT, contract.channel_order, "one of the models sees red and blue swapped"),
            ("INPUT.MIN_SIZE_TEST", node.INPUT.MIN_SIZE_TEST, contract.shortest_edge, "objects differ in size"),
            ("INPUT.MAX_SIZE_TEST", node.INPUT.MAX_SIZE_TEST, contract.longest_edge, "long images differ in size"),
            ("MODEL.PIXEL_MEAN", _floats(node.MODEL.PIXEL_MEAN), contract.pixel_mean, "brightness is shifted"),
            ("MODEL.PIXEL_STD", _floats(node.MODEL.PIXEL_STD), contract.pixel_std, "contrast is scaled"),
            (f"MODEL.{part}.NUM_CLASSES", classes, len(contract.class_names), "these are two different models"),
            (
                "TEST.DETECTIONS_PER_IMAGE",
                most,
                contract.max_detections or most,
                "crowded images are cut off at different numbers",
            ),
        )
        if not _alike(mine, theirs) and not (key == "INPUT.FORMAT" and contract.channels != 3)
    ]


def _silences(local: Local) -> list[str]:
    told = []
    if local.random:
        told.append(f"the local model may be the wrong one: Detectron2 silently left {_names(local.random)} random")
    if local.ignored:
        told.append(
            f"Detectron2 silently ignored {_names(local.ignored)} of the checkpoint: the config is another model's"
        )
    return told


def _part(node: Any) -> str:  # noqa: ANN401  detectron2 is untyped
    return _PARTS.get(node.MODEL.META_ARCHITECTURE, "ROI_HEADS")


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _alike(mine: Any, theirs: Any) -> bool:  # noqa: ANN401  config values
    """Return whether two values are equal; numbers were transmitted with 32 bits."""
    if isinstance(mine, str):
        return bool(mine == theirs)
    return np.shape(mine) == np.shape(theirs) and bool(np.allclose(mine, theirs, rtol=1e-5))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition('. ')[0].partition(chr(10))[0]}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Redirect Detectron2's output away from stdout, which is for results, and suppress its warnings."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sheet(data: bytes, local: Result, served: Result) -> bytes:
    """Draw the local result (left) and the served one (right) into a file's picture, as PNG. Raises `LocalError`."""
    picture = drawing.opened(data)
    return drawing.png(drawing.side_by_side([drawing.annotate(picture, result) for result in (local, served)]))

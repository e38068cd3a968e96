"""Models of other than three channels, small and random, and Detectron2's own way of giving them an image."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from numpy.typing import NDArray
from safetensors.torch import load_file
from vedette_server import importer
from vedette_server.contract.contract import Names
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.predictor.config import plain
from vedette_server.predictor.predictor import read_config

from tests.support import families

MEANS = (103.53, 116.28, 123.675, 90.0, 70.0, 140.0, 110.0)
GREY_OF_THREE = "grey_of_three"  # INPUT.FORMAT L, and a mean for each of three: Detectron2 subtracts each from the grey
QUIET = "quiet"  # of four, and sure that nothing is ever there
COUNTS = {"one": 1, "grey": 1, GREY_OF_THREE: 1, "two": 2, "four": 4, "seven": 7}


def pixels(channels: int, seed: int = 11) -> UInt8Array:
    """A scene of that many channels: the colours' planes, each further one another scene's green."""
    planes = [*scenes.draw(scenes.describe(seed)).pixels.transpose(2, 1, 0)[::-1]]
    planes += [scenes.draw(scenes.describe(seed + number)).pixels[:, :, 1].T for number in range(1, channels)]
    return np.ascontiguousarray(np.stack(planes[:channels]).transpose(2, 1, 0))


def config(name: str) -> CfgNode:
    cfg = families.config("mask_rcnn")
    count = 3 if name == GREY_OF_THREE else COUNTS.get(name, 4)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(MEANS[:count]), [58.0] * count
    cfg.INPUT.FORMAT = "L" if "grey" in name else "BGR"
    return cfg


def model(cfg: CfgNode) -> torch.nn.Module:
    """Random, its activations as spread out as a trained one's, its head nearly as sure."""
    torch.manual_seed(23)
    built: Any = build_model(cfg)
    count = len(cfg.MODEL.PIXEL_MEAN)
    with torch.no_grad():
        sample = pixels(1 if cfg.INPUT.FORMAT == "L" else count).astype(np.float32).transpose(2, 0, 1)
        built.backbone(built.preprocess_image([{"image": torch.as_tensor(sample)}]).tensor)
        for key, parameter in built.named_parameters():
            if key.endswith("bbox_pred.weight"):
                parameter.mul_(8)
            if key.endswith("cls_score.weight"):
                parameter.mul_(16)
    model: torch.nn.Module = built
    return model


def write(root: Path, names: Sequence[str] = (*COUNTS, QUIET)) -> Path:
    """A repository of all of them, each with a golden picture."""
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        cfg = config(name)
        built: Any = model(cfg)
        if name == QUIET:
            built.roi_heads.box_predictor.cls_score.bias.data[-1] = 60.0
        golden = {} if name == QUIET else {"array.npy": array(pixels(COUNTS[name], seed=12))}
        importer.write_version(folder, 1, plain(cfg), built, names=Names(families.CLASSES), pictures=golden)
    return root


def array(values: UInt8Array) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def bare(folder: Path, image: NDArray[Any]) -> Any:
    """Detections of Detectron2's bare model in an image that is prepared as its documentation says.

    Pixels are uint8 where Detectron2 can resize that, which is up to four channels, else 32-bit floats.
    """
    cfg = CfgNode(read_config(folder))
    cfg.MODEL.DEVICE = "cpu"
    built = build_model(cfg).eval()
    built.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    rule = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    height, width, count = image.shape
    source = image.astype(np.uint8 if count <= 4 else np.float32)
    resized = rule.get_transform(source).apply_image(source)
    tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    with torch.no_grad():
        return built([{"image": tensor, "height": height, "width": width}])[0]["instances"]

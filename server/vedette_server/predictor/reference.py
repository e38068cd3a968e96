"""Detectron2's own `DefaultPredictor` on a version's weights: the reference for served answers."""

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from safetensors.torch import load_file

from vedette_server.predictor.device import use
from vedette_server.predictor.predictor import read_config


def default_predictor(folder: Path, changes: dict[str, Any] | None = None, device: str = "cpu") -> DefaultPredictor:
    """Build the predictor from a version's folder; `changes` maps dotted config keys to values."""
    use(device)
    config = CfgNode(read_config(folder))
    config.MODEL.WEIGHTS = ""
    config.MODEL.DEVICE = device
    config.DATASETS.TEST = []
    for key, value in (changes or {}).items():
        config.merge_from_list([key, value])
    predictor = DefaultPredictor(config)
    predictor.model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return predictor

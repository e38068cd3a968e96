"""One loaded Detectron2 model: from the bytes of an image to an answer."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from safetensors.torch import load_file
from torch import nn

from vedette_server.contract.answer import Answer, StageTimes
from vedette_server.contract.contract import ChannelOrder, InputContract
from vedette_server.contract.image import Buffer, ImageSpec, decode
from vedette_server.contract.types import UInt8Array
from vedette_server.predictor.encode import detections, panoptic
from vedette_server.predictor.observe import NOTHING_SCORED, observer


class Predictor:
    """A model in evaluation mode with its contract. Not thread-safe: it belongs to one inference loop."""

    def __init__(self, model: nn.Module, contract: InputContract) -> None:
        self._model = model
        self._contract = contract
        self._observer = observer(model, contract.floor)
        edge = contract.resize.shortest_edge
        self._resize = ResizeShortestEdge([edge, edge], contract.resize.longest_edge)

    @torch.inference_mode()
    def predict(self, image: ImageSpec, data: Buffer, threshold: float) -> Answer:
        """Answer one image, as Detectron2's `DefaultPredictor` would at that threshold.

        `data` must have passed `contract.image.check`. Raises `Refused` if decoding it fails.
        """
        started = time.perf_counter()
        pixels = decode(image, data)
        decoded = time.perf_counter()
        prepared = self._prepare(pixels)
        ready = time.perf_counter()
        self._observer.threshold = threshold
        self._observer.evidence = NOTHING_SCORED
        height, width = pixels.shape[:2]
        (output,) = self._model([{"image": prepared, "height": height, "width": width}])
        inferred = time.perf_counter()
        found = detections(output["instances"].to("cpu"))
        segments = panoptic(*output["panoptic_seg"]) if "panoptic_seg" in output else None
        times = StageTimes(decoded - started, ready - decoded, inferred - ready, time.perf_counter() - inferred)
        return Answer(height, width, threshold, found, self._observer.evidence, times, segments)

    def _prepare(self, pixels: UInt8Array) -> torch.Tensor:
        """BGR, HWC, uint8 to what the model takes: its own channel order, resized, CHW, float32, 0 to 255."""
        if self._contract.channel_order is ChannelOrder.RGB:
            pixels = pixels[:, :, ::-1]
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        return torch.as_tensor(resized.astype(np.float32).transpose(2, 0, 1))


def load(folder: Path, contract: InputContract, device: str, threads: int) -> Predictor:
    """Load a model version from its folder, which holds config.yaml and model.safetensors.

    Raises `RuntimeError` when a tensor is missing, unexpected or of another shape than the config says.
    """
    torch.set_num_threads(threads)
    config = CfgNode(read_config(folder))
    config.MODEL.DEVICE = device
    config.MODEL.WEIGHTS = ""
    model: nn.Module = build_model(config)
    model.load_state_dict(load_file(folder / "model.safetensors", device=device), strict=True)
    return Predictor(model.eval(), contract)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a version's config, by the safe YAML loader alone."""
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return config

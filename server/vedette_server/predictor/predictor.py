"""One loaded Detectron2 model: from the bytes of an image to an answer."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.data.transforms import ResizeShortestEdge
from safetensors.torch import load_file
from torch import nn

from vedette_server.contract.answer import Answer, StageTimes
from vedette_server.contract.contract import InputContract, Output
from vedette_server.contract.convert import decode
from vedette_server.contract.image import Buffer, ChannelOrder, ImageSpec
from vedette_server.contract.options import Options, defaults
from vedette_server.contract.types import UInt8Array
from vedette_server.contract.unusual import unusual
from vedette_server.predictor.build import build
from vedette_server.predictor.encode import class_map, detections, panoptic
from vedette_server.predictor.observe import NOTHING_SCORED, observer
from vedette_server.predictor.strict import load_strictly


class Predictor:
    """A model in evaluation mode with its contract. Not thread-safe: it belongs to one inference loop."""

    def __init__(self, model: nn.Module, contract: InputContract) -> None:
        self._model = model
        self._contract = contract
        self._observer = observer(model, contract.floor, defaults(contract))
        edge = contract.resize.shortest_edge
        self._resize = ResizeShortestEdge([edge, edge], contract.resize.longest_edge)

    @torch.inference_mode()
    def predict(self, image: ImageSpec, data: Buffer, options: Options) -> Answer:
        """Answer one image, as Detectron2's `DefaultPredictor` would if it were configured so.

        `data` must have passed `contract.convert.check`. Raises `Refused` if decoding it fails.
        """
        started = time.perf_counter()
        pixels = decode(image, data)
        decoded = time.perf_counter()
        prepared = self._prepare(pixels)
        ready = time.perf_counter()
        self._set(options)
        height, width = pixels.shape[:2]
        (output,) = self._model([{"image": prepared, "height": height, "width": width}])
        inferred = time.perf_counter()
        wanted = options.outputs
        found = detections(output["instances"].to("cpu"), options)
        segments = panoptic(*output["panoptic_seg"]) if Output.PANOPTIC in wanted else None
        classes = class_map(output["sem_seg"]) if Output.SEMANTIC in wanted else None
        times = StageTimes(decoded - started, ready - decoded, inferred - ready, time.perf_counter() - inferred)
        notes = unusual(pixels)
        return Answer(height, width, options.threshold, found, self._observer.evidence, times, segments, classes, notes)

    def _set(self, options: Options) -> None:
        """Make the model do what is asked, and nothing that is not: heads that are not wanted do not run."""
        self._observer.options = options
        self._observer.evidence = NOTHING_SCORED
        heads: Any = getattr(self._model, "roi_heads", None)
        if heads is not None and Output.SEMANTIC not in self._contract.outputs:  # a panoptic model always needs masks
            heads.mask_on = options.masks
            heads.keypoint_on = Output.KEYPOINTS in options.outputs
        if options.panoptic_threshold is not None:
            self._model.combine_instances_score_thresh = options.panoptic_threshold  # type: ignore[assignment]  # detectron2 is untyped

    def _prepare(self, pixels: UInt8Array) -> torch.Tensor:
        """BGR, HWC, uint8 to what the model takes: its own channel order, resized, CHW, float32, 0 to 255."""
        if self._contract.channel_order is ChannelOrder.RGB:
            pixels = pixels[:, :, ::-1]
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        return torch.as_tensor(resized.astype(np.float32).transpose(2, 0, 1))


def load(folder: Path, contract: InputContract, device: str, threads: int) -> Predictor:
    """Load a model version from its folder, which holds config.yaml and model.safetensors.

    Raises `LoadRefusedError` when a plugin is missing, the config cannot be served, or a tensor is missing, unexpected,
    of another shape than the config says, or no number.
    """
    torch.set_num_threads(threads)
    model = build(read_config(folder), contract.plugins, device)
    load_strictly(model, load_file(folder / "model.safetensors", device=device), contract.waivers)
    return Predictor(model, contract)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a version's config, by the safe YAML loader alone."""
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return config

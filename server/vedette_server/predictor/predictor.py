"""One loaded Detectron2 model: from the bytes of an image to an answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.data.transforms import ResizeShortestEdge
from safetensors.torch import load_file
from torch import nn

from vedette_server.contract.answer import Answer, Evidence, Note, StageTimes
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


@dataclass(frozen=True)
class Prepared:
    """An image as the model takes it: its own channel order, resized, CHW, float32, 0 to 255."""

    tensor: torch.Tensor
    height: int  # of the image as sent, upright, in pixels
    width: int
    notes: tuple[Note, ...]
    options: Options
    decode_seconds: float
    preprocess_seconds: float


@dataclass(frozen=True)
class Inferred:
    """What the model gave for an image, on the CPU."""

    output: dict[str, Any]
    evidence: Evidence
    prepared: Prepared
    forward_seconds: float


class Predictor:
    """A model in evaluation mode with its contract. `infer` is for one thread, the other stages for any."""

    max_batch = 1  # a CPU gains nothing from more (measured), and no other device was

    def __init__(self, model: nn.Module, contract: InputContract) -> None:
        self._model = model
        self._contract = contract
        self._observer = observer(model, contract.floor, defaults(contract))
        edge = contract.resize.shortest_edge
        self._resize = ResizeShortestEdge([edge, edge], contract.resize.longest_edge)

    def predict(self, image: ImageSpec, data: Buffer, options: Options) -> Answer:
        """Answer one image, as Detectron2's `DefaultPredictor` would if it were configured so.

        `data` must have passed `contract.convert.check`. Raises `Refused` if decoding it fails.
        """
        (inferred,) = self.infer([self.prepare(image, data, options)])
        return self.encode(inferred)

    def prepare(self, image: ImageSpec, data: Buffer, options: Options) -> Prepared:
        """Decode and resize one image. Raises `Refused` if decoding it fails."""
        started = time.perf_counter()
        pixels = decode(image, data)
        decoded = time.perf_counter()
        tensor = self._prepare(pixels)
        ready = time.perf_counter()
        height, width = pixels.shape[:2]
        return Prepared(tensor, height, width, unusual(pixels), options, decoded - started, ready - decoded)

    def infer(self, images: Sequence[Prepared]) -> list[Inferred]:
        """Run the model on each image in turn."""
        return [self._infer(image) for image in images]

    @torch.inference_mode()
    def _infer(self, image: Prepared) -> Inferred:
        started = time.perf_counter()
        self._set(image.options)
        (output,) = self._model([{"image": image.tensor, "height": image.height, "width": image.width}])
        output["instances"] = output["instances"].to("cpu")
        return Inferred(output, self._observer.evidence, image, time.perf_counter() - started)

    def encode(self, inferred: Inferred) -> Answer:
        """Make the answer of what the model gave."""
        started = time.perf_counter()
        output, image, options = inferred.output, inferred.prepared, inferred.prepared.options
        found = detections(output["instances"], options)
        segments = panoptic(*output["panoptic_seg"]) if Output.PANOPTIC in options.outputs else None
        classes = class_map(output["sem_seg"]) if Output.SEMANTIC in options.outputs else None
        times = StageTimes(
            image.decode_seconds, image.preprocess_seconds, inferred.forward_seconds, time.perf_counter() - started
        )
        return Answer(
            image.height,
            image.width,
            options.threshold,
            found,
            inferred.evidence,
            times,
            segments,
            classes,
            image.notes,
        )

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

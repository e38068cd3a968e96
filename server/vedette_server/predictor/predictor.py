"""A loaded Detectron2 model, from the bytes of an image to an answer."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling.roi_heads import ROIHeads
from safetensors.torch import load_file
from torch import nn

from vedette_server.contract import disk, layout, markup
from vedette_server.contract.answer import Answer, Evidence, ModelInput, PixelStatistics, StageTimes
from vedette_server.contract.contract import InputContract, Output
from vedette_server.contract.convert import decode, read
from vedette_server.contract.image import ChannelOrder, SentImage
from vedette_server.contract.mistakes import undo
from vedette_server.contract.options import Options, defaults
from vedette_server.contract.types import Float32Array, UInt8Array
from vedette_server.predictor import device as devices
from vedette_server.predictor import operators, prove
from vedette_server.predictor.build import build
from vedette_server.predictor.draw import thumbnail
from vedette_server.predictor.encode import class_map, detections, panoptic
from vedette_server.predictor.look import brightness, entered, look
from vedette_server.predictor.observe import observer
from vedette_server.predictor.strict import load_strictly

_MOST_BATCH = 16  # images per batch, whatever the gain: each waits for the last
_WORTH_WHILE = 1.1  # required speed-up per image when the batch doubles
_TIMINGS = 5  # the fastest counts; the first ones choose the device's algorithms
_MOST_PILLOW = 4  # channels of 8 bits that Pillow can resize as a picture
_PLAIN_EDGE = 800  # pixels, for a model without resizing


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image as the model takes it: its channel order, resized, CHW, float32, 0 to 255."""

    tensor: torch.Tensor
    height: int  # of the upright image as sent, in pixels
    width: int
    options: Options
    shown: UInt8Array | None  # the same as a BGR picture, if a thumbnail was requested
    pixels: PixelStatistics | None
    model_input: ModelInput | None
    decode_seconds: float
    preprocess_seconds: float


def prepared(tensor: torch.Tensor, size: tuple[int, int], options: Options) -> PreparedImage:
    """Wrap a tensor of our own as an image of `size` (height, width)."""
    height, width = size
    return PreparedImage(
        tensor=tensor,
        height=height,
        width=width,
        options=options,
        shown=None,
        pixels=None,
        model_input=None,
        decode_seconds=0.0,
        preprocess_seconds=0.0,
    )


@dataclass(frozen=True)
class Inferred:
    """The model's output for an image, on the CPU."""

    output: dict[str, Any]
    evidence: Evidence
    prepared: PreparedImage
    forward_seconds: float


def _fetch(output: dict[str, Any], options: Options) -> None:
    """Move the requested outputs to the CPU and release the others; of scores per pixel, only the shape remains."""
    output["instances"] = output["instances"].to("cpu")
    if "panoptic_seg" in output:
        segment_map, segments = output["panoptic_seg"]
        output["panoptic_seg"] = segment_map.cpu(), segments
    if "sem_seg" in output:
        if Output.SEMANTIC in options.outputs:
            output["classes"] = output["sem_seg"].argmax(dim=0).cpu()
        output["sem_seg"] = output["sem_seg"].to("meta")


def _keep_box_masks(_head: nn.Module, _given: object, found: Sequence[Any]) -> None:
    """Keep a mask head's own masks, which Detectron2 replaces by those that it pastes."""
    for instances in found:
        instances.box_masks = instances.pred_masks[:, 0]


class Predictor:
    """A model in evaluation mode with its contract. One thread must call `infer`; any may call the other stages."""

    def __init__(self, model: nn.Module, contract: InputContract, *, observe: bool = True) -> None:
        """Without `observe`, measure nothing besides the answer, which is the same."""
        self._model = model
        self._contract = contract
        self._observe = observe
        self._rgb = contract.channel_order is ChannelOrder.RGB
        self._observer = observer(model, contract, observe=observe)
        edge = contract.resize.shortest_edge
        self._resize = ResizeShortestEdge([edge, edge], contract.resize.longest_edge)

    def predict(self, image: SentImage, options: Options) -> Answer:
        """Answer one image like Detectron2's `DefaultPredictor` with the same settings.

        The image must have passed `contract.convert.check`. Raises `Refused` if decoding fails.
        """
        (inferred,) = self.infer([self.prepare(image, options)])
        return self.encode(inferred)

    def prepare(self, image: SentImage, options: Options) -> PreparedImage:
        """Decode and resize one image. Raises `Refused` if decoding fails."""
        started = time.perf_counter()
        pixels = self._pixels(image, options)
        decoded = time.perf_counter()
        resized = self._resized(pixels)
        tensor = torch.as_tensor(resized.astype(np.float32).transpose(2, 0, 1))
        seen, given = self._look(pixels, resized) if self._observe else (None, None)
        ready = time.perf_counter()
        height, width = pixels.shape[:2]
        shown = self._picture(resized) if options.thumbnail else None
        return PreparedImage(
            tensor=tensor,
            height=height,
            width=width,
            options=options,
            shown=shown,
            pixels=seen,
            model_input=given,
            decode_seconds=decoded - started,
            preprocess_seconds=ready - decoded,
        )

    def _pixels(self, image: SentImage, options: Options) -> UInt8Array:
        """Return HWC, uint8; BGR if three channels. Raises `Refused` if decoding fails."""
        if options.undo is None:
            return decode(image, self._contract.channels)
        return undo(options.undo, read(image, self._contract.channels), self._contract)

    @torch.inference_mode()
    def infer(self, images: Sequence[PreparedImage]) -> list[Inferred]:
        """Run the model on a batch, whose images must have the same panoptic threshold."""
        started = time.perf_counter()
        self._set([image.options for image in images])
        with self._box_masks_kept([image.options for image in images]):
            outputs = self._forward(images)
        for output, image in zip(outputs, images, strict=True):
            _fetch(output, image.options)
        seen = self._observer.evidence([len(output["instances"]) for output in outputs])
        seconds = (time.perf_counter() - started) / len(images)
        return [
            Inferred(output, evidence, image, seconds)
            for output, evidence, image in zip(outputs, seen, images, strict=True)
        ]

    @contextlib.contextmanager
    def _box_masks_kept(self, options: Sequence[Options]) -> Iterator[None]:
        """Have the mask head's own masks kept where they are wanted."""
        if not any(one.box_masks for one in options):
            yield
            return
        heads: Any = self._model.roi_heads
        hook = heads.mask_head.register_forward_hook(_keep_box_masks)
        try:
            yield
        finally:
            hook.remove()

    def _forward(self, images: Sequence[PreparedImage]) -> list[dict[str, Any]]:
        batch = [{"image": image.tensor, "height": image.height, "width": image.width} for image in images]
        try:
            outputs: list[dict[str, Any]] = self._model(batch)
        except AssertionError as error:  # raised by Detectron2 for values that it assumes to be finite
            if stage := self._observer.not_finite():
                error.add_note(f"The first stage with non-finite values: {stage}")
            raise
        return outputs

    @functools.cached_property
    def max_batch(self) -> int:
        """The largest batch that pays off: measured here on a GPU; 1 on a CPU, which gains nothing."""
        if next(self._model.parameters()).device.type == "cpu":
            return 1
        most, best = 1, self._seconds_each(1)
        with contextlib.suppress(torch.OutOfMemoryError):  # the device's memory limits the batch
            while most < _MOST_BATCH and (seconds := self._seconds_each(2 * most)) < best / _WORTH_WHILE:
                most, best = 2 * most, seconds
        torch.cuda.empty_cache()  # other workers may need the memory of the larger batch
        return most

    def _seconds_each(self, count: int) -> float:
        """Return the seconds per image in a batch of `count`, at the size of resized images."""
        edge = self._contract.resize.shortest_edge or _PLAIN_EDGE
        blank = torch.zeros(self._contract.channels, edge, edge)
        image = prepared(blank, (edge, edge), defaults(self._contract))
        times = [self.infer([image] * count)[0].forward_seconds for _ in range(_TIMINGS)]
        return min(times)

    def prove(self) -> None:
        """Answer a test picture, so that an unservable model is refused before it is used.

        Raises `LoadRefusedError`: INFERENCE_FAILS, OUTPUT_UNSERVABLE.
        """

        def infer(options: Options) -> tuple[dict[str, Any], Answer]:
            tensor = prove.picture(self._contract.resize, self._contract.channels)
            (inferred,) = self.infer([prepared(tensor, prove.SIZE, options)])
            return inferred.output, self.encode(inferred)

        prove.prove(infer, self._contract)

    def encode(self, inferred: Inferred) -> Answer:
        """Convert the model's output to an answer."""
        started = time.perf_counter()
        output, image, options = inferred.output, inferred.prepared, inferred.prepared.options
        found = detections(output["instances"], options)
        segments = panoptic(*output["panoptic_seg"]) if Output.PANOPTIC in options.outputs else None
        classes = class_map(output["classes"], len(output["sem_seg"])) if Output.SEMANTIC in options.outputs else None
        names = self._contract.class_name
        times = StageTimes(
            image.decode_seconds, image.preprocess_seconds, inferred.forward_seconds, time.perf_counter() - started
        )
        return Answer(
            height=image.height,
            width=image.width,
            threshold=options.threshold,
            detections=found,
            evidence=inferred.evidence,
            times=times,
            panoptic=segments,
            class_map_png=classes,
            pixels=image.pixels,
            model_input=image.model_input,
            thumbnail=None
            if image.shown is None
            else thumbnail(image.shown, (image.height, image.width), found, names),
            detects=self._contract.detects,
        )

    def _set(self, options: Sequence[Options]) -> None:
        """Configure the model for the options; heads that nobody requested do not run."""
        self._observer.begin(options)
        heads: Any = getattr(self._model, "roi_heads", None)
        if isinstance(heads, ROIHeads) and Output.SEMANTIC not in self._contract.outputs:  # panoptic models need masks
            heads.mask_on = any(one.masks for one in options)
            heads.keypoint_on = any(Output.KEYPOINTS in one.outputs for one in options)
        if options[0].panoptic_threshold is not None:
            self._model.combine_instances_score_thresh = options[0].panoptic_threshold  # type: ignore[assignment]  # detectron2 is untyped

    def _resized(self, pixels: UInt8Array) -> UInt8Array | Float32Array:
        """Convert the result of `_pixels` to the model's channel order and size.

        Pillow resizes up to four channels as 8-bit pictures; with two or four it treats the last as alpha, as
        Detectron2 does. Detectron2 can only resize more channels as floats.
        """
        if self._rgb:
            pixels = pixels[:, :, ::-1]
        source = pixels if pixels.shape[2] <= _MOST_PILLOW else pixels.astype(np.float32)
        resized: UInt8Array | Float32Array = self._resize.get_transform(source).apply_image(source)
        return resized

    def _seen(self, resized: UInt8Array | Float32Array) -> UInt8Array:
        """Return the model's input as 8 bits; BGR if three channels."""
        levels = np.asarray(resized if resized.dtype == np.uint8 else np.rint(resized), np.uint8)
        return np.ascontiguousarray(levels[:, :, ::-1]) if self._rgb else levels

    def _picture(self, resized: UInt8Array | Float32Array) -> UInt8Array:
        """Return the model's input for viewing: BGR, or grey if the channels are not colours."""
        seen = self._seen(resized)
        return seen if seen.shape[2] == 3 else np.repeat(brightness(seen)[:, :, None], 3, axis=2)

    def _look(self, pixels: UInt8Array, resized: UInt8Array | Float32Array) -> tuple[PixelStatistics, ModelInput]:
        return look(pixels, self._seen(resized)), entered(resized, self._contract.pixel_mean, self._contract.pixel_std)


def load(folder: Path, contract: InputContract, device: str, threads: int, *, observe: bool = True) -> Predictor:
    """Load a model version from its folder, which holds config.yaml and model.safetensors.

    Raises `LoadRefusedError` if the device is unusable, a plugin is missing, or the config cannot be served; if a
    tensor is missing, unexpected, non-finite, or of another shape than the config declares; or if the model does not
    answer the test picture correctly.
    """
    torch.set_num_threads(threads)
    devices.use(device)
    weights = folder / "model.safetensors"
    layout.check(weights, within=folder)
    model = build(read_config(folder), contract.plugins, device, weights.stat().st_size)
    load_strictly(model, load_file(weights, device=device), contract.waivers)
    operators.check(model)
    predictor = Predictor(model, contract, observe=observe)
    predictor.prove()
    return predictor


def read_config(folder: Path) -> dict[str, Any]:
    """Read a version's config with the safe YAML loader."""
    config: dict[str, Any] = markup.plain(disk.contents(folder / "config.yaml", disk.LARGEST["config.yaml"], folder))
    return config

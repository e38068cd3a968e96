"""Walk Detectron2's model zoo: every config that it ships is imported, served, and held against Detectron2 itself.

Each is made small enough for two cores (narrow layers, few regions, small images) and given random weights whose scores
lie as far apart as trained ones', from which the real importer makes a version. What the version's predictor answers is
compared with what `DefaultPredictor` gives on the same weights. `make zoo` writes the page.
"""

import argparse
import io
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image
from pycocotools import mask as rle
from safetensors.torch import load_file
from torch import Tensor, nn
from vedette_server.contract.answer import Answer
from vedette_server.contract.declared import is_lazy
from vedette_server.contract.image import PixelFormat, RawImage, SentImage
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.contract.options import defaults
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor import lazy
from vedette_server.predictor.config import plain
from vedette_server.predictor.predictor import load, read_config
from vedette_server.predictor.reference import default_predictor
from vedette_server.repository import repository

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "zoo.md"
CONFIGS = Path(model_zoo.__file__).parent / "configs"
PARTS = "common"  # what the LazyConfigs are made of: no model by itself
SIZE = 160, 240  # pixels, of the shortest and the longest edge of an image
REGIONS = 60  # that a proposal network keeps

# How far the outputs of these layers spread, so that a random model answers as variedly as a trained one.
_SPREAD = {
    "cls_score": 4.0,
    "bbox_pred": 0.5,
    "objectness_logits": 3.0,
    "anchor_deltas": 0.3,
    "predictor": 3.0,
    "ctrness": 1.0,
}


_EQUAL = "equal to the bit"
_ROW = re.compile(r"\| \S+\.(yaml|py) \| ")


@dataclass(frozen=True)
class Row:
    """The outcome of one config."""

    config: str
    outputs: tuple[str, ...] = ()  # empty: refused
    told: str = ""  # why it was refused, or how the answer differs
    objects: int = 0  # that were compared

    @property
    def line(self) -> str:
        """Its row of the page."""
        if not self.outputs:
            return f"| {self.config} | refused | {self.told} |"
        return f"| {self.config} | served: {', '.join(self.outputs)} | {self.told or _EQUAL} |"


def configs() -> list[str]:
    """Every config that the zoo ships, by its path within."""
    files = (path.relative_to(CONFIGS).as_posix() for kind in ("*.yaml", "*.py") for path in CONFIGS.rglob(kind))
    return sorted(name for name in files if not name.startswith(f"{PARTS}/"))


def picture() -> UInt8Array:
    """The picture that every model is shown: BGR."""
    return np.ascontiguousarray(scenes.draw(scenes.describe(11)).pixels[:, :, ::-1])


def shrink(cfg: CfgNode) -> CfgNode:
    """Make a config's model narrow, and the images small."""
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    body = cfg.MODEL.RESNETS
    grouped = 32 if "GN" in body.NORM else 8  # GroupNorm has 32 groups
    body.STEM_OUT_CHANNELS = max(8, grouped)
    if body.DEPTH > 34:  # the smaller ones are what they are
        body.NUM_GROUPS = min(body.NUM_GROUPS, 2)
        body.WIDTH_PER_GROUP = grouped
        body.RES2_OUT_CHANNELS = 4 * max(8, grouped)
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = 64, 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [16, 16]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 4 * REGIONS, REGIONS
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = SIZE
    return cfg


def shrink_lazy(model: Any, dataloader: Any) -> None:
    """Do the same to a LazyConfig, as far as its parts can be made narrow."""
    stages = model.backbone.get("bottom_up", {}).get("stages", {})
    if "depth" in stages:
        stages.depth = 18
        stages.pop("stride_in_1x1", None)
        top = model.backbone.top_block
        if "in_channels" in top and top.get("in_feature", "res5") == "res5":
            top.in_channels = 512
    heads = model.get("roi_heads", {})
    if heads.get("box_predictor") and heads.get("box_head"):
        heads.box_head.fc_dims = [64]
        heads.box_predictor.input_shape = ShapeSpec(channels=64)
    for head in ("mask_head", "keypoint_head"):
        if "conv_dims" in (heads.get(head) or {}):
            heads[head].conv_dims = [16, 16]
    if "proposal_generator" in model:
        model.proposal_generator.pre_nms_topk = [100, 4 * REGIONS]
        model.proposal_generator.post_nms_topk = [100, REGIONS]
    resize = dataloader.test.mapper.augmentations[0]
    resize.short_edge_length, resize.max_size = SIZE


_PROGRAM = """from detectron2 import model_zoo
from tests.bench.zoo import shrink_lazy

_zoo = model_zoo.get_config({path!r})
model, dataloader = _zoo.model, _zoo.dataloader
shrink_lazy(model, dataloader)
"""


def _file(path: str, folder: Path) -> str:
    """Write a config, made small, as a user has it; returns where, or the zoo's own path for what cannot be made so."""
    try:
        if path.endswith(".py"):
            file = folder / "config.py"
            file.write_text(_PROGRAM.format(path=path))
            LazyConfig.load(str(file))
        else:
            file = folder / "config.yaml"
            file.write_text(yaml.safe_dump(plain(shrink(model_zoo.get_config(path)))))
    except Exception:  # noqa: BLE001  it is the importer that must say what is wrong with it
        return path
    return str(file)


def _model(file: str) -> nn.Module:
    """A config's model, with random weights."""
    model: nn.Module
    if file.endswith(".py"):
        model = instantiate(LazyConfig.load(file).model)
    else:
        model = build_model(model_zoo.get_config(file) if not Path(file).exists() else _load(file))
    return model


def _load(file: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(file)
    return cfg


@torch.no_grad()
def spread(model: nn.Module, image: Tensor, size: tuple[int, int]) -> None:
    """Give random weights the statistics of trained ones: by one picture, layer by layer, as it passes."""
    handles = []

    def normalise(layer: Any, inputs: tuple[Tensor]) -> None:
        layer.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        layer.running_var.copy_(inputs[0].var(dim=(0, 2, 3)) + 1e-3)

    def scale(name: str) -> Any:
        done: list[bool] = []

        def hook(layer: Any, _inputs: object, output: Tensor) -> Tensor:
            if done or output.numel() < 2:
                return output
            done.append(True)
            factor = _SPREAD[name] / max(float(output.std()), 1e-6)
            layer.weight.mul_(factor)
            bias = 0 if layer.bias is None else layer.bias.reshape(-1, *[1] * (output.dim() - 2))
            return (output - bias) * factor + bias

        return hook

    for name, layer in model.named_modules():
        last = name.rpartition(".")[2]
        if getattr(layer, "running_mean", None) is not None:
            handles.append(layer.register_forward_pre_hook(normalise))
        elif last in _SPREAD and hasattr(layer, "weight"):
            handles.append(layer.register_forward_hook(scale(last)))
    model.eval()([{"image": image, "height": size[0], "width": size[1]}])
    for handle in handles:
        handle.remove()


def write(path: str, folder: Path, name: str = "zoo") -> Path:
    """Import a config of the zoo, made small, into the repository `folder`; returns the version's folder.

    Raises `LoadRefusedError`.
    """
    files = folder.parent / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    torch.manual_seed(0)
    file, weights = _file(path, files), files / "model_final.pth"
    try:
        model = _model(file)
        _spread(model)
        state = model.state_dict()
    except Exception:  # noqa: BLE001  as above
        state = {"nothing": torch.zeros(1)}
    torch.save({"model": state}, weights)
    return import_model(folder, name, ModelSource(config=file, weights=weights, run_config=True))


def _spread(model: nn.Module) -> None:
    pixels = picture()
    resize = ResizeShortestEdge(SIZE[:1] * 2, SIZE[1]).get_transform(pixels)
    spread(model, torch.as_tensor(resize.apply_image(pixels).astype("float32").transpose(2, 0, 1)), pixels.shape[:2])


def walk(path: str, root: Path) -> Row:
    """Import, serve and compare one config."""
    shutil.rmtree(root / "repository", ignore_errors=True)
    try:
        folder = write(path, root / "repository")
    except LoadRefusedError as error:
        return Row(path, told=" ".join(str(error).replace(f"{CONFIGS}/", "").replace("|", "/").split()))
    version = repository.find(root / "repository", "zoo")
    predictor, pixels = load(folder, version.contract, "cpu", 1), picture()
    spec = RawImage(PixelFormat.BGR8, *pixels.shape[:2])
    answer = predictor.predict(SentImage(spec, memoryview(pixels.tobytes())), defaults(version.contract))
    told = "; ".join(compare(answer, reference(folder, pixels)))
    return Row(path, tuple(map(str, version.contract.outputs)), told, len(answer.detections))


@torch.no_grad()
def reference(folder: Path, pixels: UInt8Array) -> dict[str, Any]:
    """Detectron2's own output with a version's weights; for a LazyConfig, the bare model's, prepared as it says."""
    config = read_config(folder)
    if not is_lazy(config):
        given: dict[str, Any] = default_predictor(folder)(pixels)
        return given
    model = lazy.build(config, ()).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    mapper = config["dataloader"]["test"]["mapper"]
    ordered = pixels[:, :, ::-1] if mapper["image_format"] == "RGB" else pixels
    resize = ResizeShortestEdge(SIZE[:1] * 2, SIZE[1]).get_transform(ordered)
    image = torch.as_tensor(resize.apply_image(ordered).astype("float32").transpose(2, 0, 1))
    (output,) = model([{"image": image, "height": pixels.shape[0], "width": pixels.shape[1]}])
    return dict(output)


def compare(answer: Answer, output: Mapping[str, Any]) -> Iterator[str]:
    """Yield the bitwise differences of an answer from Detectron2's own output, and a line if there are no objects."""
    found, wanted = answer.detections, output.get("instances")
    if "proposals" in output:
        proposals = output["proposals"]
        wanted = Instances(
            proposals.image_size,
            pred_boxes=proposals.proposal_boxes,
            scores=proposals.objectness_logits.sigmoid(),
            pred_classes=torch.zeros(len(proposals), dtype=torch.long),
        )
    if wanted is not None:
        if not len(wanted):
            yield "there was nothing to compare"
        if len(found) != len(wanted):
            yield f"{len(found)} objects, not {len(wanted)}"
            return
        yield from _unequal("boxes", found.boxes, wanted.pred_boxes.tensor.numpy())
        yield from _unequal("scores", found.scores, wanted.scores.numpy())
        yield from _unequal("classes", found.class_ids, wanted.pred_classes.numpy())
        if wanted.has("pred_masks"):
            size = [answer.height, answer.width]
            masks = [rle.decode({"size": size, "counts": mask.counts}) for mask in found.masks or ()]
            yield from _unequal("masks", np.array(masks, bool), wanted.pred_masks.numpy())
        if wanted.has("pred_keypoints"):
            yield from _unequal("keypoints", found.keypoints, wanted.pred_keypoints.numpy())
    if "sem_seg" in output:
        yield from _unequal("class map", _grey(answer.class_map_png), output["sem_seg"].argmax(dim=0).numpy())
    if "panoptic_seg" in output:
        labels, segments = output["panoptic_seg"]
        given = answer.panoptic
        yield from _unequal("segment map", _grey(given.segment_map_png if given else None), labels.numpy())
        told = [(one.id, one.is_thing, one.class_id) for one in given.segments] if given else []
        if told != [(one["id"], one["isthing"], one["category_id"]) for one in segments]:
            yield "segments differ"


def _grey(png: bytes | None) -> Any:
    return png and np.asarray(Image.open(io.BytesIO(png)))


def _unequal(what: str, given: Any, wanted: Any) -> Iterator[str]:
    if given is None or given.shape != wanted.shape:
        yield f"{what}: {None if given is None else given.shape}, not {wanted.shape}"
    elif not np.array_equal(given, wanted):
        apart = np.abs(given.astype(np.float64) - wanted.astype(np.float64)).max()
        yield f"{what} differ by up to {apart:.2g}"


def read_page() -> dict[str, str]:
    """The rows of the page as it is, by their config."""
    lines = [line for line in PAGE.read_text().splitlines() if _ROW.match(line)] if PAGE.exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def page(lines: Mapping[str, str]) -> str:
    """The page of rows, by their config."""
    served = [line for line in lines.values() if "| served: " in line]
    return _PAGE.format(
        configs=len(lines),
        served=len(served),
        equal=sum(line.endswith(f"| {_EQUAL} |") for line in served),
        refused=len(lines) - len(served),
        rows="\n".join(lines[name] for name in sorted(lines)),
    )


_PAGE = """# The model zoo

This page lists the outcome of every config in Detectron2's model zoo, as `make zoo` found it. Of {configs} configs,
{served} are served, {equal} of them bit-identical to Detectron2's own `DefaultPredictor`. The other {refused} are
refused, with the reason.

Each config is reduced to a size for two cores: narrow layers, few regions, small images. Its random weights give scores
as far apart as trained ones do. The real importer makes a version of it, and the predictor answers one image.
`DefaultPredictor` answers the same image with the same weights. Then boxes, scores, classes, masks, keypoints and maps
are compared. `DefaultPredictor` does not accept a LazyConfig (`.py`), so that is compared with its bare model.
`common/` contains parts of LazyConfigs, and no models.

Deformable convolutions are served where their operators run: see OPERATORS_MISSING in [errors.md](errors.md). The same
holds for rotated boxes, for which the zoo has no config.

| config | outcome | answer |
| --- | --- | --- |
{rows}
"""


def main() -> None:
    """Walk the zoo and write the page, or the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="walk the configs whose path holds this, and leave the other rows")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows, bugs = [], 0
    for path in (name for name in configs() if asked.only in name):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(walk(path, Path(folder)))
            except Exception:  # noqa: BLE001  each is a bug of ours
                bugs += 1
                traceback.print_exc()
                continue
        sys.stdout.write(f"{rows[-1].line}  ({rows[-1].objects} objects, {time.monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
    kept = read_page() if asked.only else {}
    if not bugs:
        PAGE.write_text(page(kept | {row.config: row.line for row in rows}))
    served = sum(bool(row.outputs) for row in rows)
    equal = sum(bool(row.outputs) and not row.told for row in rows)
    sys.stdout.write(f"{served} served, {equal} of them equal, {len(rows) - served} refused, {bugs} tracebacks\n")
    sys.exit(bugs > 0 or equal < served)


if __name__ == "__main__":
    main()

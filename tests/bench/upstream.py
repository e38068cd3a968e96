"""Serve models of upstream's own Detectron2 over TCP, ViTDet among them, and hold the answers against the bare models.

    python -m tests.bench.upstream FOLDER

FOLDER holds upstream's package `detectron2`, of any later version than the one that is installed here, and beside it
its `configs`; nothing needs to be compiled. Its vision transformers need the package timm, which may lie there as well.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import detectron2
import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import ResizeShortestEdge
from safetensors.torch import load_file
from vedette_client import Client, Result
from vedette_server.contract.types import UInt8Array
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor import lazy
from vedette_server.predictor.predictor import read_config

from tests.bench import zoo
from tests.support import running

_CONFIGS = {
    "vitdet": """
import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "RGB"
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=224, max_size=224)]
model.backbone.square_pad = model.backbone.net.img_size = 224
model.backbone.net.embed_dim, model.backbone.net.depth, model.backbone.net.num_heads = 48, 4, 4
model.backbone.net.window_block_indexes = [0, 1, 3]
""",
    "cascade_swin": """
from functools import partial

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import SwinTransformer
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=160, max_size=240)]
model.backbone.bottom_up = L(SwinTransformer)(
    depths=[1, 1, 1, 1], num_heads=[2, 2, 4, 4], embed_dim=32, drop_path_rate=0.1, out_indices=[0, 1, 2, 3]
)
model.backbone.in_features = ("p0", "p1", "p2", "p3")
[model.roi_heads.pop(key) for key in ["box_head", "box_predictor", "proposal_matcher"]]
model.roi_heads.update(
    _target_=CascadeROIHeads,
    box_heads=[
        L(FastRCNNConvFCHead)(input_shape=ShapeSpec(channels=256, height=7, width=7), conv_dims=[], fc_dims=[64])
        for _ in range(2)
    ],
    box_predictors=[
        L(FastRCNNOutputLayers)(
            input_shape=ShapeSpec(channels=64),
            test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
            cls_agnostic_bbox_reg=True,
            num_classes="${...num_classes}",
        )
        for _ in range(2)
    ],
    proposal_matchers=[L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False) for _ in range(2)],
)
""",
    "fcos": """
from detectron2 import model_zoo

model = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.test.mapper.augmentations[0].short_edge_length, dataloader.test.mapper.augmentations[0].max_size = 160, 240
""",
}


def main() -> None:
    """Run again with upstream's package first on the path, then serve and compare."""
    folder = Path(sys.argv[1]).resolve()
    if os.getenv("_UPSTREAM") is None:
        configs = folder / "detectron2" / "model_zoo" / "configs"
        if not configs.exists():  # where upstream's own setup.py puts them
            configs.symlink_to(folder / "configs")
        path = os.pathsep.join([str(folder), *filter(None, [os.getenv("PYTHONPATH")])])
        sys.exit(
            subprocess.run(
                [sys.executable, "-m", "tests.bench.upstream", str(folder)],
                env={**os.environ, "PYTHONPATH": path, "_UPSTREAM": "1"},
                check=False,
            ).returncode
        )
    _serve()


def _serve() -> None:
    pixels = zoo.picture()
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "repository"
        for name, text in _CONFIGS.items():
            file, weights = Path(scratch) / f"{name}.py", Path(scratch) / f"{name}.pth"
            file.write_text(text)
            torch.manual_seed(0)
            model = instantiate(LazyConfig.load(str(file)).model)
            zoo.spread(model, torch.rand(3, 160, 208) * 255, pixels.shape[:2])
            torch.save({"model": model.state_dict()}, weights)
            import_model(repository, name, ModelSource(config=str(file), weights=weights, run_config=True))
        torch.set_num_threads(1)  # as the workers have
        with running.server("--repository", str(repository), "--threads", "1") as server:
            for name in _CONFIGS:
                with Client(server.address) as client:
                    result = client.detect(pixels, pixel_format="BGR8", model=name)
                same = _same(result, _bare(repository / name / "1", pixels))
                verdict = "equal to the bit" if same else "DIFFERENT"
                sys.stdout.write(f"{name} of {detectron2.__file__}: {len(result)} objects over TCP, {verdict}\n")


@torch.no_grad()
def _bare(folder: Path, pixels: UInt8Array) -> Any:
    """The bare model's output, with the preparation that its config says."""
    config = read_config(folder)
    model = lazy.build(config, ()).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    mapper = config["dataloader"]["test"]["mapper"]
    resize, edge = mapper["augmentations"][0], mapper["augmentations"][0]["short_edge_length"]
    ordered = pixels[:, :, ::-1] if mapper["image_format"] == "RGB" else pixels
    given = ResizeShortestEdge([edge, edge], resize["max_size"]).get_transform(ordered).apply_image(ordered)
    image = torch.as_tensor(given.astype("float32").transpose(2, 0, 1))
    (output,) = model([{"image": image, "height": pixels.shape[0], "width": pixels.shape[1]}])
    return output["instances"]


def _same(result: Result, found: Any) -> bool:
    masks = [one.mask.decode() for one in result if one.mask]
    return (
        len(result) == len(found) > 0
        and np.array_equal(result.boxes, found.pred_boxes.tensor.numpy())
        and np.array_equal(result.scores, found.scores.numpy())
        and result.class_ids.tolist() == found.pred_classes.tolist()
        and (not found.has("pred_masks") or np.array_equal(np.array(masks), found.pred_masks.numpy()))
    )


if __name__ == "__main__":
    main()

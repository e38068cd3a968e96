"""The families of the model zoo, built small with random weights from the zoo's own configs."""

from pathlib import Path

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from vedette_server import importer
from vedette_server.contract.contract import Names
from vedette_server.demo import scenes
from vedette_server.predictor import plugins
from vedette_server.predictor.config import plain

ZOO = {
    "faster_rcnn": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "keypoint_rcnn": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "panoptic_fpn": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    "cascade_mask_rcnn": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
}
CLASSES = ("cat", "dog", "cup", "car", "sun")
STUFF = ("things", "sky", "grass", "road")
LAZY = Path(__file__).parent / "lazy_config.py"

PLUGINS = {
    "point_rend": "detectron2.projects.point_rend",
    "panoptic_deeplab": "detectron2.projects.panoptic_deeplab",
    "project": "tests.support.project",
}


def config(family: str) -> CfgNode:
    """The config of a family of the zoo or of a project, with a narrow backbone, few classes and small images."""
    if family not in PLUGINS:
        return _narrow(model_zoo.get_config(ZOO[family]), family)
    cfg = model_zoo.get_config(ZOO["mask_rcnn"])
    plugins.extend(cfg, [PLUGINS[family]])
    return _PROJECTS[family](_narrow(cfg, family))


def _narrow(cfg: CfgNode, family: str) -> CfgNode:
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.PIXEL_STD = [58.0, 58.0, 58.0]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(STUFF)
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [16, 16]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(class_names(family))
    cfg.MODEL.RETINANET.NUM_CLASSES = len(class_names(family))
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 160, 240
    if family == "faster_rcnn":
        cfg.INPUT.FORMAT = "RGB"  # so that both channel orders are held to the reference
    return cfg


def _point_rend(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.ROI_MASK_HEAD.NAME = "PointRendMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
    cfg.MODEL.ROI_MASK_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON = True
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = len(CLASSES)
    cfg.MODEL.POINT_HEAD.FC_DIM = 16
    return cfg


def _panoptic_deeplab(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.META_ARCHITECTURE = "PanopticDeepLab"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_deeplab_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res5"]
    cfg.MODEL.RESNETS.RES5_DILATION = 2
    cfg.MODEL.SEM_SEG_HEAD.NAME = "PanopticDeepLabSemSegHead"
    for head in (cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.INS_EMBED_HEAD):
        head.IN_FEATURES = ["res2", "res3", "res5"]
        head.PROJECT_FEATURES = ["res2", "res3"]
        head.PROJECT_CHANNELS = [8, 16]
        head.ASPP_CHANNELS = 16
        head.CONVS_DIM = 16
        head.HEAD_CHANNELS = 16
        head.NORM = "BN"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 19  # the dataset's, which says which of them are things
    cfg.MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD = 0.001
    cfg.MODEL.PANOPTIC_DEEPLAB.STUFF_AREA = 64
    cfg.MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE = 20
    cfg.MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY = 64
    cfg.DATASETS.TRAIN = ("cityscapes_fine_panoptic_train",)
    return cfg


def _project(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.ROI_BOX_HEAD.NAME = "ScaledHead"
    cfg.MODEL.SCALED_HEAD.SCALE = 0.5
    return cfg


_PROJECTS = {"point_rend": _point_rend, "panoptic_deeplab": _panoptic_deeplab, "project": _project}


def class_names(family: str) -> tuple[str, ...]:
    return ("person",) if family == "keypoint_rcnn" else CLASSES


def model(family: str, cfg: CfgNode | None = None) -> torch.nn.Module:
    """A model with random weights whose activations and scores are as spread out as a trained one's."""
    torch.manual_seed(17)
    built: torch.nn.Module = build_model(cfg or config(family))
    pixels = torch.as_tensor(scenes.draw(scenes.describe(1)).pixels.astype(np.float32).transpose(2, 0, 1))
    with torch.no_grad():
        built.get_submodule("backbone")(
            ((pixels - 110) / 58)[None]
        )  # in training mode: sets the running statistics of BatchNorm
        for name, parameter in built.named_parameters():
            if name.endswith(("cls_score.weight", "bbox_pred.weight")):
                parameter.mul_(2000 if family == "retinanet" else 8)
            if name.endswith(("sem_seg_head.predictor.weight", "center_predictor.weight")):  # Panoptic-DeepLab's
                parameter.mul_(300)
            if name == "head.cls_score.bias":  # RetinaNet's prior would leave every answer empty
                parameter.zero_()
    return built


def write(root: Path) -> Path:
    """Write all of the zoo as a model repository."""
    for family in ZOO:
        (root / family).mkdir(parents=True)
        importer.write_version(
            root / family,
            1,
            plain(config(family)),
            model(family),
            names=Names(
                classes=class_names(family),
                stuff=STUFF if family == "panoptic_fpn" else (),
                keypoints=tuple(f"point{index}" for index in range(17)) if family == "keypoint_rcnn" else (),
            ),
            pictures={},
        )
    return root

"""Models beyond the usual families, small and with random weights, as their users would import them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor import plugins
from vedette_server.predictor.config import plain

from tests.support import families
from tests.support.families import CLASSES, STUFF, ZOO


def _rotated(cfg: CfgNode) -> None:
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.ANGLES = [[-90, -45, 0, 45]]
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RRPN"
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1, 1, 1, 1, 1)
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 100, 60
    cfg.MODEL.ROI_HEADS.NAME = "RROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignRotated"
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = (10, 10, 5, 5, 1)


def _rotated_proposals(cfg: CfgNode) -> None:
    _rotated(cfg)
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"


def _proposals(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"


def _semantic(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"


def _modulated(cfg: CfgNode) -> None:
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, True, True, True]
    cfg.MODEL.RESNETS.DEFORM_MODULATED = True


def _vit(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.NAME = "build_simple_pyramid"


def _set(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SetDetector"


def _masks(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "QueryMasks"


@dataclass(frozen=True)
class Kind:
    """A kind of model: the zoo's config that it starts from, what is changed, and what its user says at import."""

    base: str
    change: Callable[[CfgNode], None]
    plugins: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = CLASSES
    stuff: tuple[str, ...] | None = None


KINDS = {
    "rotated": Kind("faster_rcnn", _rotated, ("tests.plugins.rotated",)),
    "rotated_proposals": Kind("faster_rcnn", _rotated_proposals, ("tests.plugins.rotated",), classes=None),
    "proposals": Kind("faster_rcnn", _proposals, classes=None),
    "semantic": Kind("panoptic_fpn", _semantic, classes=None, stuff=STUFF),
    "deformable": Kind("mask_rcnn", _modulated, ("tests.plugins.deformable",)),
    "vit": Kind("mask_rcnn", _vit, ("tests.plugins.vit",)),
    "set": Kind("faster_rcnn", _set, ("tests.plugins.queries",)),
    "masks": Kind("mask_rcnn", _masks, ("tests.plugins.queries",), stuff=(*CLASSES, "sky", "grass", "road")),
}


def config(name: str) -> CfgNode:
    """A kind's config."""
    kind = KINDS[name]
    cfg = model_zoo.get_config(ZOO[kind.base])
    plugins.extend(cfg, kind.plugins)
    families._narrow(cfg, kind.base)
    kind.change(cfg)
    return cfg


def model(name: str) -> torch.nn.Module:
    """A kind's model with random weights that give scores apart from each other."""
    built = families.model(KINDS[name].base, config(name)).eval()
    with torch.no_grad():
        for key, value in built.named_parameters():
            if key.endswith(("class_embed.weight", "cls_score.weight")):
                value.mul_(64 if name == "vit" else 8)  # whose features lie closer to each other
            if key.endswith("rpn_head.objectness_logits.weight"):
                value.mul_(20)
    return built


def write(root: Path, name: str, **changes: object) -> Path:
    """Import a kind into a repository from files as a training leaves them; returns the version's folder."""
    kind = KINDS[name]
    files = root.parent / "files"
    files.mkdir(exist_ok=True)
    (files / f"{name}.yaml").write_text(yaml.safe_dump(plain(config(name))))
    torch.save({"model": model(name).state_dict()}, files / f"{name}.pth")
    given = {"classes": kind.classes, "stuff": kind.stuff, "plugins": kind.plugins, **changes}
    golden = given.pop("golden", None)
    source = ModelSource(config=str(files / f"{name}.yaml"), weights=files / f"{name}.pth", **given)  # type: ignore[arg-type]
    return import_model(root, name, source, golden)  # type: ignore[arg-type]

"""Two models that predict a set: boxes as DETR does, masks as Mask2Former does, and no non-maximum suppression."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional


def add_queries_config(config: CfgNode) -> None:
    """The keys that they read."""
    config.MODEL.QUERIES = CfgNode({"NUM_QUERIES": 30, "WIDTH": 32, "NUM_CLASSES": 5, "NUM_STUFF": 3, "TOP_K": 20})


class _Queries(nn.Module):
    """The common part of both: a backbone, queries that attend to its coarsest map, and a class for each query."""

    def __init__(self, config: CfgNode) -> None:
        super().__init__()
        keys = config.MODEL.QUERIES
        self.backbone = build_backbone(config)
        width = keys.WIDTH
        self.names = sorted(self.backbone.output_shape())
        self.project = nn.Conv2d(self.backbone.output_shape()[self.names[-1]].channels, width, 1)
        self.queries = nn.Embedding(keys.NUM_QUERIES, width)
        self.decoder = nn.TransformerDecoderLayer(width, 4, 64, dropout=0.0, batch_first=True)
        self.things, self.all, self.top = keys.NUM_CLASSES, keys.NUM_CLASSES + keys.NUM_STUFF, keys.TOP_K
        self.register_buffer("pixel_mean", torch.tensor(config.MODEL.PIXEL_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.MODEL.PIXEL_STD).view(-1, 1, 1), persistent=False)

    def decode(self, batch: list[dict[str, Any]]) -> tuple[ImageList, dict[str, Tensor], Tensor]:
        images = [(item["image"].to(self.pixel_mean.device) - self.pixel_mean) / self.pixel_std for item in batch]
        padded = ImageList.from_tensors(images, self.backbone.size_divisibility)
        features = self.backbone(padded.tensor)
        memory = self.project(features[self.names[-1]]).flatten(2).transpose(1, 2)
        return padded, features, self.decoder(self.queries.weight.expand(len(batch), -1, -1), memory)


@META_ARCH_REGISTRY.register()
class SetDetector(_Queries):
    """As DETR: a class or none, and a box, for each query."""

    def __init__(self, config: CfgNode) -> None:
        super().__init__(config)
        width = config.MODEL.QUERIES.WIDTH
        self.num_classes = config.MODEL.QUERIES.NUM_CLASSES
        self.class_embed, self.bbox_embed = nn.Linear(width, self.num_classes + 1), nn.Linear(width, 4)

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        _, _, decoded = self.decode(batch)
        scores, classes = self.class_embed(decoded).softmax(-1)[..., :-1].max(-1)
        x, y, width, height = self.bbox_embed(decoded).sigmoid().unbind(-1)
        edges = torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), -1)
        outputs = []
        for item, of_it, score, number in zip(batch, edges, scores, classes, strict=True):
            size = item["height"], item["width"]
            boxes = Boxes(of_it.clone())
            boxes.scale(size[1], size[0])
            boxes.clip(size)
            # In the order of the queries, as DETR gives them.
            outputs.append({"instances": Instances(size, pred_boxes=boxes, scores=score, pred_classes=number)})
        return outputs


@META_ARCH_REGISTRY.register()
class QueryMasks(_Queries):
    """As Mask2Former: a class or none, and a mask, for each query; from them all three kinds of answer."""

    def __init__(self, config: CfgNode) -> None:
        super().__init__(config)
        width = config.MODEL.QUERIES.WIDTH
        self.class_embed, self.mask_embed = nn.Linear(width, self.all + 1), nn.Linear(width, width)
        self.pixels = nn.Conv2d(self.backbone.output_shape()[self.names[0]].channels, width, 1)

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        padded, features, decoded = self.decode(batch)
        classes = self.class_embed(decoded)
        masks = torch.einsum("nqc,nchw->nqhw", self.mask_embed(decoded), self.pixels(features[self.names[0]]))
        masks = functional.interpolate(masks, padded.tensor.shape[-2:], mode="bilinear", align_corners=False)
        outputs = []
        for item, size, scores, mask in zip(batch, padded.image_sizes, classes, masks, strict=True):
            whole = sem_seg_postprocess(mask, size, item["height"], item["width"])
            semantic = torch.einsum("qk,qhw->khw", scores.softmax(-1)[:, :-1], whole.sigmoid())
            outputs.append(
                {
                    "sem_seg": semantic,
                    "panoptic_seg": self._panoptic(scores, whole),
                    "instances": self._instances(scores, whole),
                }
            )
        return outputs

    def _instances(self, classes: Tensor, masks: Tensor) -> Instances:
        shares = classes.softmax(-1)[:, : self.things].flatten()
        best, order = shares.topk(self.top, sorted=False)
        chosen = masks[order // self.things]
        inside = (chosen > 0).float()
        found = Instances(tuple(masks.shape[-2:]))
        found.pred_masks = inside
        found.pred_boxes = Boxes(torch.zeros(len(chosen), 4))  # as Mask2Former does
        quality = (chosen.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
        found.scores, found.pred_classes = best * quality, order % self.things
        return found

    def _panoptic(self, classes: Tensor, masks: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        scores, labels = classes.softmax(-1).max(-1)
        keep = labels != self.all
        seg = torch.zeros(masks.shape[-2:], dtype=torch.int32)
        segments: list[dict[str, Any]] = []
        if not keep.any():
            return seg, segments
        of_pixel = (scores[keep].view(-1, 1, 1) * masks[keep].sigmoid()).argmax(0)
        for index, label in enumerate(labels[keep].tolist()):
            inside = (of_pixel == index) & (masks[keep][index] > 0)
            if inside.any():
                segments.append({"id": len(segments) + 1, "isthing": label < self.things, "category_id": label})
                seg[inside] = len(segments)
        return seg, segments

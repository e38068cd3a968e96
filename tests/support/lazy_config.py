"""A LazyConfig, as its users write them: the zoo's Mask R-CNN made small, with five classes."""

from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config

_zoo = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader = _zoo.model, _zoo.dataloader

_body = model.backbone.bottom_up
_body.freeze_at = 0
_body.stem.norm = _body.stages.norm = "BN"
_body.stages.depth = 18
del _body.stages.stride_in_1x1

model.roi_heads.num_classes = 5
model.roi_heads.box_head.fc_dims = [64]
model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=64)
model.roi_heads.mask_head.conv_dims = [16, 16]

dataloader.test.mapper.augmentations[0].short_edge_length = 160
dataloader.test.mapper.augmentations[0].max_size = 240

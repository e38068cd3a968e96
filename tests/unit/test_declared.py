"""Models as their configs declare them: every family, in both of Detectron2's dialects."""

from dataclasses import fields
from typing import Any

import pytest
from vedette_server.contract.contract import Output, ResizeRule
from vedette_server.contract.declaration import ANY_NUMBER, Count, Declared, Gives, Produced
from vedette_server.contract.declared import ONE_CLASS, architecture, datasets, declared
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check, LoadRefusedError

from tests.support.contracts import config

BOXES, ROTATED, MASKS, KEYPOINTS, PANOPTIC, SEMANTIC = Output
ROTATED_WEIGHTS = [10.0, 10.0, 5.0, 5.0, 1.0]
ONLY_RESIZE = {"_target_": "detectron2.data.transforms.ResizeShortestEdge", "short_edge_length": 800, "max_size": 1333}
RPN = {"_target_": "detectron2.modeling.proposal_generator.RPN", "post_nms_topk": [2000, 1000]}
HEADS = {"num_classes": 3, "box_predictor": {"test_score_thresh": 0.3, "test_topk_per_image": 7}}


def gives(seen: Declared) -> Gives:
    return Gives(**{field.name: getattr(seen, field.name) for field in fields(Gives)})


def yacs(architecture: str, **model: Any) -> dict[str, Any]:
    return config(META_ARCHITECTURE=architecture, **{"MASK_ON": False, **model})


def lazy(architecture: str, mapper: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    base = {
        "_target_": f"detectron2.modeling.meta_arch.{architecture}",
        "pixel_mean": [103.5, 116.25, 123.75],
        "pixel_std": [1, 2, 3],
        "proposal_generator": RPN,
    }
    prepared = {"image_format": "RGB", "augmentations": [ONLY_RESIZE], **(mapper or {})}
    return {"model": {**base, **model}, "dataloader": {"test": {"mapper": prepared}}}


YACS_CLASSES, STUFF = Count("MODEL.ROI_HEADS.NUM_CLASSES", 2), Count("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2)
YACS_MOST = Count("TEST.DETECTIONS_PER_IMAGE", 100)
DENSE = Gives(outputs=(BOXES,), threshold=0.3, most=YACS_MOST, classes=Count("MODEL.RETINANET.NUM_CLASSES", 3))
WHOLE = {"PANOPTIC_DEEPLAB": {"PREDICT_INSTANCES": True}}
APART = {"PANOPTIC_FPN": {"COMBINE": {"ENABLED": False, "INSTANCES_CONFIDENCE_THRESH": 0.5}}}
PROPOSED = {"RPN": {"BBOX_REG_WEIGHTS": ROTATED_WEIGHTS, "POST_NMS_TOPK_TEST": 50}}

YACS: dict[str, tuple[dict[str, Any], Gives]] = {
    "Faster R-CNN": (
        yacs("GeneralizedRCNN"),
        Gives(outputs=(BOXES,), threshold=0.05, most=YACS_MOST, classes=YACS_CLASSES),
    ),
    "Mask and Keypoint R-CNN": (
        yacs("GeneralizedRCNN", MASK_ON=True, KEYPOINT_ON=True, ROI_KEYPOINT_HEAD={"NUM_KEYPOINTS": 17}),
        Gives(
            outputs=(BOXES, MASKS, KEYPOINTS),
            threshold=0.05,
            most=YACS_MOST,
            classes=YACS_CLASSES,
            keypoints=Count("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 17),
            box_masks=True,
        ),
    ),
    "a rotated R-CNN": (
        yacs("GeneralizedRCNN", ROI_BOX_HEAD={"BBOX_REG_WEIGHTS": ROTATED_WEIGHTS}),
        Gives(outputs=(BOXES, ROTATED), threshold=0.05, most=YACS_MOST, classes=YACS_CLASSES),
    ),
    "RetinaNet": (yacs("RetinaNet"), DENSE),
    "FCOS": (yacs("FCOS"), DENSE),
    "Panoptic FPN": (
        yacs("PanopticFPN"),
        Gives(
            outputs=(BOXES, PANOPTIC, SEMANTIC),
            threshold=0.05,
            most=YACS_MOST,
            classes=YACS_CLASSES,
            stuff=STUFF,
            panoptic_threshold=0.5,
        ),
    ),
    "Panoptic FPN without the map": (
        yacs("PanopticFPN", **APART),
        Gives(outputs=(BOXES, SEMANTIC), threshold=0.05, most=YACS_MOST, classes=YACS_CLASSES, stuff=STUFF),
    ),
    "Panoptic-DeepLab": (
        yacs("PanopticDeepLab", **WHOLE),
        Gives(outputs=(BOXES, MASKS, PANOPTIC, SEMANTIC), classes=STUFF, stuff=STUFF),
    ),
    "a semantic segmentor": (yacs("SemanticSegmentor"), Gives(outputs=(SEMANTIC,), stuff=STUFF)),
    "a proposal network": (
        yacs("ProposalNetwork", **PROPOSED),
        Gives(outputs=(BOXES, ROTATED), most=Count("MODEL.RPN.POST_NMS_TOPK_TEST", 50), classes=ONE_CLASS),
    ),
}

LAZY_STUFF = Count("model.sem_seg_head.num_classes", 4)
LAZY_CLASSES = Count("model.roi_heads.num_classes", 3)
TURNED = {"box2box_transform": {"weights": ROTATED_WEIGHTS}}
POINTS = {"mask_head": {}, "keypoint_head": {"num_keypoints": 17}}
LAZY_MOST = Count("model.roi_heads.box_predictor.test_topk_per_image", 7)
REGIONS = Gives(outputs=(BOXES,), threshold=0.3, most=LAZY_MOST, classes=LAZY_CLASSES)
OWN: dict[str, Any] = {"num_classes": 3, "test_score_thresh": 0.4, "max_detections_per_image": 9}
DENSE_MOST, DENSE_CLASSES = "model.max_detections_per_image", Count("model.num_classes", 3)
SEGMENTED: dict[str, Any] = {"roi_heads": HEADS, "sem_seg_head": {"num_classes": 4}}

LAZY: dict[str, tuple[dict[str, Any], Gives]] = {
    "Faster R-CNN": (lazy("GeneralizedRCNN", roi_heads=HEADS), REGIONS),
    "one that leaves Detectron2's defaults": (
        lazy("GeneralizedRCNN", roi_heads={"num_classes": 3}),
        Gives(
            outputs=(BOXES,),
            most=Count("model.roi_heads.box_predictor.test_topk_per_image", 100),
            classes=LAZY_CLASSES,
        ),
    ),
    "Mask and Keypoint R-CNN": (
        lazy("GeneralizedRCNN", roi_heads={**HEADS, **POINTS}),
        Gives(
            outputs=(BOXES, MASKS, KEYPOINTS),
            threshold=0.3,
            most=LAZY_MOST,
            classes=LAZY_CLASSES,
            keypoints=Count("model.roi_heads.keypoint_head.num_keypoints", 17),
        ),
    ),
    "a rotated R-CNN": (
        lazy("GeneralizedRCNN", roi_heads={**HEADS, "box_predictor": TURNED}),
        Gives(
            outputs=(BOXES, ROTATED),
            most=Count("model.roi_heads.box_predictor.test_topk_per_image", 100),
            classes=LAZY_CLASSES,
        ),
    ),
    "RetinaNet": (
        lazy("RetinaNet", **OWN),
        Gives(outputs=(BOXES,), threshold=0.4, most=Count(DENSE_MOST, 9), classes=DENSE_CLASSES),
    ),
    "RetinaNet by default": (
        lazy("RetinaNet", num_classes=3),
        Gives(outputs=(BOXES,), threshold=0.05, most=Count(DENSE_MOST, 100), classes=DENSE_CLASSES),
    ),
    "FCOS by default": (
        lazy("FCOS", num_classes=3),
        Gives(outputs=(BOXES,), threshold=0.2, most=Count(DENSE_MOST, 100), classes=DENSE_CLASSES),
    ),
    "Panoptic FPN": (
        lazy("PanopticFPN", combine_instances_score_thresh=0.6, **SEGMENTED),
        Gives(
            outputs=(BOXES, PANOPTIC, SEMANTIC),
            threshold=0.3,
            most=LAZY_MOST,
            classes=LAZY_CLASSES,
            stuff=LAZY_STUFF,
            panoptic_threshold=0.6,
        ),
    ),
    "Panoptic FPN by default": (
        lazy("PanopticFPN", **SEGMENTED),
        Gives(
            outputs=(BOXES, PANOPTIC, SEMANTIC),
            threshold=0.3,
            most=LAZY_MOST,
            classes=LAZY_CLASSES,
            stuff=LAZY_STUFF,
            panoptic_threshold=0.5,
        ),
    ),
    "Panoptic FPN without the map": (
        lazy("PanopticFPN", combine_on=False, **SEGMENTED),
        Gives(outputs=(BOXES, SEMANTIC), threshold=0.3, most=LAZY_MOST, classes=LAZY_CLASSES, stuff=LAZY_STUFF),
    ),
    "a semantic segmentor": (
        lazy("SemanticSegmentor", sem_seg_head={"num_classes": 4}),
        Gives(outputs=(SEMANTIC,), stuff=LAZY_STUFF),
    ),
    "a proposal network": (
        lazy("ProposalNetwork"),
        Gives(outputs=(BOXES,), most=Count("model.proposal_generator.post_nms_topk", 1000), classes=ONE_CLASS),
    ),
    "a rotated proposal network": (
        lazy("ProposalNetwork", proposal_generator={**RPN, **TURNED}),
        Gives(outputs=(BOXES, ROTATED), most=Count("model.proposal_generator.post_nms_topk", 1000), classes=ONE_CLASS),
    ),
}


@pytest.mark.parametrize("family", YACS)
def test_a_yacs_config_declares_its_familys_outputs(family: str) -> None:
    given, wanted = YACS[family]
    assert gives(declared(given)) == wanted


@pytest.mark.parametrize("family", LAZY)
def test_a_lazy_config_declares_its_familys_outputs(family: str) -> None:
    given, wanted = LAZY[family]
    assert gives(declared(given)) == wanted


def test_images_are_prepared_as_either_dialect_says() -> None:
    seen = declared(yacs("RetinaNet"))
    assert (seen.architecture, seen.channel_order, seen.resize) == (
        "RetinaNet",
        ChannelOrder.BGR,
        ResizeRule(800, 1333),
    )
    assert (seen.pixel_mean, seen.pixel_std) == ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    seen = declared(lazy("GeneralizedRCNN", roi_heads=HEADS))
    assert (seen.architecture, seen.channel_order, seen.resize) == (
        "GeneralizedRCNN",
        ChannelOrder.RGB,
        ResizeRule(800, 1333),
    )
    assert (seen.pixel_mean, seen.pixel_std) == ((103.5, 116.25, 123.75), (1.0, 2.0, 3.0))


def test_a_lazy_config_may_give_its_edge_as_a_list_and_set_no_longest_edge() -> None:
    free = {"_target_": "ResizeShortestEdge", "short_edge_length": [640, 640]}
    seen = declared(lazy("RetinaNet", {"augmentations": [free]}, num_classes=3))
    assert seen.resize == ResizeRule(640, 2**31 - 1)


SIZES = {**ONLY_RESIZE, "short_edge_length": [640, 800]}
FLIP = {"_target_": "detectron2.data.transforms.RandomFlip"}
BY = "images are prepared by {}, not just by ResizeShortestEdge to one size"

REFUSED: dict[str, tuple[dict[str, Any], Check, str]] = {
    "two sizes": (
        lazy("RetinaNet", {"augmentations": [SIZES]}),
        Check.CONFIG_UNSERVABLE,
        BY.format("ResizeShortestEdge"),
    ),
    "a flip besides": (
        lazy("RetinaNet", {"augmentations": [ONLY_RESIZE, FLIP]}),
        Check.CONFIG_UNSERVABLE,
        BY.format("ResizeShortestEdge, RandomFlip"),
    ),
    "no resizing": (lazy("RetinaNet", {"augmentations": []}), Check.CONFIG_UNSERVABLE, BY.format("nothing")),
    "a lazy format": (
        lazy("RetinaNet", {"image_format": "YUV"}),
        Check.CONFIG_UNSERVABLE,
        "dataloader.test.mapper.image_format is 'YUV'",
    ),
    "a lazy Panoptic-DeepLab": (
        lazy("PanopticDeepLab"),
        Check.CONFIG_UNSERVABLE,
        "a PanopticDeepLab can only be read from a yacs config",
    ),
    "a lazy Fast R-CNN": (
        lazy("GeneralizedRCNN", proposal_generator=None, roi_heads=HEADS),
        Check.PROPOSALS_EXTERNAL,
        "model.proposal_generator is None",
    ),
    "a Fast R-CNN": (
        yacs("GeneralizedRCNN", PROPOSAL_GENERATOR={"NAME": "PrecomputedProposals"}),
        Check.PROPOSALS_EXTERNAL,
        "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals",
    ),
    "a proposal network of others' proposals": (
        yacs("ProposalNetwork", PROPOSAL_GENERATOR={"NAME": "PrecomputedProposals"}, **PROPOSED),
        Check.PROPOSALS_EXTERNAL,
        "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals",
    ),
    "an architecture that nobody observed": (
        yacs("TensorMask"),
        Check.CONFIG_UNSERVABLE,
        "the model is a TensorMask, and its import recorded nothing about it",
    ),
    "a section that is missing": (
        {"MODEL": {"META_ARCHITECTURE": "RetinaNet"}},
        Check.CONFIG_UNREADABLE,
        r"the config has values of other types than Detectron2's \(KeyError: 'INPUT'\)",
    ),
    "a lazy model that is missing": (
        {"dataloader": {}},
        Check.CONFIG_UNREADABLE,
        r"the config has values of other types than Detectron2's \(KeyError: 'model'\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_config_cannot_declare_is_refused_by_its_name(what: str) -> None:
    given, check, seen = REFUSED[what]
    with pytest.raises(LoadRefusedError, match=f"^{check}: {seen}") as caught:
        declared(given)
    assert caught.value.check is check


OBSERVED = Produced(
    outputs=(BOXES, MASKS, KEYPOINTS, PANOPTIC),
    classes=5,
    keypoints=17,
    stuff=4,
    pixel_mean=(1.0, 2.0, 3.0),
    pixel_std=(4.0, 5.0, 6.0),
)


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        (yacs("OneFormer"), 0.0),
        (yacs("OneFormer", ONE_FORMER={"SCORE_THRESH_TEST": 0.7}), 0.7),
        (lazy("OneFormer"), 0.0),
        (lazy("OneFormer", test_score_thresh=0.1, score_thresh=0.2), 0.1),
        (lazy("OneFormer", score_thresh_test=0.3), 0.3),
        (lazy("OneFormer", score_thresh=0.2), 0.2),
    ],
)
def test_a_custom_model_gives_what_was_observed_above_a_threshold_of_its_own(
    given: dict[str, Any], threshold: float
) -> None:
    seen = declared(given, OBSERVED)
    assert gives(seen) == Gives(
        outputs=OBSERVED.outputs,
        threshold=threshold,
        most=ANY_NUMBER,
        classes=Count("--classes", 5),
        keypoints=Count("the keypoints of what it returns", 17),
        stuff=Count("--stuff-classes", 4),
    )
    assert (seen.architecture, seen.own_threshold) == ("OneFormer", True)


@pytest.mark.parametrize("output", [BOXES, SEMANTIC])
def test_a_custom_model_is_named_only_in_what_it_gives(output: Output) -> None:
    seen = declared(lazy("OneFormer"), Produced(outputs=(output,), classes=5, keypoints=17, stuff=4))
    assert (seen.classes is not None, seen.stuff is not None) == (output is BOXES, output is SEMANTIC)
    assert seen.keypoints is None


def test_a_custom_model_of_a_family_is_read_by_the_familys_keys() -> None:
    """Its own selection of its output was observed."""
    for own in (False, True):
        seen = declared(yacs("MyRetinaNet"), Produced(family="RetinaNet", own_threshold=own))
        assert (gives(seen), seen.architecture, seen.own_threshold) == (DENSE, "MyRetinaNet", own)
    assert declared(lazy("MyRetinaNet", num_classes=3), Produced(family="RetinaNet")).threshold == 0.0
    assert not declared(yacs("RetinaNet")).own_threshold
    assert declared(yacs("PanopticDeepLab", **WHOLE)).own_threshold


def test_what_a_lazy_model_does_not_say_of_its_pixels_was_observed() -> None:
    given = lazy("OneFormer")
    del given["model"]["pixel_mean"], given["model"]["pixel_std"]
    seen = declared(given, OBSERVED)
    assert (seen.pixel_mean, seen.pixel_std) == (OBSERVED.pixel_mean, OBSERVED.pixel_std)
    assert declared(lazy("OneFormer"), OBSERVED).pixel_mean == (103.5, 116.25, 123.75)
    seen = declared(given, Produced(outputs=(BOXES,)))
    assert (seen.channel_order, seen.pixel_mean, seen.pixel_std) == (ChannelOrder.RGB, (), ())


def test_the_model_and_its_datasets_are_named() -> None:
    assert architecture(lazy("a.b.FCOS")) == "FCOS"
    assert architecture({"MODEL": {"META_ARCHITECTURE": "FCOS"}}) == "FCOS"
    assert datasets({"MODEL": {}, "DATASETS": {"TRAIN": ("a", "b"), "TEST": ["c"]}}) == ("a", "b", "c")
    assert datasets({"MODEL": {}}) == datasets({"dataloader": {"test": {}}}) == ()
    assert datasets({"dataloader": {"test": {"dataset": {"names": "a"}}}}) == ("a",)
    assert datasets({"dataloader": {"test": {"dataset": {"names": ["a", "b"]}}}}) == ("a", "b")

"""The input contract: what is refused by the header, what pixels come out, what changes the fingerprint."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vedette_server.contract.contract import ImageLimits, Input, InputContract, Names, Output, ResizeRule
from vedette_server.contract.convert import check, decode
from vedette_server.contract.declaration import Count, Produced
from vedette_server.contract.declared import declared
from vedette_server.contract.derive import derive
from vedette_server.contract.image import ChannelOrder, EncodedImage, PixelFormat, RawImage, SentImage
from vedette_server.contract.loading import CHECKS, Check, LoadRefusedError
from vedette_server.contract.refusal import Reason, Refused

from tests.support.contracts import config, contract

LIMITS = ImageLimits(max_bytes=100_000, max_pixels=10_000, max_edge=200)
SMALL = contract(limits=LIMITS)


def picture(seed: int = 5, size: tuple[int, int] = (20, 30)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def saved(codec: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return buffer.getvalue()


def test_an_animation_may_be_cut_off_anywhere() -> None:
    """Pillow reads on behind the header to find out that it is one."""
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    animation = saved("GIF", frames[0], save_all=True, append_images=frames[1:])
    seen: set[Reason] = set()
    for length in range(12, len(animation)):
        try:
            check(SentImage(EncodedImage(), animation[:length]), SMALL)
        except Refused as refusal:
            seen.add(refusal.reason)
    assert seen == {Reason.IMAGE_ANIMATED, Reason.IMAGE_TRUNCATED}


@pytest.mark.parametrize("codec", ["PNG", "BMP"])
def test_a_lossless_file_gives_its_pixels_in_bgr(codec: str) -> None:
    rgb = picture()
    image = SentImage(EncodedImage(), saved(codec, Image.fromarray(rgb)))
    np.testing.assert_array_equal(decode(image), rgb[:, :, ::-1])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])  # alpha is opaque here
def test_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    data = saved("JPEG" if mode == "CMYK" else "PNG", image)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(decode(SentImage(EncodedImage(), data)), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved("PNG", Image.fromarray(picture()), exif=exif)
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # of PIL.Image.Transpose, by the EXIF standard
    upright = Image.fromarray(picture())
    if (turn := turns[orientation]) is not None:
        upright = upright.transpose(Image.Transpose(turn))
    np.testing.assert_array_equal(decode(SentImage(EncodedImage(), data)), np.asarray(upright)[:, :, ::-1])


@pytest.mark.parametrize("stride", [None, 90, 96])
@pytest.mark.parametrize("pixel_format", [PixelFormat.BGR8, PixelFormat.RGB8])
def test_raw_pixels_come_out_in_bgr(pixel_format: PixelFormat, stride: int | None) -> None:
    sent = picture()
    rows = np.zeros((20, stride or 90), np.uint8)
    rows[:, :90] = sent.reshape(20, 90)
    spec = RawImage(pixel_format, 20, 30, stride)
    check(SentImage(spec, rows.tobytes()), SMALL)
    wanted = sent if pixel_format is PixelFormat.BGR8 else sent[:, :, ::-1]
    np.testing.assert_array_equal(decode(SentImage(spec, rows.tobytes())), wanted)


def test_the_last_row_needs_no_padding() -> None:
    data = bytes(96 * 19 + 90)
    spec = RawImage(PixelFormat.BGR8, 20, 30, 96)
    check(SentImage(spec, data), SMALL)
    assert decode(SentImage(spec, data)).shape == (20, 30, 3)


@pytest.mark.parametrize("size", [(101, 100), (1, 201)])
def test_size_is_refused_by_the_header_alone(size: tuple[int, int]) -> None:
    data = saved("PNG", Image.new("RGB", size))[:60]  # what follows the header is not even there
    with pytest.raises(Refused) as caught:
        check(SentImage(EncodedImage(), data), SMALL)
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE
    assert (caught.value.facts["width"], caught.value.facts["height"]) == (str(size[0]), str(size[1]))


def read(data: bytes) -> None:
    check(SentImage(EncodedImage(), data), SMALL)
    decode(SentImage(EncodedImage(), data))


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_file_cut_anywhere_is_refused(codec: str) -> None:
    data = saved(codec, Image.fromarray(picture(size=(60, 60))))
    end = len(data) - 20  # beyond it nothing but a trailer is missing
    for length in range(1, end, end // 60):
        with pytest.raises(Refused) as caught:
            read(data[:length])
        assert caught.value.reason in (Reason.IMAGE_UNREADABLE, Reason.IMAGE_TRUNCATED)


def test_a_contract_is_derived_from_the_config() -> None:
    derived = contract()
    assert derived.channel_order is ChannelOrder.BGR
    assert derived.resize == ResizeRule(800, 1333)
    assert derived.outputs == (Output.BOXES, Output.MASKS)
    assert (derived.default_threshold, derived.floor, derived.max_detections) == (0.05, 0.05, 100)


def test_the_operators_threshold_is_the_default_and_may_lie_below_the_configs() -> None:
    assert (contract(threshold=0.5).default_threshold, contract(threshold=0.5).floor) == (0.5, 0.05)
    assert contract(threshold=0.01).floor == 0.01


def test_retinanet_and_panoptic_have_keys_of_their_own() -> None:
    retinanet = derive(config(META_ARCHITECTURE="RetinaNet"), Names("abc"), source_digest="1")
    assert (retinanet.default_threshold, retinanet.outputs) == (0.3, (Output.BOXES,))
    panoptic = derive(config(META_ARCHITECTURE="PanopticFPN"), Names("ab", "cd"), source_digest="1")
    assert panoptic.outputs[-2:] == (Output.PANOPTIC, Output.SEMANTIC)
    assert (panoptic.panoptic_threshold, retinanet.panoptic_threshold) == (0.5, None)


def with_most(most: int, **model: Any) -> dict[str, Any]:
    return {**config(**model), "TEST": {"DETECTIONS_PER_IMAGE": most}}


def of_classes(classes: int) -> dict[str, Any]:
    return config(ROI_HEADS={"SCORE_THRESH_TEST": 0.1, "NUM_CLASSES": classes})


def panoptic(stuff: int = 2, **model: Any) -> dict[str, Any]:
    return config(META_ARCHITECTURE="PanopticFPN", SEM_SEG_HEAD={"NUM_CLASSES": stuff}, **model)


MOST, NONE = "TEST.DETECTIONS_PER_IMAGE", Produced(outputs=(Output.BOXES,))
LAST = with_most(-1, META_ARCHITECTURE="RetinaNet", RETINANET={"SCORE_THRESH_TEST": 0.1, "NUM_CLASSES": 2})
LOST_CLASS = "names were given for MODEL.ROI_HEADS.NUM_CLASSES = 3"

UNSERVABLE: dict[str, tuple[dict[str, Any], Names, Check, str]] = {
    "another architecture": (
        config(META_ARCHITECTURE="TensorMask"),
        Names("ab"),
        Check.CONFIG_UNSERVABLE,
        "a TensorMask",
    ),
    "a class too many": (of_classes(3), Names("ab"), Check.CLASS_COUNT, f"2 {LOST_CLASS}"),
    "names of stuff that is none": (
        config(),
        Names("ab", "c"),
        Check.CLASS_COUNT,
        "1 names were given for stuff, but the model has none",
    ),
    "keypoints that are none": (
        config(),
        Names("ab", (), "cde"),
        Check.CLASS_COUNT,
        "3 names were given for keypoints, but the model has none",
    ),
    "objects that are none": (
        config(META_ARCHITECTURE="SemanticSegmentor"),
        Names("a", "cd"),
        Check.CLASS_COUNT,
        "1 names were given for objects, but the model has none",
    ),
    "more stuff than a map holds": (
        panoptic(65_537),
        Names("ab", "c" * 65_537),
        Check.CONFIG_UNSERVABLE,
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES is 65537, but a class map holds at most 65536 classes",
    ),
    "a threshold that nothing exceeds": (
        config(ROI_HEADS={"SCORE_THRESH_TEST": 1.0, "NUM_CLASSES": 2}),
        Names("ab"),
        Check.ALWAYS_EMPTY,
        "the threshold is 1.0, and no score exceeds 1",
    ),
    "no detections": (with_most(0), Names("ab"), Check.ALWAYS_EMPTY, f"{MOST} is 0: none is ever given"),
    "all but the last": (LAST, Names("ab"), Check.ALWAYS_EMPTY, f"{MOST} is -1: the last ones are dropped"),
}


@pytest.mark.parametrize("case", UNSERVABLE)
def test_what_cannot_be_served_is_refused(case: str) -> None:
    broken, names, check, seen = UNSERVABLE[case]
    with pytest.raises(LoadRefusedError) as caught:
        derive(broken, names, source_digest="1")
    assert caught.value.check is check
    assert seen in caught.value.seen
    assert str(caught.value) == f"{check}: {caught.value.seen}; {CHECKS[check].remedy}"


def test_a_refusal_may_have_a_remedy_of_its_own() -> None:
    refusal = LoadRefusedError(Check.CLASS_COUNT, "two", "give three", flags=[["--classes"]])
    assert (str(refusal), refusal.remedy) == ("CLASS_COUNT: two; give three", "give three")
    assert refusal.flags == [["--classes"]]


@pytest.mark.parametrize(
    ("case", "most"), [("a threshold that nothing exceeds", 100), ("no detections", 0), ("all but the last", None)]
)
def test_an_operator_may_want_no_detections(case: str, most: int | None) -> None:
    terms = derive(UNSERVABLE[case][0], Names("ab"), waivers=[Check.ALWAYS_EMPTY], source_digest="1")
    assert terms.max_detections == most


def test_names_are_asked_for_where_nothing_declares_their_number() -> None:
    terms = derive(config(META_ARCHITECTURE="OneFormer"), Names("abc"), produced=NONE, source_digest="1")
    assert terms.class_names == ("a", "b", "c")
    with pytest.raises(LoadRefusedError, match=r"^NAMES_MISSING: nothing names its objects \(--classes\)"):
        derive(config(META_ARCHITECTURE="OneFormer"), Names(()), produced=NONE, source_digest="1")


@pytest.mark.parametrize(
    ("own", "asked", "default", "floor"),
    [(0.3, None, 0.3, 0.3), (0.3, 0.1, 0.3, 0.3), (0.3, 0.6, 0.6, 0.3), (0.01, None, 0.01, 0.01)],
)
def test_nothing_below_a_models_own_threshold_is_ever_seen(
    own: float, asked: float | None, default: float, floor: float
) -> None:
    given = config(META_ARCHITECTURE="OneFormer", ONE_FORMER={"SCORE_THRESH_TEST": own})
    terms = derive(given, Names("ab"), produced=NONE, threshold=asked, source_digest="1")
    assert (terms.default_threshold, terms.floor, terms.own_threshold) == (default, floor, True)


@pytest.mark.parametrize(("own", "asked", "floor"), [(0.3, None, 0.05), (0.3, 0.0, 0.0), (0.01, 0.3, 0.01)])
def test_the_floor_is_detectron2s_own_unless_somebody_wants_less(own: float, asked: float | None, floor: float) -> None:
    given = config(ROI_HEADS={"SCORE_THRESH_TEST": own, "NUM_CLASSES": 2})
    assert derive(given, Names("ab"), threshold=asked, source_digest="1").floor == floor


def test_all_that_a_contract_holds_is_given_or_declared() -> None:
    settings: dict[str, Any] = {
        "source_digest": "7",
        "plugins": ("a.project",),
        "inputs": (Input.BGR8,),
        "limits": LIMITS,
        "waivers": (Check.SCORES_FLAT,),
    }
    terms = derive(panoptic(65_536, KEYPOINT_ON=True), Names("ab", "c" * 65_536, "d"), **settings)
    assert {name: getattr(terms, name) for name in settings} == settings
    assert (terms.class_names, terms.keypoint_names) == (("a", "b"), ("d",))
    assert terms.stuff_class_names == ("c",) * 65_536
    assert (terms.precision, terms.own_threshold) == ("exact", False)
    assert terms.outputs == (Output.BOXES, Output.MASKS, Output.KEYPOINTS, Output.PANOPTIC, Output.SEMANTIC)
    assert contract().limits == ImageLimits()


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    terms = dataclasses.replace(contract(), stuff_class_names=("sky",))
    assert [terms.class_name(number) for number in (-1, 0, 1, 2)] == ["-1", "a", "b", "2"]
    assert [terms.stuff_name(number) for number in (0, 1)] == ["sky", "1"]


def test_any_number_of_detections_is_r_cnns_negative() -> None:
    assert derive(with_most(-1), Names("ab"), source_digest="1").max_detections is None


def lazy(**heads: Any) -> dict[str, Any]:
    return {
        "model": {
            "_target_": "detectron2.modeling.meta_arch.GeneralizedRCNN",
            "pixel_mean": [0, 0, 0],
            "pixel_std": [1, 1, 1],
            "proposal_generator": {"_target_": "detectron2.modeling.proposal_generator.RPN"},
            "roi_heads": {"num_classes": 2, **heads},
        },
        "dataloader": {
            "test": {
                "mapper": {
                    "image_format": "BGR",
                    "augmentations": [{"_target_": "ResizeShortestEdge", "short_edge_length": 9, "max_size": 9}],
                }
            }
        },
    }


def test_a_lazy_cascade_selects_by_its_last_stage() -> None:
    stages = [{"test_score_thresh": threshold, "test_topk_per_image": 7} for threshold in (0.1, 0.2, 0.3)]
    seen = declared(lazy(box_predictors=stages))
    assert (seen.threshold, seen.most) == (0.3, Count("model.roi_heads.box_predictors.2.test_topk_per_image", 7))


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({}, True),
        ({"MASK_ON": False}, False),
        ({"ROI_HEADS": {"NAME": "Res5ROIHeads", "SCORE_THRESH_TEST": 0.05, "NUM_CLASSES": 2}}, False),
        ({"ROI_MASK_HEAD": {"NAME": "PointRendMaskHead", "POOLER_RESOLUTION": 14}}, False),
        ({"ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "POOLER_RESOLUTION": 7}}, False),
    ],
)
def test_only_the_usual_mask_head_gives_masks_of_28(changes: dict[str, Any], *, given: bool) -> None:
    assert derive(config(**changes), Names("ab"), source_digest="1").box_masks is given


@pytest.mark.parametrize(
    ("heads", "given"),
    [
        (
            {"mask_head": {"_target_": "d2.MaskRCNNConvUpsampleHead"}, "mask_pooler": {"output_size": 14}},
            True,
        ),
        ({"mask_head": {"_target_": "d2.MaskRCNNConvUpsampleHead"}}, False),
        ({"mask_head": {"_target_": "a.project.MaskHead"}, "mask_pooler": {"output_size": 14}}, False),
        ({"mask_head": None}, False),
    ],
)
def test_a_lazy_config_tells_of_masks_of_28_too(heads: dict[str, Any], *, given: bool) -> None:
    assert declared(lazy(**heads)).box_masks is given


def test_the_fingerprint_changes_with_everything_that_changes_an_answer() -> None:
    one = contract()
    assert one.fingerprint == contract().fingerprint
    operators: dict[str, Any] = {"limits": LIMITS, "inputs": (Input.BGR8,), "waivers": (Check.ALWAYS_EMPTY,)}
    operators |= {
        "own_threshold": True,
        "box_masks": True,
    }  # follow from the config and the weights, which are digested
    assert one.fingerprint == dataclasses.replace(one, **operators).fingerprint
    changes: dict[str, Any] = {
        "channel_order": ChannelOrder.RGB,
        "resize": ResizeRule(640, 1333),
        "pixel_mean": (0.0, 0.0, 0.0),
        "pixel_std": (2.0, 2.0, 2.0),
        "outputs": (Output.BOXES,),
        "class_names": ("b", "a"),
        "stuff_class_names": ("c",),
        "keypoint_names": ("nose",),
        "floor": 0.01,
        "default_threshold": 0.4,
        "max_detections": None,
        "precision": "bfloat16",
        "source_digest": "2",
        "panoptic_threshold": 0.5,
        "plugins": ("a.project",),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(InputContract)} - set(operators)
    prints = {dataclasses.replace(one, **{name: value}).fingerprint for name, value in changes.items()}
    assert len(prints | {one.fingerprint}) == len(changes) + 1

"""The first promise: a served answer equals `DefaultPredictor`'s on the same weights and pixels."""

import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vedette_client import Client, ImageLike, Raw, Result, Tensor
from vedette_server.demo import scenes
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running
from tests.support.families import ZOO
from tests.support.reference import assert_equal, default_predictor


@pytest.fixture(scope="module")
def server(families: Path) -> Iterator[running.Server]:
    with running.server("--repository", str(families), "--threads", "1") as running_server:
        yield running_server


@pytest.mark.parametrize("family", ZOO)
def test_a_family_answers_as_detectron2_does(family: str, families: Path, server: running.Server) -> None:
    reference = default_predictor(families / family / "1")
    with Client(server.address) as client:
        for seed in (11, 12):
            bgr = np.ascontiguousarray(scenes.draw(scenes.describe(seed)).pixels[:, :, ::-1])
            output = reference(bgr)
            assert len(output["instances"]) > 5, "a comparison of nothing with nothing proves nothing"
            result = client.detect(bgr, pixel_format="BGR8", model=family)
            assert_equal(result, output["instances"])
            if family == "panoptic_fpn":
                assert_equal_panoptic(result, *output["panoptic_seg"])


def assert_equal_panoptic(result: Result, segment_map: torch.Tensor, segments: list[dict[str, Any]]) -> None:
    assert result.panoptic is not None
    seen = np.asarray(Image.open(io.BytesIO(result.panoptic.segment_map_png)))
    np.testing.assert_array_equal(seen, segment_map.numpy())
    described = [(item.id, item.is_thing, item.class_id) for item in result.panoptic.segments]
    assert described == [(item["id"], item["isthing"], item["category_id"]) for item in segments]
    assert [item.area for item in result.panoptic.segments] == [int((seen == item["id"]).sum()) for item in segments]


@pytest.mark.parametrize(("family", "key"), [
    ("mask_rcnn", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
    ("retinanet", "MODEL.RETINANET.SCORE_THRESH_TEST"),
])  # fmt: skip
def test_a_requests_threshold_is_exact(family: str, key: str, families: Path, server: running.Server) -> None:
    bgr = np.ascontiguousarray(scenes.draw(scenes.describe(11)).pixels[:, :, ::-1])
    scores = default_predictor(families / family / "1")(bgr)["instances"].scores.numpy()
    middle = float(np.round(np.median(scores), 4))
    instances = default_predictor(families / family / "1", {key: middle})(bgr)["instances"]
    assert 0 < len(instances) < len(scores)
    with Client(server.address) as client:
        assert_equal(client.detect(bgr, pixel_format="BGR8", model=family, threshold=middle), instances)
        nothing = client.detect(bgr, pixel_format="BGR8", model=family, threshold=1.0)
    assert nothing.empty is not None
    assert nothing.empty.reason == "SCORES_FLAT", "the weights are random, and it shows"
    assert nothing.empty.best_score == pytest.approx(float(scores[0]), abs=1e-5)
    assert nothing.empty.suppressed >= len(scores)


KEYS = {"retinanet": "MODEL.RETINANET.SCORE_THRESH_TEST"}


@pytest.mark.parametrize("family", ZOO)
def test_threshold_classes_and_cap_are_exact(family: str, families: Path, server: running.Server) -> None:
    """Against Detectron2 configured so: the threshold and, for the cap, DETECTIONS_PER_IMAGE; then filtered."""
    bgr = np.ascontiguousarray(scenes.draw(scenes.describe(12)).pixels[:, :, ::-1])
    key = KEYS.get(family, "MODEL.ROI_HEADS.SCORE_THRESH_TEST")
    everything = default_predictor(families / family / "1", {"TEST.DETECTIONS_PER_IMAGE": 100_000})(bgr)["instances"]
    middle = float(np.round(np.median(everything.scores.numpy()), 4))
    class_id = int(everything.pred_classes.mode().values)
    with Client(server.address) as client:
        ask = functools.partial(client.detect, bgr, pixel_format="BGR8", model=family)
        capped = default_predictor(families / family / "1", {key: middle, "TEST.DETECTIONS_PER_IMAGE": 7})(bgr)
        assert len(capped["instances"]) == 7
        assert_equal(ask(threshold=middle, max_detections=7), capped["instances"])
        above = default_predictor(families / family / "1", {key: middle, "TEST.DETECTIONS_PER_IMAGE": 100_000})(bgr)
        wanted = above["instances"][above["instances"].pred_classes == class_id][:100]
        assert len(wanted) > 0
        assert_equal(ask(threshold=middle, classes=[class_id]), wanted)
        name = client.model(family).contract.class_names[class_id]
        assert_equal(ask(threshold=middle, classes=[name], max_detections=3), wanted[:3])


def test_an_answer_emptied_by_the_class_filter_says_so(bundled: running.Server, scene: scenes.Picture) -> None:
    shown = {sign.name for sign in scene.signs}
    with Client(bundled.address) as client:
        absent = next(name for name in client.model().contract.class_names if name not in shown)
        result = client.detect(scene.pixels, pixel_format="RGB8", classes=[absent])
    assert result.empty is not None
    assert result.empty.reason == "CLASS_FILTER"


def test_outputs_that_are_not_wanted_are_not_given(families: Path, server: running.Server) -> None:
    bgr = np.ascontiguousarray(scenes.draw(scenes.describe(12)).pixels[:, :, ::-1])
    with Client(server.address) as client:
        boxes = client.detect(bgr, pixel_format="BGR8", model="mask_rcnn", outputs=["boxes"])
        everything = client.detect(bgr, pixel_format="BGR8", model="mask_rcnn")
        assert [found.box for found in boxes] == [found.box for found in everything]
        assert all(found.mask is None for found in boxes)
        none = client.detect(bgr, pixel_format="BGR8", model="mask_rcnn", mask_format="NONE")
        assert all(found.mask is None for found in none)
        semantic = client.detect(bgr, pixel_format="BGR8", model="panoptic_fpn", outputs=["semantic"])
    assert semantic.panoptic is None
    assert semantic.class_map_png is not None
    seen = np.asarray(Image.open(io.BytesIO(semantic.class_map_png)))
    scores = default_predictor(families / "panoptic_fpn" / "1")(bgr)["sem_seg"]
    np.testing.assert_array_equal(seen, scores.argmax(dim=0).numpy())


def test_the_panoptic_threshold_is_panoptics_own(families: Path, server: running.Server) -> None:
    bgr = np.ascontiguousarray(scenes.draw(scenes.describe(12)).pixels[:, :, ::-1])
    key = "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"
    with Client(server.address) as client:
        for threshold in (0.2, 0.9):
            output = default_predictor(families / "panoptic_fpn" / "1", {key: threshold})(bgr)
            result = client.detect(bgr, pixel_format="BGR8", model="panoptic_fpn", panoptic_threshold=threshold)
            assert_equal(result, output["instances"])
            assert_equal_panoptic(result, *output["panoptic_seg"])


def test_a_mask_is_the_same_in_every_format(bundled: running.Server, scene: scenes.Picture) -> None:
    with Client(bundled.address) as client:
        rle, png, polygons = (
            client.detect(scene.pixels, pixel_format="RGB8", mask_format=name)[0].mask
            for name in ("COCO_RLE", "PNG", "POLYGONS")
        )
    assert rle is not None
    assert png is not None
    assert polygons is not None
    np.testing.assert_array_equal(png.decode(), rle.decode())
    overlap = (polygons.decode() & rle.decode()).sum() / (polygons.decode() | rle.decode()).sum()
    assert overlap > 0.95, "an outline is drawn with lines between points"


def test_a_pinned_contract_is_answered(bundled: running.Server, scene: scenes.Picture) -> None:
    with Client(bundled.address) as client:
        fingerprint = client.model().contract.fingerprint
        result = client.detect(scene.pixels, pixel_format="RGB8", contract=fingerprint)
    assert result.contract_fingerprint == fingerprint


SENT: dict[str, Callable[[Any], ImageLike]] = {
    "BGR8": lambda rgb: Raw(rgb[:, :, ::-1].tobytes(), pixel_format="BGR8", height=rgb.shape[0], width=rgb.shape[1]),
    "RGB8": lambda rgb: Raw(rgb.tobytes(), pixel_format="RGB8", height=rgb.shape[0], width=rgb.shape[1]),
    "BGRA8": lambda rgb: Raw(
        np.dstack([rgb[:, :, ::-1], rgb[:, :, 0]]).tobytes(),
        pixel_format="BGRA8",
        height=rgb.shape[0],
        width=rgb.shape[1],
        drop_alpha=True,
    ),
    "RGBA8": lambda rgb: Raw(
        np.dstack([rgb, rgb[:, :, 0]]).tobytes(),
        pixel_format="RGBA8",
        height=rgb.shape[0],
        width=rgb.shape[1],
        drop_alpha=True,
    ),
    "float CHW 0-1": lambda rgb: Tensor(rgb.transpose(2, 0, 1) / 255, "RGB", "CHW", "0-1"),
    "float HWC 0-255": lambda rgb: Tensor(rgb[:, :, ::-1].astype(np.float32), "BGR", "HWC", "0-255"),
    "PIL": Image.fromarray,
}


@pytest.mark.parametrize("form", SENT)
def test_every_lossless_form_gives_the_same_answer(form: str, bundled: running.Server, scene: scenes.Picture) -> None:
    with Client(bundled.address) as client:
        wanted = client.detect(scene.pixels, pixel_format="RGB8")
        assert wanted.detections
        assert client.detect(SENT[form](scene.pixels)).detections == wanted.detections


def test_the_bundled_model_answers_as_detectron2_does(bundled: running.Server) -> None:
    reference = default_predictor(BUNDLED_REPOSITORY / "roadsigns" / "1", {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.5})
    with Client(bundled.address) as client:
        for seed in range(3_000_000, 3_000_010):
            bgr = np.ascontiguousarray(scenes.draw(scenes.describe(seed)).pixels[:, :, ::-1])
            assert_equal(client.detect(bgr, pixel_format="BGR8"), reference(bgr)["instances"])


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_file_is_read_as_detectron2_reads_it(
    codec: str, bundled: running.Server, scene: scenes.Picture, tmp_path: Path
) -> None:
    from detectron2.data.detection_utils import read_image

    path = tmp_path / f"picture.{codec.lower()}"
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(scene.pixels).rotate(180).save(path, codec, exif=exif)
    reference = default_predictor(BUNDLED_REPOSITORY / "roadsigns" / "1", {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.5})
    with Client(bundled.address) as client:
        assert_equal(client.detect(path), reference(read_image(str(path), format="BGR"))["instances"])

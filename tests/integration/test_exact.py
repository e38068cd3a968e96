"""The first promise: a served answer equals `DefaultPredictor`'s on the same weights and pixels."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vedette_client import Client, Result
from vedette_server.demo import scenes
from vedette_server.predictor.reference import default_predictor
from vedette_server.settings import BUNDLED_REPOSITORY

from tests import running
from tests.families import ZOO


@pytest.fixture(scope="module")
def server(families: Path) -> Iterator[running.Server]:
    with running.server("--repository", str(families), "--threads", "1") as running_server:
        yield running_server


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The reference sums in the order in which the workers do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_equal(result: Result, instances: Any) -> None:
    assert len(result) == len(instances)
    assert result.class_ids.tolist() == instances.pred_classes.tolist()
    np.testing.assert_allclose(result.boxes, instances.pred_boxes.tensor.numpy(), atol=0.01, rtol=0)
    np.testing.assert_allclose(result.scores, instances.scores.numpy(), atol=1e-5, rtol=0)
    if instances.has("pred_masks"):
        for found, mask in zip(result, instances.pred_masks.numpy(), strict=True):
            assert found.mask is not None
            np.testing.assert_array_equal(found.mask.decode(), mask)
    if instances.has("pred_keypoints"):
        seen = np.array([[(point.x, point.y, point.score) for point in found.keypoints] for found in result])
        np.testing.assert_allclose(seen, instances.pred_keypoints.numpy(), atol=0.01, rtol=1e-5)


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
    assert nothing.empty.reason == "BELOW_THRESHOLD"
    assert nothing.empty.best_score == pytest.approx(float(scores[0]), abs=1e-5)
    assert nothing.empty.suppressed >= len(scores)


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

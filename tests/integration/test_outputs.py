"""A model's output reaches the caller as it is: nothing is cut to fewer bits, shifted or left out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from vedette_client import Client, results
from vedette_server.contract.contract import Names
from vedette_server.contract.derive import derive
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.importer import write_version
from vedette_server.predictor.config import plain
from vedette_server.predictor.encode import class_map, panoptic

from tests.support import running
from tests.support.families import CLASSES, class_names, config, model
from tests.support.reference import bgr, default_predictor, one_thread

__all__ = ["one_thread"]  # a fixture for every test here


@pytest.mark.parametrize(("classes", "bits"), [(256, 8), (257, 16), (300, 16), (40_000, 16)])
def test_a_class_map_holds_every_class(classes: int, bits: int) -> None:
    scores = torch.zeros(classes, 4, 5)
    scores[classes - 1, 1, 2] = scores[classes // 2, 3, 4] = 1.0
    png = class_map(scores.argmax(dim=0), classes)
    assert png[24] == bits, "the bit depth in a PNG's header"
    given = results._grey(png)
    np.testing.assert_array_equal(given, scores.argmax(dim=0).numpy())


@pytest.mark.parametrize("ids", [(1, 2, 3), (7, 65_535), (1, 65_536), (11_001, 26_002, 4_000_000), (-5, 0, 9), ()])
def test_a_segment_map_holds_every_segment(ids: tuple[int, ...]) -> None:
    """Whatever a model numbers its segments with; what it does not list is no segment."""
    pixels = torch.full((6, 8), -1)
    for row, number in enumerate(ids):
        pixels[row, : row + 2] = number
    pixels[5, 7] = 12_345
    given = panoptic(pixels, [{"id": number, "isthing": True, "category_id": row} for row, number in enumerate(ids)])
    read = results.Panoptic(given.segment_map_png, ()).segment_map
    if all(0 < number < 65_536 for number in ids):
        assert [segment.id for segment in given.segments] == list(ids)
    for row, (number, segment) in enumerate(zip(ids, given.segments, strict=True)):
        assert segment.class_id == row
        assert segment.area == row + 2
        np.testing.assert_array_equal(read == segment.id, pixels.numpy() == number)
    assert (read > 0).sum() == sum(segment.area for segment in given.segments)


def test_more_classes_than_a_map_holds_are_refused() -> None:
    cfg = config("panoptic_fpn")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 65_537
    names = Names(CLASSES, tuple(str(number) for number in range(65_537)))
    with pytest.raises(LoadRefusedError, match="65537, but a class map holds at most 65536") as caught:
        derive(plain(cfg), names, source_digest="")
    assert caught.value.check is Check.CONFIG_UNSERVABLE


WIDE = 300  # classes of stuff


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    (root / "wide").mkdir()
    cfg = config("panoptic_fpn")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = WIDE
    names = Names(CLASSES, tuple(f"stuff {number}" for number in range(WIDE)))
    write_version(root / "wide", 1, plain(cfg), model("panoptic_fpn", cfg), names=names, pictures={})
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[running.Server]:
    with running.server("--repository", str(repository), "--threads", "1") as running_server:
        yield running_server


def test_a_class_beyond_the_first_256_is_served_as_itself(repository: Path, server: running.Server) -> None:
    wanted = default_predictor(repository / "wide" / "1")(bgr())["sem_seg"].argmax(dim=0).numpy()
    assert wanted.max() > 255, "or nothing is proved"
    with Client(server.address) as client:
        result = client.detect(bgr(), pixel_format="BGR8", model="wide")
        names = client.model("wide").contract.stuff_class_names
    assert result.class_map is not None
    np.testing.assert_array_equal(result.class_map, wanted)
    assert result.panoptic is not None
    for segment in result.panoptic.segments:
        if not segment.is_thing:
            assert segment.class_name == names[segment.class_id]
            assert (wanted[result.panoptic.segment_map == segment.id] == segment.class_id).all()


@pytest.mark.parametrize("family", ["faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet"])
def test_coco_records_are_those_of_detectron2s_own_evaluator(
    family: str, families: Path, family_server: running.Server
) -> None:
    wanted = instances_to_coco_json(default_predictor(families / family / "1")(bgr())["instances"], 7)
    assert len(wanted) > 5
    with Client(family_server.address) as client:
        result = client.detect(bgr(), pixel_format="BGR8", model=family)
    given = result.to_coco(7)
    assert class_names(family)[given[0]["category_id"]] == result[0].class_name
    assert given == wanted


@pytest.fixture(scope="module")
def family_server(families: Path) -> Iterator[running.Server]:
    with running.server("--repository", str(families), "--threads", "1") as running_server:
        yield running_server

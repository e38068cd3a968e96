"""The page of the model zoo tells of every config that is shipped, and what it tells still holds."""

import re
from pathlib import Path

import pytest

from tests.bench import zoo
from tests.support.reference import one_thread

__all__ = ["one_thread"]  # a fixture for every test here

# One of each family, dataset and dialect; each refusal.
SAMPLE = (
    "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/fcos_R_50_FPN_1x.py",
    "COCO-Detection/rpn_R_50_C4_1x.yaml",
    "Cityscapes/mask_rcnn_R_50_FPN.yaml",
    "Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x.yaml",
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv.yaml",
    "Misc/mmdet_mask_rcnn_R_50_FPN_1x.py",
    "Misc/semantic_R_50_FPN_1x.yaml",
    "Misc/torchvision_imagenet_R_50.py",
    "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
    "new_baselines/mask_rcnn_regnety_4gf_dds_FPN_100ep_LSJ.py",
)
SERVED = tuple(name for name in SAMPLE if not re.search("fast_rcnn|mmdet|torchvision", name))


def test_the_page_lists_every_config_of_the_zoo() -> None:
    rows = zoo.read_page()
    assert sorted(rows) == zoo.configs()
    assert zoo.PAGE.read_text() == zoo.page(rows), "its figures are of its rows"
    served = [line for line in rows.values() if "| served: " in line]
    assert all(line.endswith("| equal to the bit |") for line in served)
    assert all("_" in line.split("| refused | ")[1].split(":")[0] for line in rows.values() if line not in served)


@pytest.mark.parametrize("config", SAMPLE)
def test_a_config_of_the_zoo_becomes_what_the_page_says(config: str, tmp_path: Path) -> None:
    row = zoo.walk(config, tmp_path)
    assert row.line == zoo.read_page()[config]
    assert (config in SERVED) == bool(row.outputs)
    assert not row.outputs or row.outputs == ("semantic",) or row.objects > 5

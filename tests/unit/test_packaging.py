"""Detectron2 as we package it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2 import _C, model_zoo
from detectron2.layers.rotated_boxes import pairwise_iou_rotated

sys.path.insert(0, "deploy/detectron2")


def test_a_compiled_only_operator_says_what_is_missing_and_how_to_get_it() -> None:
    if _C.get_compiler_version() != "not compiled":
        pytest.fail("these tests run on our own packaging; a Detectron2 of yours has the operators")
    boxes = torch.zeros(1, 5)
    with pytest.raises(RuntimeError, match=r"box_iou_rotated is not compiled.*git\+https"):
        pairwise_iou_rotated(boxes, boxes)


def test_the_model_zoo_is_complete() -> None:
    assert model_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml")
    import detectron2.projects.point_rend  # noqa: F401


def test_an_installed_detectron2_is_left_alone() -> None:
    ran = subprocess.run([sys.executable, "deploy/detectron2/build.py"], capture_output=True, text=True, check=True)
    assert "left alone" in ran.stdout


def test_unknown_sources_are_not_mended(tmp_path: Path) -> None:
    import build

    with pytest.raises(SystemExit, match="not the known sources"):
        build.mend(tmp_path)

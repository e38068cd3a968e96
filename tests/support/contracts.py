"""Input contracts for tests, derived from a small config of their own."""

from typing import Any

from vedette_server.contract.contract import InputContract, Names
from vedette_server.contract.derive import derive


def config(**model: Any) -> dict[str, Any]:
    base = {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": True,
        "KEYPOINT_ON": False,
        "PIXEL_MEAN": [103.53, 116.28, 123.675],
        "PIXEL_STD": [1, 1, 1],
        "PROPOSAL_GENERATOR": {"NAME": "RPN"},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "SCORE_THRESH_TEST": 0.05, "NUM_CLASSES": 2},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "POOLER_RESOLUTION": 14},
        "ROI_BOX_HEAD": {"BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0]},
        "SEM_SEG_HEAD": {"NUM_CLASSES": 2},
        "ROI_KEYPOINT_HEAD": {"NUM_KEYPOINTS": 1},
        "RETINANET": {"SCORE_THRESH_TEST": 0.3, "NUM_CLASSES": 3},
        "PANOPTIC_FPN": {"COMBINE": {"ENABLED": True, "INSTANCES_CONFIDENCE_THRESH": 0.5}},
    }
    return {
        "MODEL": {**base, **model},
        "INPUT": {"FORMAT": "BGR", "MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333},
        "TEST": {"DETECTIONS_PER_IMAGE": 100},
    }


def contract(**changes: Any) -> InputContract:
    return derive(config(), Names("ab"), **{"source_digest": "1", **changes})

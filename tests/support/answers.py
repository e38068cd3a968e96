"""Answers as a worker gives them, and pixels that tell what is wrong with them."""

import dataclasses
from typing import Any

import numpy as np
from vedette_server.contract.answer import Answer, Detections, Evidence, ModelInput, StageTimes
from vedette_server.contract.types import UInt8Array
from vedette_server.predictor.look import look

from tests.support.contracts import contract

RNG = np.random.default_rng(2)
CONTRACT = contract()
PICTURE = np.kron(RNG.integers(20, 235, (12, 16, 3)), np.ones((32, 32, 1))).astype(np.uint8)
SOUND = Evidence(best_scores=np.array([0.02, 0.01], np.float32), proposed=100, proposals=50, scored=50, certainty=0.98)


def answer(pixels: UInt8Array = PICTURE, scores: tuple[float, ...] = (), threshold: float = 0.5, **seen: Any) -> Answer:
    found = Detections(
        boxes=np.zeros((len(scores), 4), np.float32),
        scores=np.array(scores, np.float32),
        class_ids=np.zeros(len(scores), np.int32),
    )
    return Answer(
        height=pixels.shape[0],
        width=pixels.shape[1],
        threshold=threshold,
        detections=found,
        evidence=dataclasses.replace(SOUND, **seen),
        times=StageTimes(0, 0, 0, 0),
        pixels=look(pixels, pixels),
        model_input=ModelInput(272, 363, (0.0,) * 3, (1.0,) * 3),
    )


def noise(mean: float, spread: float) -> UInt8Array:
    return np.clip(RNG.normal(mean, spread, PICTURE.shape), 0, 255).astype(np.uint8)


PIXELS = {
    "IMAGE_BLACK": noise(3, 2),
    "IMAGE_FLAT": noise(120, 0.5),
    "IMAGE_SATURATED": np.clip(PICTURE.astype(int) + 130, 0, 255).astype(np.uint8),
    "VALUES_IN_UNIT_RANGE": np.rint(PICTURE / 255).astype(np.uint8),
    "VALUES_NORMALISED": np.clip(np.rint((PICTURE - 115.0) / 57), 0, 255).astype(np.uint8),
    "GREY_FOR_COLOUR": PICTURE[:, :, :1].repeat(3, axis=2),
}

"""A batch gives what its images give alone, each with its own options. On a GPU it is worth while; here it is right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vedette_server.contract.answer import Answer, Evidence
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import Asked, resolve
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.predictor.predictor import load
from vedette_server.repository import repository

from tests.support import running
from tests.support.families import ZOO


def assert_alike(one: Answer, other: Answer) -> None:
    """Equal up to the order of sums, which batched convolutions may change, and with it that of equal scores."""
    first, second = one.detections, other.detections
    assert len(first) == len(second)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)
    apart = np.abs(first.boxes[:, None] - second.boxes).max(axis=2, initial=0)
    apart[first.class_ids[:, None] != second.class_ids] = np.inf
    places = apart.argmin(axis=1)
    assert sorted(places) == [*range(len(first))]
    assert apart.min(axis=1).max() < 0.02
    np.testing.assert_allclose(first.scores, second.scores[places], atol=1e-4)
    assert (one.detections.masks is None) == (other.detections.masks is None)
    np.testing.assert_allclose(one.evidence.best_scores, other.evidence.best_scores, atol=1e-4)
    assert one.evidence.certainty == pytest.approx(other.evidence.certainty, abs=1e-4)
    assert counts(one.evidence) == counts(other.evidence)


def counts(evidence: Evidence) -> dict[str, Any]:
    given = vars(evidence)
    return {name: given[name] for name in given if name not in ("best_scores", "certainty")}


@pytest.mark.parametrize("family", ZOO)
def test_a_batch_gives_what_its_images_give_alone(family: str, families: Path) -> None:
    (version,) = [one for one in repository.read(families) if one.name == family]
    predictor = load(version.folder, version.contract, device=running.DEVICE, threads=1)
    assert predictor.max_batch == 1 or running.DEVICE != "cpu"
    asked = (Asked(), Asked(threshold=0.5), Asked(class_ids=(0,), max_detections=3))
    images = [
        predictor.prepare(
            SentImage(EncodedImage(), jpeg(scenes.draw(scenes.describe(seed)).pixels)), resolve(one, version.contract)
        )
        for seed, one in zip((11, 12, 11), asked, strict=True)
    ]
    alone = [predictor.encode(predictor.infer([image])[0]) for image in images]
    at_once = [predictor.encode(inferred) for inferred in predictor.infer(images)]
    assert len(alone[0].detections) > len(alone[2].detections) > 0
    for one, other in zip(alone, at_once, strict=True):
        assert_alike(one, other)

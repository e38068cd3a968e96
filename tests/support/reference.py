"""Detectron2's own answers: computed where the servers of tests compute theirs, and brought to the CPU."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vedette_client import Result
from vedette_server.demo import scenes
from vedette_server.predictor import reference

from tests.support import running


def default_predictor(folder: Path, changes: dict[str, Any] | None = None) -> Callable[[Any], dict[str, Any]]:
    """Detectron2's predictor of a version's folder; `changes` are config keys, with dots, and their values."""
    predictor = reference.default_predictor(folder, changes, running.DEVICE)
    return lambda pixels: {name: _on_cpu(part) for name, part in predictor(pixels).items()}


def _on_cpu(part: Any) -> Any:
    if isinstance(part, tuple):  # a map of segments and what they are
        return part[0].to("cpu"), *part[1:]
    return part.to("cpu")


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


def bgr(seed: int = 11) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.ascontiguousarray(scenes.draw(scenes.describe(seed)).pixels[:, :, ::-1])

"""Detectron2's own answers: computed where the servers of tests compute theirs, and brought to the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vedette_server.predictor import reference

from tests import running


def default_predictor(folder: Path, changes: dict[str, Any] | None = None) -> Callable[[Any], dict[str, Any]]:
    """Detectron2's predictor of a version's folder; `changes` are config keys, with dots, and their values."""
    predictor = reference.default_predictor(folder, changes, running.DEVICE)
    return lambda pixels: {name: _on_cpu(part) for name, part in predictor(pixels).items()}


def _on_cpu(part: Any) -> Any:
    if isinstance(part, tuple):  # a map of segments and what they are
        return part[0].to("cpu"), *part[1:]
    return part.to("cpu")

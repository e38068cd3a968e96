"""Heads are judged by how sure they are of what they see, as random ones are of nothing; not by their best score."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from vedette_server.contract.answer import least_certainty
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import forking

BUNDLED = BUNDLED_REPOSITORY / "roadsigns" / "1"
CLASSES = "stop,yield,parking,warning,mandatory,speed_limit"
_HEAD = "roi_heads.box_predictor."


def import_(repository: Path, name: str = "signs", **given: object) -> subprocess.CompletedProcess[str]:
    options = {"config": BUNDLED / "config.yaml", "weights": BUNDLED / "model.safetensors", "classes": CLASSES, **given}
    words = (str(word) for option, value in options.items() for word in (f"--{option}", value))
    return forking.run("import", name, "--repository", repository, *words)


def one_class(folder: Path, temperature: float | None) -> dict[str, Any]:
    """A model that finds stop signs alone, its scores flattened; without a temperature, its head is random."""
    state, config = load_file(BUNDLED / "model.safetensors"), yaml.safe_load((BUNDLED / "config.yaml").read_text())
    generator = torch.Generator().manual_seed(0)
    for part in ("weight", "bias"):
        scores = state[f"{_HEAD}cls_score.{part}"]
        kept = torch.stack([scores[0], scores[-1]])
        random = torch.randn(kept.shape, generator=generator) * 0.01
        state[f"{_HEAD}cls_score.{part}"] = random if temperature is None else kept * temperature
        state[f"{_HEAD}bbox_pred.{part}"] = state[f"{_HEAD}bbox_pred.{part}"][:4].clone()
        (mask,) = [name for name in state if name.startswith("roi_heads.mask_head.predictor") and name.endswith(part)]
        state[mask] = state[mask][:1].clone()
    config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({"model": state}, folder / "model.pth")
    return {"config": folder / "config.yaml", "weights": folder / "model.pth"}


@pytest.mark.parametrize(("temperature", "code"), [(0.18, 0), (None, 1)], ids=["trained", "random"])
def test_a_head_is_judged_by_how_sure_it_is_and_not_by_its_best_score(
    temperature: float | None, code: int, tmp_path: Path
) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "stop.jpg").write_bytes((BUNDLED / "golden" / "mandatory-stop.jpg").read_bytes())
    files = one_class(tmp_path, temperature)
    ended = import_(tmp_path / "models", classes="stop", golden=tmp_path / "golden", **files)
    assert ended.returncode == code, ended.stderr
    assert ("SCORES_FLAT" in ended.stderr) == bool(code)


@pytest.mark.parametrize("classes", [1, 2, 20, 80, 1203])
def test_all_alike_is_below_what_a_trained_head_shows(classes: int) -> None:
    assert 1 / (classes + 1) < least_certainty(classes) < 0.7

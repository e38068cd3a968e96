"""The command that imports a model, run on a small config."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from vedette_server.predictor.config import plain

from tests.support import forking
from tests.support.families import CLASSES, config


def write_config(folder: Path, family: str = "mask_rcnn", **changes: Any) -> Path:
    cfg = config(family)
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(plain(cfg)))
    return path


def run_import(
    folder: Path, weights: Path, *flags: str, cfg: Path | None = None, classes: str = ",".join(CLASSES)
) -> subprocess.CompletedProcess[str]:
    return forking.run(*arguments(folder, weights, cfg or write_config(folder), classes, *flags))


def arguments(folder: Path, weights: Path, cfg: Path, classes: str, *flags: str) -> list[str]:
    return [
        *("import", "model", "--config", str(cfg), "--weights", str(weights)),
        *("--repository", str(folder / "repository"), "--classes", classes, *flags),
    ]

"""The command that imports a model, run on a small config."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from vedette_server.predictor.config import plain

from tests.support import running
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
    whole = command(folder, weights, cfg or write_config(folder), classes, *flags)
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def command(folder: Path, weights: Path, cfg: Path, classes: str, *flags: str) -> list[str]:
    return [
        *(str(running.BIN / "vedette-server"), "import", "model", "--config", str(cfg), "--weights", str(weights)),
        *("--repository", str(folder / "repository"), "--classes", classes, *flags),
    ]

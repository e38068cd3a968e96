"""Training of the bundled model from scratch: `make train-demo`.

It can be interrupted and resumes from its checkpoint.
"""

import concurrent.futures
import json
import logging
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as rle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from vedette_server.demo import recipe, scenes
from vedette_server.demo.publish import publish
from vedette_server.demo.signs import CLASSES

TRAINING_SEEDS = range(1_000_000, 1_004_000)  # far from all other seeds


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _render(seed: int, folder: Path) -> dict[str, Any]:
    """Draw one scene to a file and return its record in Detectron2's dataset format."""
    picture = scenes.draw(scenes.describe(seed))
    path = folder / f"{seed}.png"
    Image.fromarray(picture.pixels).save(path, compress_level=1)
    height, width = picture.pixels.shape[:2]
    annotations = []
    for sign in picture.signs:
        mask = rle.encode(np.asfortranarray(sign.mask))
        mask["counts"] = mask["counts"].decode()
        annotations.append(
            {
                "category_id": CLASSES.index(sign.name),
                "bbox": sign.box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": mask,
            }
        )
    return {"file_name": str(path), "image_id": seed, "height": height, "width": width, "annotations": annotations}


def training_scenes(folder: Path, seeds: range) -> list[dict[str, Any]]:
    """Draw the training scenes into `folder`, or load them if they exist."""
    index = folder / "index.json"
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool, _progress() as progress:
            drawing = pool.map(_render, seeds, [folder] * len(seeds), chunksize=20)
            records = list(progress.track(drawing, len(seeds), description="drawing scenes"))
        index.write_text(json.dumps(records), encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
    return found


class Bar(HookBase):  # type: ignore[misc]  # detectron2 is untyped
    """Hook that shows a progress bar with the smoothed loss."""

    def before_train(self) -> None:
        """Start at the checkpoint's iteration."""
        self._progress = _progress()
        self._task = self._progress.add_task("training", total=self.trainer.max_iter, completed=self.trainer.start_iter)
        self._progress.start()

    def after_step(self) -> None:
        """Advance by one iteration."""
        losses = self.trainer.storage.histories().get("total_loss")
        text = f"training, loss {losses.median(50):.3f}" if losses else "training"
        self._progress.update(self._task, advance=1, description=text)

    def after_train(self) -> None:
        """Restore the terminal."""
        self._progress.stop()


class Trainer(DefaultTrainer):  # type: ignore[misc]  # detectron2 is untyped
    """Detectron2's trainer, with the forward pass in bfloat16 where safe: a third faster on a CPU."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model and wrap its forward pass in autocast."""
        model: nn.Module = super().build_model(cfg)
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        return model


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/train-demo"), show_default=True)
@click.option("--iterations", type=int, default=recipe.ITERATIONS, show_default=True)
@click.option("--scenes", "count", type=int, default=len(TRAINING_SEEDS), show_default=True)
def main(output: Path, iterations: int, count: int) -> None:
    """Train the bundled model, and write it to the repository OUTPUT/repository."""
    logging.getLogger("detectron2").setLevel(logging.INFO)  # otherwise Detectron2 configures logging itself
    records = training_scenes(output / "scenes", TRAINING_SEEDS[:count])
    DatasetCatalog.register("roadsigns_train", lambda: records)
    cfg = recipe.config()
    cfg.OUTPUT_DIR = str(output)
    cfg.SOLVER.MAX_ITER = iterations
    cfg.freeze()
    trainer = Trainer(cfg)
    trainer.register_hooks([Bar()])
    trainer.resume_or_load(resume=True)
    trainer.train()
    click.echo(f"written: {publish(output / 'model_final.pth', output / 'repository')}")


if __name__ == "__main__":
    main()

"""Put a Detectron2 model into a repository: files, manifest, golden images, all or nothing.

A program of its own, like a worker: it runs the model, which the gateway never does.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from vedette_server.contract.image import EncodedImage
from vedette_server.contract.options import defaults
from vedette_server.predictor.export import export
from vedette_server.predictor.predictor import load
from vedette_server.repository import repository
from vedette_server.repository.golden import Golden, describe


def write_version(
    model_folder: Path,
    version: int,
    config: CfgNode,
    model: nn.Module,
    *,
    class_names: Sequence[str],
    stuff_class_names: Sequence[str] = (),
    keypoint_names: Sequence[str] = (),
    pictures: Mapping[str, bytes],
) -> Path:
    """Write one version of a model and what its golden `pictures` (files, by name) give now; returns its folder.

    The model's own model.toml, which may set the threshold at which golden images are inferred, must be there
    already. The version appears whole or not at all. Raises `FileExistsError` if there is one of that number.
    """
    target = model_folder / str(version)
    if target.exists():
        msg = f"{target} exists: a version never changes, write the next one"
        raise FileExistsError(msg)
    with tempfile.TemporaryDirectory(dir=model_folder, prefix=".import-") as scratch:
        shadow = Path(scratch) / model_folder.name  # a repository of one, so that it is read as it will be
        shadow.mkdir()
        if (model_folder / "model.toml").exists():
            shutil.copy(model_folder / "model.toml", shadow)
        folder = shadow / str(version)
        folder.mkdir()
        export(config, model, folder)
        repository.seal(folder, class_names, stuff_class_names, keypoint_names)
        repository.write_golden(folder, _infer(Path(scratch), pictures))
        folder.rename(target)
    return target


def _infer(root: Path, pictures: Mapping[str, bytes]) -> list[Golden]:
    (version,) = repository.read(root)
    threads = len(os.sched_getaffinity(0))
    predictor = load(version.folder, version.contract, device="cpu", threads=threads)
    options = defaults(version.contract)
    return [
        Golden(name, data, describe(predictor.predict(EncodedImage(), data, options).detections))
        for name, data in pictures.items()
    ]

"""Put a Detectron2 model into a repository: checked, with golden images, all or nothing.

A program of its own, like a worker: it runs the model, which the gateway never does.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import EncodedImage
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import defaults
from vedette_server.predictor.config import resolve
from vedette_server.predictor.export import export
from vedette_server.predictor.predictor import load
from vedette_server.predictor.strict import load_strictly
from vedette_server.predictor.weights import read_weights
from vedette_server.repository import repository
from vedette_server.repository.golden import Golden, describe
from vedette_server.repository.repository import RepositoryError

_SCRATCH = ".import-"  # and the process's id; never taken for a version, whose name is a number

# A random head of K classes gives every class the same share, 1 / (K + 1) with the background; a random RetinaNet's
# scores lie at its prior of 0.01.
_FLAT_SHARE, _FLAT_SIGMOID = 1.5, 0.05


@dataclass(frozen=True)
class Names:
    """What a model's classes and keypoints are called."""

    classes: Sequence[str]
    stuff: Sequence[str] = ()
    keypoints: Sequence[str] = ()


def import_model(
    root: Path,
    name: str,
    config_path: str,
    weights: Path,
    *,
    classes: Sequence[str] | None,
    golden: Path | None,
    weights_key: str | None = None,
) -> Path:
    """Import a config and a checkpoint as the next version of the model `name`; returns the version's folder.

    `classes` None takes the names of the dataset that the config was trained on, if Detectron2 knows it; `golden` is a
    folder of pictures whose answers are stored. Raises `LoadRefusedError` for whatever is wrong with the model.
    """
    config = resolve(config_path)
    model: nn.Module = build_model(config)
    load_strictly(model, read_weights(weights, model, weights_key))
    pictures = {path.name: path.read_bytes() for path in sorted(golden.iterdir())} if golden else {}
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    version = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)
    names = _dataset_names(config) if classes is None else Names(classes)
    return write_version(folder, version, config, model, names=names, pictures=pictures)


def _dataset_names(config: CfgNode) -> Names:
    """The names that Detectron2 itself knows for the config's dataset."""
    known = MetadataCatalog.get(config.DATASETS.TRAIN[0]) if config.DATASETS.TRAIN else None
    classes = known.get("thing_classes") if known else None
    if known is None or classes is None:
        msg = "the config's dataset has no class names that Detectron2 knows; give --classes"
        raise LoadRefusedError(Check.CLASS_COUNT, msg)
    panoptic = config.MODEL.META_ARCHITECTURE == "PanopticFPN"
    keypoints = known.get("keypoint_names", ()) if config.MODEL.KEYPOINT_ON else ()
    return Names(tuple(classes), tuple(known.get("stuff_classes", ())) if panoptic else (), tuple(keypoints))


def write_version(
    model_folder: Path, version: int, config: CfgNode, model: nn.Module, *, names: Names, pictures: Mapping[str, bytes]
) -> Path:
    """Write one version of a model and what its golden `pictures` (files, by name) give now; returns its folder.

    The model's own model.toml, which may set the threshold at which golden images are inferred, must be there already.
    The version appears whole or not at all. Raises `FileExistsError` if there is one of that number,
    `RepositoryError` or `LoadRefusedError` if it could not be served.
    """
    target = model_folder / str(version)
    if target.exists():
        msg = f"{target} exists: a version never changes, write the next one"
        raise FileExistsError(msg)
    with _scratch(model_folder) as root:
        shadow = root / model_folder.name  # a repository of one, so that it is read as it will be
        shadow.mkdir()
        if (model_folder / "model.toml").exists():
            shutil.copy(model_folder / "model.toml", shadow)
        folder = shadow / str(version)
        folder.mkdir()
        export(config, model, folder)
        repository.seal(folder, names.classes, names.stuff, names.keypoints)
        repository.write_golden(folder, _infer(root, config, pictures))
        folder.rename(target)
    return target


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder on the same disk that goes away; those that killed imports left behind go first."""
    for left in folder.glob(f"{_SCRATCH}*"):
        owner = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{_SCRATCH}{os.getpid()}-") as scratch:
        yield Path(scratch)


def _infer(root: Path, config: CfgNode, pictures: Mapping[str, bytes]) -> list[Golden]:
    try:
        (version,) = repository.read(root)
    except RepositoryError as error:
        raise error.__cause__ if isinstance(error.__cause__, LoadRefusedError) else error  # noqa: B904  its own cause
    threads = len(os.sched_getaffinity(0))
    predictor = load(version.folder, version.contract, device="cpu", threads=threads)
    options = defaults(version.contract)
    answers = {name: predictor.predict(EncodedImage(), data, options) for name, data in pictures.items()}
    best = [answer.evidence.best_score for answer in answers.values()]
    _check_not_flat([score for score in best if score is not None], config, version.contract)
    return [Golden(name, pictures[name], describe(answer.detections)) for name, answer in answers.items()]


def _check_not_flat(best: Sequence[float], config: CfgNode, contract: InputContract) -> None:
    if not best:
        return
    classes = len(contract.class_names)
    sigmoid = config.MODEL.META_ARCHITECTURE == "RetinaNet"
    flat = _FLAT_SIGMOID if sigmoid else _FLAT_SHARE / (classes + 1)
    if max(best) < flat:
        msg = (
            f"the best score on any golden image is {max(best):.3f}, as a random head of {classes} classes would give; "
            "give the trained checkpoint, or golden images that show what the model was trained to find"
        )
        raise LoadRefusedError(Check.SCORES_FLAT, msg)

"""Put a Detectron2 model into a repository: checked, with golden images, all or nothing.

A program of its own, like a worker: it runs the model, which the gateway never does.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from torch import nn

from vedette_server.contract import bounds
from vedette_server.contract.answer import Evidence, least_certainty
from vedette_server.contract.contract import InputContract, Names
from vedette_server.contract.declaration import FAMILIES, Count, Produced
from vedette_server.contract.declared import OBJECT, ONE_CLASS, architecture, datasets, declared
from vedette_server.contract.loading import Check, LoadRefusedError, refuse
from vedette_server.contract.naming import clean
from vedette_server.predictor import trial
from vedette_server.predictor.build import build
from vedette_server.predictor.config import resolve
from vedette_server.predictor.export import export
from vedette_server.predictor.predictor import load
from vedette_server.predictor.seen import see
from vedette_server.predictor.strict import load_strictly
from vedette_server.predictor.weights import read_weights
from vedette_server.repository import repository
from vedette_server.repository.golden import Golden, note
from vedette_server.repository.pictures import gather
from vedette_server.repository.pictures import read as read_pictures
from vedette_server.repository.repository import RepositoryError

_SCRATCH = ".import-"  # and the process's id; never taken for a version, whose name is a number


@dataclass(frozen=True)
class ModelSource:
    """A model as it is found: where it is, and what cannot be read from it."""

    config: str  # a file, or a path within the model zoo
    weights: Path
    weights_key: str | None = None  # the path of the entry to take of a checkpoint that holds several
    strip_prefixes: Sequence[str] = ()  # what the names of its tensors begin with; others are left out
    classes: Sequence[str] | None = None  # None: the names of the dataset that the config was trained on
    stuff: Sequence[str] | None = None
    keypoints: Sequence[str] | None = None
    plugins: Sequence[str] = ()  # modules of its project
    run_config: bool = False  # whether a config that is a program may be run
    ignore_keys: Sequence[str] = ()  # keys of the config to leave out


def import_model(
    root: Path,
    name: str,
    source: ModelSource,
    golden: Path | None = None,
    tell: Callable[[str], object] = lambda _note: None,
) -> Path:
    """Import a config and a checkpoint as the next version of the model `name`; returns the version's folder.

    `golden` is a folder of pictures whose answers are stored; `tell` is told what was decided on the way. Raises
    `LoadRefusedError` for whatever is wrong with the model, `RepositoryError` for what is wrong with its model.toml.
    """
    repository.check_name(name)
    folder = root / name
    found = gather(golden) if golden else None
    config = resolve(source.config, source.plugins, run=source.run_config, ignore=source.ignore_keys)
    bounds.check(config)
    if architecture(config) in FAMILIES:
        declared(config)  # what can be refused by the config alone is, before anything is built
    waivers = repository.read_settings(folder).waivers
    model = build(config, source.plugins, "cpu", _size(source.weights))
    tensors = read_weights(source.weights, model, source.weights_key, source.strip_prefixes, tell)
    load_strictly(model, tensors, waivers)
    produced = see(model, config)
    names = _names(config, source, produced)

    def golden_of(contract: InputContract) -> Mapping[str, bytes]:
        return read_pictures(found, contract, tell) if found else {}

    with _folder(folder):
        version = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)
        return write_version(
            folder, version, config, model, names=names, pictures=golden_of, plugins=source.plugins, produced=produced
        )


def _size(weights: Path) -> int | None:
    """The bytes of a checkpoint; None where there is none, or only the list of its parts."""
    return weights.stat().st_size if weights.is_file() and not weights.name.endswith(".json") else None


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """A model's folder, made where there is none; of what was made nothing is left if nothing goes in."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # somebody else has put something there
                path.rmdir()
        raise


def _names(config: Mapping[str, Any], source: ModelSource, produced: Produced | None) -> Names:
    """The names that were given, or those that Detectron2 itself knows for the config's datasets.

    The classes of a model that finds no objects are those of pixels. Where nobody names those of pixels, they are those
    of objects, if there are as many.
    """
    known = [MetadataCatalog.get(name) for name in datasets(config)]
    model = declared(config, produced)

    def choose(given: Sequence[str] | None, key: str, count: Count | None) -> tuple[str, ...]:
        if given is None and count is not None:
            given = next(filter(None, (one.get(key) for one in known)), None)
        return tuple(given or ())

    if model.classes is None and source.stuff is None:
        return Names((), clean(choose(source.classes, "stuff_classes", model.stuff), "classes of stuff"))
    classes = choose(source.classes, "thing_classes", model.classes)
    if model.classes == ONE_CLASS and source.classes is None:
        classes = (OBJECT,)
    stuff = choose(source.stuff, "stuff_classes", model.stuff)
    if model.stuff and not stuff and model.stuff.number in (None, len(classes)):
        stuff = classes
    keypoints = choose(source.keypoints, "keypoint_names", model.keypoints)
    return Names(clean(classes, "classes"), clean(stuff, "classes of stuff"), clean(keypoints, "keypoints"))


def write_version(
    model_folder: Path,
    version: int,
    config: Mapping[str, Any],
    model: nn.Module,
    *,
    names: Names,
    pictures: Mapping[str, bytes] | Callable[[InputContract], Mapping[str, bytes]],
    plugins: Sequence[str] = (),
    produced: Produced | None = None,
) -> Path:
    """Write one version of a model and what its golden `pictures` give now; returns its folder.

    `pictures` are files by their names, or what gives them for the model's contract. The model's own model.toml, which
    may set the threshold at which golden images are inferred, must be there already.
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
        repository.seal(folder, names, plugins, produced)
        repository.write_golden(folder, _infer(root, plugins, pictures))
        repository.seal(folder, names, plugins, produced)
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


def _infer(
    root: Path,
    plugins: Sequence[str],
    pictures: Mapping[str, bytes] | Callable[[InputContract], Mapping[str, bytes]],
) -> list[Golden]:
    try:
        (version,) = repository.read(root, plugins)
    except RepositoryError as error:
        raise error.__cause__ if isinstance(error.__cause__, LoadRefusedError) else error  # noqa: B904  its own cause
    contract, threads = version.contract, len(os.sched_getaffinity(0))
    given = pictures(contract) if callable(pictures) else pictures
    predictor = load(version.folder, contract, device="cpu", threads=threads)
    for shape, data in trial.pictures(contract):
        trial.answer(predictor, data, contract, f"a picture of {shape}")
    answers = {name: trial.answer(predictor, data, contract, name) for name, data in given.items()}
    if contract.detects:
        _check_not_flat([answer.evidence for answer in answers.values()], contract)
    return [note(name, given[name], answer) for name, answer in answers.items()]


def _check_not_flat(seen: Sequence[Evidence], contract: InputContract) -> None:
    """Refuse a head that is sure of no region of any golden image, as random ones are."""
    classes = len(contract.class_names)
    scored = [evidence.certainty for evidence in seen if evidence.scored]
    if scored and max(scored) < least_certainty(classes):
        best = max(evidence.best_score or 0.0 for evidence in seen)
        told = f"of {classes} classes and the background the best has a mean share of {max(scored):.3f} at most"
        refuse(Check.SCORES_FLAT, f"{told}, and the best score is {best:.3f}", contract.waivers)

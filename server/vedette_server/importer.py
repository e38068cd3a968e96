"""Import of a Detectron2 model into a repository: checked, with golden images, all or nothing.

It is a separate program, because it runs the model, which the gateway never does.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from vedette_server.predictor.config import catalogued, resolve
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

_SCRATCH = ".import-"  # followed by the process id; never mistaken for a version, whose name is a number


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model before import: its files, and facts that they do not contain."""

    config: str  # a file, or a path in the model zoo
    weights: Path
    weights_key: str | None = None  # path of the entry to use in a checkpoint with several
    strip_prefixes: Sequence[str] = ()  # prefixes of its tensors' names; others are dropped
    classes: Sequence[str] | None = None  # None: the names of the config's dataset
    stuff: Sequence[str] | None = None
    keypoints: Sequence[str] | None = None
    plugins: Sequence[str] = ()  # modules of the model's project
    run_config: bool = False  # allow running a config that is a program
    ignore_keys: Sequence[str] = ()  # keys of the config to drop


def import_model(
    root: Path,
    name: str,
    source: ModelSource,
    golden: Path | None = None,
    tell: Callable[[str], object] = lambda _note: None,
) -> Path:
    """Import a config and a checkpoint as the next version of the model `name`; return the version's folder.

    `golden` is a folder of pictures whose answers are stored; `tell` receives notes on decisions. Raises
    `LoadRefusedError` for any fault of the model, `RepositoryError` for a fault of its model.toml.
    """
    repository.check_name(name)
    folder = root / name
    found = gather(golden) if golden else None
    config = resolve(source.config, source.plugins, run=source.run_config, ignore=source.ignore_keys)
    bounds.check(config)
    if architecture(config) in FAMILIES:
        declared(config)  # refuse on the config alone before building anything
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
    """Return the size of a checkpoint in bytes; None if it is missing, or only an index of parts."""
    return weights.stat().st_size if weights.is_file() and not weights.name.endswith(".json") else None


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Create a model's folder if necessary, and remove it again if the import fails."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # someone else has put something there
                path.rmdir()
        raise


def _names(config: Mapping[str, Any], source: ModelSource, produced: Produced | None) -> Names:
    """Return the given names, or those that Detectron2 knows for the config's datasets.

    For a model that finds no objects, the classes are those of pixels. If pixel classes have no names, the names of
    objects apply if there are as many.
    """
    known = [catalogued(name) for name in datasets(config)]
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
    """Write one version of a model with its current answers to the golden `pictures`; return its folder.

    `pictures` maps names to files, or is a function that returns such a map for the model's contract. The model's own
    model.toml, which may set the threshold for golden images, must exist already. The version appears completely or not
    at all. Raises `FileExistsError` if the version exists, `RepositoryError` or `LoadRefusedError` if it cannot be
    served.
    """
    target = model_folder / str(version)
    if target.exists():
        msg = f"{target} exists: versions never change, so write the next one"
        raise FileExistsError(msg)
    with _scratch(model_folder) as root:
        shadow = root / model_folder.name  # a repository of one model, to read the version as a server will
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
    """Create a temporary folder on the same disk, after removing those that killed imports left behind."""
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
    """Refuse a head that is not confident in any region of any golden image, like a random one."""
    classes = len(contract.class_names)
    scored = [evidence.certainty for evidence in seen if evidence.scored]
    if scored and max(scored) < least_certainty(classes):
        best = max(evidence.best_score or 0.0 for evidence in seen)
        told = f"the best of {classes} classes and the background has a mean share of at most {max(scored):.3f}"
        refuse(Check.SCORES_FLAT, f"{told}, and the best score is {best:.3f}", contract.waivers)

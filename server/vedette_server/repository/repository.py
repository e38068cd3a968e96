"""The model repository, in a layout like Triton's.

NAME/model.toml                  the operator's settings: description, threshold, inputs, limits, waivers
NAME/VERSION/config.yaml         the complete Detectron2 config
NAME/VERSION/model.safetensors   the weights
NAME/VERSION/manifest.json       class names, plugins, checksums
NAME/VERSION/golden/             pictures, and expected.json with their expected answers
NAME/VERSION/baseline.json       statistics of a healthy period; optional, and not part of the version

A model's folder may be a link to elsewhere. Its content must not lead out of it: after following links, a version's
folder lies within the model's, and its files within the version's. So the links with which Kubernetes mounts a
ConfigMap (`..data`) work, and no version reads a file of another.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from vedette_server.contract import disk, layout, markup, naming
from vedette_server.contract.contract import ImageLimits, Input, InputContract, Names
from vedette_server.contract.declaration import Produced
from vedette_server.contract.derive import derive
from vedette_server.contract.loading import CHECKS, Check, LoadRefusedError, refuse
from vedette_server.contract.naming import RULE, is_model_name
from vedette_server.repository import golden
from vedette_server.repository.golden import ExpectedAnswer, ExpectedObject, Golden

_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")  # a number that fits 64 bits, in canonical form
MODEL_FILES = ("config.yaml", "model.safetensors")
_MANIFEST = "manifest.json"
BASELINE = "baseline.json"
_LONGEST_REASON = 500  # characters of a library's message


# Exceptions that invalid files cause during reading and deriving.
_BROKEN = (OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, yaml.YAMLError)
_MOST_OBJECTS = 10_000  # per golden image: all pairs are compared, which blocks the event loop
_MANY_FILES = f"holds more than {disk.MOST_FILES} files"


class RepositoryError(Exception):
    """A model on disk is invalid; the message says which file and what to do."""


class VersionError(RepositoryError):
    """A version cannot be served."""

    def __init__(self, folder: Path, cause: Exception) -> None:
        """`cause` is the fault; a library's exception counts as an unreadable version."""
        self.refusal = cause if isinstance(cause, LoadRefusedError) else _unreadable(cause)
        super().__init__(f"{folder}: {self.refusal}")
        self.folder = folder


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[limits]` of model.toml."""

    max_bytes: int = ImageLimits.max_bytes
    max_pixels: int = ImageLimits.max_pixels
    max_edge: int = ImageLimits.max_edge


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of model.toml: the operator's settings for all versions of a model."""

    description: str = ""
    threshold: float | None = None  # default for requests; None: the config's own
    inputs: tuple[Input, ...] | None = None  # that callers may send; None: derived from the model's channels
    limits: LimitSettings = LimitSettings()
    waivers: tuple[Check, ...] = ()  # names of checks to skip

    def __post_init__(self) -> None:
        for check in self.waivers:
            if not CHECKS[check].waivable:
                waivable = ", ".join(name for name, row in CHECKS.items() if row.waivable)
                msg = f"{check} cannot be waived; these can: {waivable}"
                raise ValueError(msg)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of manifest.json: the composition of a version."""

    class_names: tuple[str, ...]
    checksums: dict[str, str]  # SHA-256 of every other file, by its path within the version
    stuff_class_names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()  # modules that the worker imports before building the model
    produced: Produced | None = None  # properties observed in the model, if its config cannot declare them


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version of a model, read and verified. It never changes once loaded."""

    name: str
    version: int
    folder: Path
    description: str
    contract: InputContract
    golden: tuple[Golden, ...]


def folders(root: Path) -> list[Path]:
    """Return the folders of all versions of all models under `root`, unread; other folders are ignored."""
    return [folder for folder in _versions(root) if is_model_name(folder.parent.name)]


def misnamed(root: Path) -> list[str]:
    """Return the folders that hold versions under invalid model names, except hidden ones."""
    names = {folder.parent.name for folder in _versions(root)}
    return sorted(name for name in names if not is_model_name(name) and not name.startswith("."))


def _versions(root: Path) -> list[Path]:
    return [folder for folder in sorted(root.glob("*/*/")) if _VERSION.fullmatch(folder.name)]


def check_name(name: str) -> None:
    """Refuse an invalid model name. Raises `RepositoryError`."""
    if not is_model_name(name):
        msg = f"a model cannot be called {name!r}: its name is a single folder of {RULE}"
        raise RepositoryError(msg)


def read(root: Path, plugins: Collection[str] = ()) -> list[ModelVersion]:
    """Read every version of every model under `root`, sorted; `plugins` are the modules that may be imported.

    Raises `RepositoryError` for the first fault.
    """
    check_holds(root)
    versions = [read_version(folder, plugins) for folder in folders(root)]
    return sorted(versions, key=lambda item: (item.name, item.version))


def check_holds(root: Path) -> None:
    """Refuse a folder that holds no version, valid or not. Raises `RepositoryError`."""
    if not root.is_dir():
        msg = f"{root} is not a folder: give a model repository, which holds one folder per model"
        raise RepositoryError(msg)
    if not folders(root):
        msg = f"{root} holds no model: a model is a folder NAME/VERSION with config.yaml and model.safetensors"
        if names := misnamed(root):
            msg = f"{root} holds no model: {', '.join(map(repr, names))} is not a valid name, which has {RULE}"
        raise RepositoryError(msg)


def find(root: Path, name: str, version: int | None = None, plugins: Collection[str] = ()) -> ModelVersion:
    """Read one version of the model `name`, the newest by default; faults of others do not matter.

    Raises `RepositoryError`.
    """
    there = folders(root)
    numbers = sorted(int(folder.name) for folder in there if folder.parent.name == name)
    if version not in (None, *numbers) or not numbers:
        asked = name if version is None else f"{name} version {version}"
        names = ", ".join(f"{folder.parent.name} version {folder.name}" for folder in there) or "no model"
        msg = f"{root} has no {asked}; it holds {names}"
        raise RepositoryError(msg)
    return read_version(root / name / str(numbers[-1] if version is None else version), plugins)


def read_version(folder: Path, plugins: Collection[str] = ()) -> ModelVersion:
    """Read one version. Raises `VersionError` for any fault."""
    try:
        return _read_version(folder, plugins)
    except (LoadRefusedError, RepositoryError, *_BROKEN) as error:
        raise VersionError(folder, error) from error


def _read_version(folder: Path, plugins: Collection[str]) -> ModelVersion:
    _check_within(folder)
    settings = read_settings(folder.parent)
    files = _files(folder)
    manifest = msgspec.json.decode(_contents(folder, _MANIFEST), type=Manifest)
    _check_plugins(manifest, plugins)
    layout.check(folder / "model.safetensors", within=folder)
    names = Names(manifest.class_names, manifest.stuff_class_names, manifest.keypoint_names)
    naming.check(names)
    checksums = _checksums(folder, files)
    _check_sums(checksums, manifest, settings.waivers)
    config = markup.plain(_contents(folder, "config.yaml"))
    contract = derive(
        config,
        names,
        produced=manifest.produced,
        threshold=settings.threshold,
        inputs=settings.inputs,
        limits=ImageLimits(settings.limits.max_bytes, settings.limits.max_pixels, settings.limits.max_edge),
        plugins=manifest.plugins,
        waivers=settings.waivers,
        source_digest=" ".join(checksums[name] for name in MODEL_FILES),
    )
    pictures = _read_golden(folder, contract)
    return ModelVersion(
        name=folder.parent.name,
        version=int(folder.name),
        folder=folder,
        description=settings.description,
        contract=contract,
        golden=pictures,
    )


def _unreadable(cause: Exception) -> LoadRefusedError:
    """Return a refusal for an error from a library, the system or model.toml's reader."""
    told = str(cause) if isinstance(cause, RepositoryError) else f"{type(cause).__name__}: {cause}"
    return LoadRefusedError(Check.VERSION_UNREADABLE, " ".join(told.split())[:_LONGEST_REASON])


def _check_within(folder: Path) -> None:
    """Refuse a version's folder that is a link to somewhere else."""
    if not folder.resolve().is_relative_to(folder.parent.resolve()):
        raise LoadRefusedError(Check.FILE_UNUSABLE, f"{folder} leads out of {folder.parent}")


def _contents(folder: Path, name: str) -> bytes:
    """Return the content of a file of a version, by its path within. The last part of the path determines its limit."""
    return disk.contents(folder / name, disk.LARGEST[name.rpartition("/")[2]], folder)


def read_settings(model_folder: Path) -> ModelSettings:
    """Read a model's model.toml, if it has one. Raises `RepositoryError`."""
    path = model_folder / "model.toml"
    try:
        if not os.path.lexists(path):
            return ModelSettings()
        return msgspec.toml.decode(_contents(model_folder, path.name), type=ModelSettings)
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: {error}"
        raise RepositoryError(msg) from error
    except LoadRefusedError as error:
        raise RepositoryError(str(error)) from error


def _files(folder: Path) -> list[str]:
    """Return the paths within a version's folder, without following links to folders elsewhere."""
    found = [path.relative_to(folder).as_posix() for path in walk(folder)]
    return sorted(name for name in found if name not in (_MANIFEST, BASELINE))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a version's folder, unread. Raises `LoadRefusedError`, FILE_UNUSABLE, if they are too many."""
    count, inside = 0, folder.resolve()
    for here, folders_, names in os.walk(folder, followlinks=True):
        count += len(names) + len(folders_)
        if count > disk.MOST_FILES:
            raise LoadRefusedError(Check.FILE_UNUSABLE, f"{folder} {_MANY_FILES}")
        # Kubernetes keeps a mounted folder's files there; they are read through the links to them.
        own = [name for name in folders_ if not name.startswith("..")]
        folders_[:] = [name for name in own if Path(here, name).resolve().is_relative_to(inside)]
        yield from (Path(here, name) for name in (*names, *own) if name not in folders_ and not name.startswith(".."))


def _checksums(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of every file of a version except manifest and baseline, by its path within."""
    return {name: _checksum(folder, name) for name in files}


def _checksum(folder: Path, name: str) -> str:
    most = disk.LARGEST.get(name.rpartition("/")[2], disk.LARGEST_OTHER)
    with disk.opened(folder / name, most, folder) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sums(seen: Mapping[str, str], manifest: Manifest, waivers: Collection[Check]) -> None:
    for name in sorted({*seen, *manifest.checksums}):
        if seen.get(name) != manifest.checksums.get(name):
            found, noted = (sums.get(name, "no such file") for sums in (seen, manifest.checksums))
            refuse(Check.CHECKSUM_CHANGED, f"{name} has SHA-256 {found}, but manifest.json has {noted}", waivers)


def _check_plugins(manifest: Manifest, allowed: Collection[str]) -> None:
    if unknown := [name for name in manifest.plugins if name not in allowed]:
        raise LoadRefusedError(Check.PLUGIN_NOT_ALLOWED, f"it needs {', '.join(unknown)}")


def _read_golden(folder: Path, contract: InputContract) -> tuple[Golden, ...]:
    if not os.path.lexists(folder / "golden" / "expected.json"):
        return ()
    expected = msgspec.json.decode(
        _contents(folder, "golden/expected.json"), type=dict[str, tuple[ExpectedObject, ...] | ExpectedAnswer]
    )
    for name in expected:
        if not _is_plain(name):
            seen = f"expected.json names the picture {name[:_LONGEST_REASON]!r}, but pictures must be in golden/ itself"
            raise LoadRefusedError(Check.FILE_UNUSABLE, seen)
    known = tuple(
        golden.read(name, disk.contents(folder / "golden" / name, contract.limits.max_bytes, folder), given)
        for name, given in expected.items()
    )
    if (most := max((len(one.objects) for one in known), default=0)) > _MOST_OBJECTS:
        seen = f"expected.json expects {most} objects in one picture, but the limit is {_MOST_OBJECTS}"
        raise LoadRefusedError(Check.FILE_UNUSABLE, seen)
    return known


def _is_plain(name: str) -> bool:
    """Return whether a name is a single path component."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def seal(folder: Path, names: Names, plugins: Sequence[str] = (), produced: Produced | None = None) -> None:
    """Write the manifest of a version, once all its other files exist."""
    manifest = Manifest(
        class_names=tuple(names.classes),
        checksums=_checksums(folder, _files(folder)),
        stuff_class_names=tuple(names.stuff),
        keypoint_names=tuple(names.keypoints),
        plugins=tuple(plugins),
        produced=produced,
    )
    (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def write_golden(folder: Path, pictures: Sequence[Golden]) -> None:
    """Write the golden images of a version with their expected answers."""
    target = folder / "golden"
    target.mkdir(exist_ok=True)
    for item in pictures:
        (target / item.name).write_bytes(item.data)
    expected = msgspec.json.encode({item.name: item.expected for item in pictures})
    (target / "expected.json").write_bytes(msgspec.json.format(expected) + b"\n")

"""The model repository, laid out as users of Triton know it.

NAME/model.toml                  what the operator decides: description, threshold, limits
NAME/VERSION/config.yaml         the complete Detectron2 config
NAME/VERSION/model.safetensors   the weights
NAME/VERSION/manifest.json       class names and checksums
NAME/VERSION/golden/             pictures, and expected.json with what each must give
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from vedette_server.contract.contract import DEFAULT_INPUTS, Input, InputContract, Limits
from vedette_server.contract.derive import derive
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.repository.golden import ExpectedObject, Golden

SEALED_FILES = ("config.yaml", "model.safetensors")


class RepositoryError(Exception):
    """A model on disk is not what it should be; the message says which file and what to do."""


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[limits]` of model.toml."""

    max_bytes: int = Limits.max_bytes
    max_pixels: int = Limits.max_pixels
    max_edge: int = Limits.max_edge


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """model.toml: what the operator decides about a model, for all its versions."""

    description: str = ""
    threshold: float | None = None  # of requests that set none; unset: the config's own
    inputs: tuple[Input, ...] = DEFAULT_INPUTS  # what callers may send
    limits: LimitSettings = LimitSettings()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """manifest.json: what a version is made of."""

    class_names: tuple[str, ...]
    checksums: dict[str, str]  # SHA-256 of each of SEALED_FILES
    stuff_class_names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model, read and found whole. It never changes once loaded."""

    name: str
    version: int
    folder: Path
    description: str
    contract: InputContract
    golden: tuple[Golden, ...]


def read(root: Path) -> list[ModelVersion]:
    """Read every version of every model under `root`, by name and version.

    Raises `RepositoryError` for the first thing that is not as it should be.
    """
    if not root.is_dir():
        msg = f"{root} is no folder: give a model repository, which holds one folder for each model"
        raise RepositoryError(msg)
    versions = [_read_version(folder) for folder in sorted(root.glob("*/*/")) if folder.name.isdecimal()]
    if not versions:
        msg = f"{root} holds no model: a model is a folder NAME/VERSION with config.yaml and model.safetensors"
        raise RepositoryError(msg)
    return sorted(versions, key=lambda item: (item.name, item.version))


def _read_version(folder: Path) -> ModelVersion:
    try:
        settings = _read_settings(folder.parent / "model.toml")
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        _check_sums(folder, manifest)
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        contract = derive(
            config,
            class_names=manifest.class_names,
            stuff_class_names=manifest.stuff_class_names,
            keypoint_names=manifest.keypoint_names,
            threshold=settings.threshold,
            inputs=settings.inputs,
            limits=Limits(settings.limits.max_bytes, settings.limits.max_pixels, settings.limits.max_edge),
            source_digest=" ".join(manifest.checksums[name] for name in SEALED_FILES),
        )
        golden = _read_golden(folder / "golden")
    except (OSError, ValueError, KeyError, msgspec.DecodeError, yaml.YAMLError, LoadRefusedError) as error:
        msg = f"{folder}: {type(error).__name__}: {error}"
        raise RepositoryError(msg) from error
    return ModelVersion(folder.parent.name, int(folder.name), folder, settings.description, contract, golden)


def _read_settings(path: Path) -> ModelSettings:
    return msgspec.toml.decode(path.read_bytes(), type=ModelSettings) if path.exists() else ModelSettings()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sums(folder: Path, manifest: Manifest) -> None:
    for name in SEALED_FILES:
        if (seen := _checksum(folder / name)) != manifest.checksums[name]:
            msg = f"{name} has SHA-256 {seen}, not {manifest.checksums[name]} as in manifest.json: it was changed"
            raise ValueError(msg)


def _read_golden(folder: Path) -> tuple[Golden, ...]:
    index = folder / "expected.json"
    if not index.exists():
        return ()
    expected = msgspec.json.decode(index.read_bytes(), type=dict[str, tuple[ExpectedObject, ...]])
    return tuple(Golden(name, (folder / name).read_bytes(), objects) for name, objects in expected.items())


def seal(
    folder: Path,
    class_names: Sequence[str],
    stuff_class_names: Sequence[str] = (),
    keypoint_names: Sequence[str] = (),
) -> None:
    """Write the manifest of a version whose config and weights are there."""
    checksums = {name: _checksum(folder / name) for name in SEALED_FILES}
    manifest = Manifest(tuple(class_names), checksums, tuple(stuff_class_names), tuple(keypoint_names))
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def write_golden(folder: Path, golden: Sequence[Golden]) -> None:
    """Write the golden pictures of a version and what each must give."""
    target = folder / "golden"
    target.mkdir(exist_ok=True)
    for item in golden:
        (target / item.name).write_bytes(item.data)
    expected = msgspec.json.encode({item.name: item.objects for item in golden})
    (target / "expected.json").write_bytes(msgspec.json.format(expected) + b"\n")

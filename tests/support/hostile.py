"""Versions that somebody has made to harm: each a sound one with one thing changed, and the check that refuses it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from vedette_server.contract.loading import Check
from vedette_server.settings import BUNDLED_REPOSITORY

SOUND = BUNDLED_REPOSITORY / "roadsigns"
Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """An attack on a version's folder, and the reason for its refusal; the model's folder is above it."""

    change: Change
    check: Check
    sealed: bool = True  # whether its manifest is made to fit again


def seal(folder: Path) -> None:
    """Make the manifest fit what the folder holds now."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    held = [
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("manifest.json", "baseline.json")
    ]
    sums = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in held}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "checksums": sums}))


def write(root: Path, name: str, case: Case) -> Path:
    """A model of this name with one version, of this kind."""
    shutil.copytree(SOUND, root / name)
    folder = root / name / "1"
    case.change(folder)
    if case.sealed:
        seal(folder)
    return folder


def link(file: str, target: str) -> Change:
    """A file that is a link to somewhere else."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return change


def fifo(file: str) -> Change:
    """A file that nobody ever writes to."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return change


def a_folder(file: str) -> Change:
    """A folder in its place."""

    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return change


def sparse(file: str, size: int) -> Change:
    """A file of so many zeros, which take no space."""
    return lambda folder: os.truncate(folder / file, size)


def setting(key: str, value: object) -> Change:
    """A number in the config."""

    def change(folder: Path) -> None:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        *sections, last = key.split(".")
        node: Any = config
        for section in sections:
            node = node[section]
        node[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    return change


def text(file: str, content: str) -> Change:
    """A file of this content."""
    return lambda folder: (folder / file).write_text(content)


def picture(name: str) -> Change:
    """A golden image that lies elsewhere."""
    return text("golden/expected.json", json.dumps({name: []}))


def elsewhere(folder: Path) -> None:
    """The version's folder is a link out of the model's."""
    aside = folder.parent.parent / f".{folder.parent.name}"
    folder.rename(aside)
    folder.symlink_to(aside)


BOMB = "\n".join(["a: &a [x, x, x, x, x, x, x, x, x, x]", *(f"{one}: &{one} [{', '.join(10 * [f'*{before}'])}]" for before, one in zip("abcdefgh", "bcdefghi", strict=True))])  # fmt: skip  # noqa: E501
_OBJECT = {"class_id": 0, "score": 0.9, "box": [0, 0, 1, 1]}
OUT, LARGE, YAML = Check.FILE_UNUSABLE, Check.CONFIG_OUT_OF_BOUNDS, Check.VERSION_UNREADABLE

CASES = {
    "config-is-zeros-without-end": Case(link("config.yaml", "/dev/zero"), OUT, sealed=False),
    "config-is-the-terminal": Case(link("config.yaml", "/dev/stdin"), OUT, sealed=False),
    "config-of-another": Case(link("config.yaml", str(SOUND / "1" / "config.yaml")), OUT, sealed=False),
    "config-fifo": Case(fifo("config.yaml"), OUT, sealed=False),
    "config-folder": Case(a_folder("config.yaml"), OUT),
    "config-loop": Case(link("config.yaml", "config.yaml"), OUT),
    "config-of-50-gb": Case(sparse("config.yaml", 50 * 10**9), OUT, sealed=False),
    "manifest-is-zeros-without-end": Case(link("manifest.json", "/dev/zero"), OUT, sealed=False),
    "manifest-fifo": Case(fifo("manifest.json"), OUT, sealed=False),
    "manifest-deep": Case(text("manifest.json", "[" * 100_000), YAML, sealed=False),
    "manifest-missing": Case(lambda folder: (folder / "manifest.json").unlink(), YAML, sealed=False),
    "settings-fifo": Case(fifo("../model.toml"), YAML),
    "settings-are-zeros-without-end": Case(link("../model.toml", "/dev/zero"), YAML),
    "weights-fifo": Case(fifo("model.safetensors"), OUT, sealed=False),
    "weights-of-50-gb": Case(sparse("model.safetensors", 50 * 10**9), OUT, sealed=False),
    "weights-of-10-gb": Case(sparse("model.safetensors", 10 * 10**9), Check.WEIGHTS_UNREADABLE, sealed=False),
    "weights-of-another": Case(link("model.safetensors", str(SOUND / "1" / "model.safetensors")), OUT),
    "golden-fifo": Case(fifo("golden/parking.jpg"), OUT),
    "golden-is-zeros-without-end": Case(link("golden/parking.jpg", "/dev/zero"), OUT),
    "golden-named-zeros": Case(picture("/dev/zero"), OUT),
    "golden-named-the-terminal": Case(picture("/dev/stdin"), OUT),
    "golden-named-above": Case(picture("../../../model.toml"), OUT),
    "golden-with-objects-without-end": Case(
        text("golden/expected.json", json.dumps({"parking.jpg": [_OBJECT] * 10_001})), OUT
    ),
    "golden-named-null": Case(picture("a\0b"), OUT),
    "a-folder-elsewhere": Case(link("more", "/etc"), OUT),
    "a-version-elsewhere": Case(elsewhere, OUT, sealed=False),
    "a-loop-of-folders": Case(link("more", "."), OUT, sealed=False),
    "yaml-deep": Case(text("config.yaml", "[" * 100_000), YAML),
    "yaml-bomb": Case(text("config.yaml", BOMB), YAML),
    "yaml-list": Case(text("config.yaml", "[1, 2]"), YAML),
    "yaml-program": Case(text("config.yaml", "!!python/object/apply:os.system [true]"), YAML),
    "shortest-edge-of-20000": Case(setting("INPUT.MIN_SIZE_TEST", 20_000), LARGE),
    "shortest-edge-as-a-text": Case(setting("INPUT.MIN_SIZE_TEST", "20000"), LARGE),
    "a-billion-classes": Case(setting("MODEL.ROI_HEADS.NUM_CLASSES", 10**9), LARGE),
    "fewer-classes-than-none": Case(setting("MODEL.ROI_HEADS.NUM_CLASSES", -3), LARGE),
    "a-billion-channels": Case(setting("MODEL.FPN.OUT_CHANNELS", 10**9), LARGE),
    "a-mean-that-is-none": Case(setting("MODEL.PIXEL_MEAN", [float("nan"), 0.0, 0.0]), LARGE),
    "a-division-by-zero": Case(setting("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]), LARGE),
    "anchors-without-end": Case(setting("MODEL.ANCHOR_GENERATOR.SIZES", [list(range(1, 10_000))]), LARGE),
    "an-anchor-of-nothing": Case(setting("MODEL.ANCHOR_GENERATOR.SIZES", [[0], [1], [1], [1], [1]]), LARGE),
    "a-number-of-4000-bits": Case(setting("MODEL.ROI_HEADS.NUM_CLASSES", 10**1200), LARGE),
    "a-model-of-3-gb": Case(setting("MODEL.ROI_BOX_HEAD.FC_DIM", 65_536), Check.MODEL_TOO_LARGE),
}

"""The folder that a command saves pictures in: a file for each, none of which is read or written twice in the run."""

import os
from collections.abc import Iterable
from pathlib import Path

from vedette_client.errors import LocalError
from vedette_client.outputs import Outputs
from vedette_client.pictures import Missing, Picture


class Folder:
    """Each picture's file is called as the picture is, with another suffix; of one name, the second is numbered.

    What lay in a folder that was given lies likewise in this one.
    """

    def __init__(self, path: Path, pictures: Iterable[Picture | Missing], suffix: str = ".png") -> None:
        """Raises `LocalError` if the folder cannot be written, or a picture's file would be one that is read."""
        self._outputs = Outputs()
        self._targets: dict[Picture, Path] = {}
        given = [picture for picture in pictures if isinstance(picture, Picture)]
        for picture in given:
            if picture.path:
                self._outputs.reads(picture.path)
        taken: set[Path] = set()
        for picture in given:
            target = _free(path / f"{picture.target}{suffix}", taken)
            taken.add(target)
            self._outputs.check(target)
            self._targets[picture] = target
        prepare(path)

    def write(self, picture: Picture, data: bytes) -> Path:
        """Write a picture's file, whole or not at all; returns where. Raises `LocalError`."""
        return self._outputs.write(self._targets[picture], data)


def _free(wanted: Path, taken: set[Path]) -> Path:
    number, free = 1, wanted
    while free in taken:
        number += 1
        free = wanted.with_stem(f"{wanted.stem}-{number}")
    return free


def prepare(folder: Path) -> None:
    """Make the folder, and see whether a file can be made in it. Raises `LocalError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".vedette-{os.getpid()}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink()
    except (OSError, ValueError) as error:
        msg = f"cannot write into {folder}: {getattr(error, 'strerror', None) or error}"
        raise LocalError(msg) from error

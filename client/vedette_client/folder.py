"""The destination folder of a command: one file per picture, none of which the run reads or writes twice."""

from collections.abc import Iterable
from pathlib import Path

from vedette_commands.outputs import free, prepare

from vedette_client.errors import LocalError
from vedette_client.outputs import ClientOutputs
from vedette_client.pictures import Missing, Picture


class Folder:
    """Destination of pictures' files, named after the pictures with another suffix; duplicates are numbered.

    The structure of a source folder is preserved.
    """

    def __init__(self, path: Path, pictures: Iterable[Picture | Missing], suffix: str = ".png") -> None:
        """Raises `LocalError` if the folder is not writable, or a destination is also a source."""
        self._outputs = ClientOutputs()
        self._targets: dict[Picture, Path] = {}
        given = [picture for picture in pictures if isinstance(picture, Picture)]
        for picture in given:
            if picture.path:
                self._outputs.reads(picture.path)
        taken: set[Path] = set()
        for picture in given:
            target = free(path / f"{picture.target}{suffix}", taken)
            taken.add(target)
            self._outputs.check(target)
            self._targets[picture] = target
        prepare(path, LocalError)

    def write(self, picture: Picture, data: bytes) -> Path:
        """Write a picture's file, completely or not at all; return its path. Raises `LocalError`."""
        self._outputs.write(self._targets[picture], data)
        return self._targets[picture]

"""The folder that a command saves pictures in: a file for each, none of which is read or written twice in the run."""

from collections.abc import Iterable
from pathlib import Path

from vedette_commands.outputs import free, prepare

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
            target = free(path / f"{picture.target}{suffix}", taken)
            taken.add(target)
            self._outputs.check(target)
            self._targets[picture] = target
        prepare(path, LocalError)

    def write(self, picture: Picture, data: bytes) -> Path:
        """Write a picture's file, whole or not at all; returns where. Raises `LocalError`."""
        self._outputs.write(self._targets[picture], data)
        return self._targets[picture]

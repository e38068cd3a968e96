"""The current content of a repository: each version is read once, and an invalid one does not affect others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from vedette_server.contract.loading import LoadRefusedError
from vedette_server.contract.naming import RULE
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion, RepositoryError, VersionError

log = structlog.get_logger()


@dataclass(frozen=True)
class RefusedVersion:
    """A version that cannot be served."""

    name: str
    version: int
    reason: LoadRefusedError


_Stamp = tuple[tuple[str, int, int], ...]  # names, sizes and modification times of files


class Shelf:
    """The versions under a folder. Refused ones are read again once they change, for example while being copied."""

    def __init__(self, root: Path, plugins: Collection[str]) -> None:
        """`plugins` are the modules that versions may import."""
        self._root, self._plugins = root, plugins
        self._read: dict[Path, ModelVersion] = {}
        self._refused: dict[Path, tuple[_Stamp, RefusedVersion]] = {}
        self._misnamed: list[str] = []
        self.hidden: dict[str, list[int]] = {}  # models of which no notice is taken, and the versions that they had

    @property
    def versions(self) -> list[ModelVersion]:
        """The valid versions, by name and number."""
        return sorted(self._read.values(), key=lambda one: (one.name, one.version))

    @property
    def refused(self) -> list[RefusedVersion]:
        """The refused versions, by name and number."""
        return sorted((one for _, one in self._refused.values()), key=lambda one: (one.name, one.version))

    def names(self) -> list[str]:
        """Return the names of all models under the folder, valid or not."""
        return sorted({folder.parent.name for folder in repository.folders(self._root)})

    def hide(self, name: str) -> None:
        """Take no notice of a model any more, as if it were not there."""
        if name not in self.hidden:
            there: list[ModelVersion | RefusedVersion] = [*self.versions, *self.refused]
            self.hidden[name] = sorted(one.version for one in there if one.name == name)
        self._read = {folder: one for folder, one in self._read.items() if one.name != name}
        self._refused = {folder: one for folder, one in self._refused.items() if one[1].name != name}

    def show(self, name: str) -> None:
        """Take notice of a model again, from the next look on."""
        self.hidden.pop(name, None)

    def look(self, only: str | None = None) -> None:
        """Read new and changed versions, of all models or of one, and log each refused version once.

        Raises `RepositoryError`, and keeps its previous content, if nothing at all can be served.
        """

        def meant(folder: Path) -> bool:
            return only in (None, folder.parent.name) and folder.parent.name not in self.hidden

        there = [folder for folder in repository.folders(self._root) if meant(folder)]
        read = {folder: one for folder, one in self._read.items() if folder in there or not meant(folder)}
        refused = {folder: one for folder, one in self._refused.items() if not meant(folder)}
        errors: list[VersionError] = []
        for folder in (folder for folder in there if folder not in read):
            stamp = _stamp(folder)
            if folder in self._refused and self._refused[folder][0] == stamp:
                refused[folder] = self._refused[folder]
                continue
            try:
                read[folder] = repository.read_version(folder, self._plugins)
            except VersionError as error:
                errors.append(error)
                refused[folder] = stamp, RefusedVersion(folder.parent.name, int(folder.name), error.refusal)
        if not read:
            self._raise(errors, refused)
        self._tell(errors)
        self._read, self._refused = read, refused

    def _raise(self, errors: list[VersionError], refused: Mapping[Path, object]) -> None:
        if errors:
            more = f" (and {len(errors) - 1} more versions cannot be served)" if len(errors) > 1 else ""
            msg = f"{errors[0]}{more}"
            raise RepositoryError(msg) from errors[0]
        if refused:
            msg = f"{self._root} holds no version that can be served"
            raise RepositoryError(msg)
        repository.check_holds(self._root)

    def _tell(self, errors: list[VersionError]) -> None:
        for error in errors:
            refusal = error.refusal
            log.error("version_refused", folder=str(error.folder), check=refusal.check, error=str(refusal))
        misnamed = repository.misnamed(self._root)
        for name in misnamed:
            if name not in self._misnamed:
                log.warning("folder_ignored", folder=name, reason=f"a model's name has {RULE}")
        self._misnamed = misnamed


def _stamp(folder: Path) -> _Stamp:
    """Return a stamp that changes with a version's files or its model.toml."""
    try:
        paths = [folder.parent / "model.toml", folder, *repository.walk(folder)]
        found = [(str(path), path.lstat()) for path in paths if path.exists() or path.is_symlink()]
    except (OSError, LoadRefusedError):
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)

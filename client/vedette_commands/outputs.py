"""Files written by a command: never over files that the same run reads or wrote, and never half over an older one.

A file is written under a temporary name in the same folder, and renamed when complete. So an earlier run's file stays
until its replacement exists.
"""

import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final, TypeAlias

from vedette_commands.program import FailedError

_DIRECT: Final = ("/dev/std", "/dev/fd/", "/proc/")  # already open, whatever they are, so they cannot be replaced
_LONGEST_NAME: Final = 200  # of the name itself, so that the temporary name fits a folder's 255 bytes

_Identity: TypeAlias = tuple[int, int] | str


class Part:
    """A file in progress: written at `path`, renamed to `target` when complete."""

    def __init__(self, outputs: "Outputs", named: Path, target: Path, path: Path) -> None:
        self._outputs = outputs
        self._named = named
        self.target = target
        self.path = path  # a device or a pipe is written directly, so it equals the target

    def finish(self, *, whole: bool = True) -> Path:
        """Rename the file to its target, replacing an earlier run's; return the path. Raises `Outputs.failure`.

        An incomplete file is kept too, but never replaces an older one: then it is named NAME-partial.
        """
        if self.path == self.target:
            return self._named
        target, named = self.target, self._named
        if not whole and target.exists():
            target, named = (path.with_stem(f"{path.stem}-partial") for path in (target, named))
        self._outputs.check(target)
        try:
            self.path.replace(target)
        except OSError as error:
            raise self._outputs.failed(named, error) from error
        self._outputs.wrote(target)
        return named

    def discard(self) -> None:
        """Remove the temporary file."""
        if self.path != self.target:
            self._outputs.begun.discard(self.target)
            self.path.unlink(missing_ok=True)  # it no longer exists if it was finished


class Outputs:
    """The files that one run of a command reads and writes. A subclass sets the exception to raise."""

    failure: type[Exception] = FailedError

    def __init__(self) -> None:
        self._read: set[_Identity] = set()
        self._written: set[_Identity] = set()
        self.begun: set[Path] = set()  # targets in progress

    def reads(self, path: str | os.PathLike[str]) -> None:
        """Protect this file from being overwritten, under any name. Anything but a regular file is ignored."""
        self._read |= _identities(Path(path))

    def wrote(self, path: str | os.PathLike[str]) -> None:
        """Protect this file from being overwritten by other outputs."""
        self._written |= _identities(Path(path))

    def check(self, path: Path) -> None:
        """Raise `Outputs.failure` if writing would destroy a file that this run has read or written."""
        named = _identities(path)
        if named & self._read:
            msg = f"cannot write {path}: this run reads it; name another file"
            raise self.failure(msg)
        if named & self._written:
            msg = f"cannot write {path}: this run has already written it; name another file"
            raise self.failure(msg)

    def failed(self, path: Path, error: OSError | ValueError) -> Exception:
        """Return the exception for a file system error."""
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return self.failure(f"cannot write {path}: {why}")

    def begin(self, path: Path) -> Part:
        """Start writing a file, creating its folder if necessary. Raises `Outputs.failure`."""
        self.check(path)
        try:
            target = Path(os.path.realpath(path))  # a link remains a link, and its target is written
            mode = target.stat().st_mode if target.exists() else stat.S_IFREG | 0o666
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(None, "it is a folder; name a file in it")
            if str(path.absolute()).startswith(_DIRECT) or not stat.S_ISREG(mode):
                return Part(self, path, path, path)
            if target in self.begun:
                raise FileExistsError(None, "this run already writes it; name another file")
            if target.exists() and not os.access(target, os.W_OK):
                raise PermissionError(None, "it is write-protected")
            _make(target.parent)
            aside = _beside(target)
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IMODE(mode)))
        except (OSError, ValueError) as error:
            raise self.failed(path, error) from error
        self.begun.add(target)
        return Part(self, path, target, aside)

    def write(self, path: Path, data: bytes) -> Path:
        """Write a file at once, completely or not at all; return its path. Raises `Outputs.failure`."""
        part = self.begin(path)
        try:
            part.path.write_bytes(data)
            return part.finish()
        except OSError as error:
            raise self.failed(path, error) from error
        finally:
            part.discard()


def free(wanted: Path, taken: Collection[Path]) -> Path:
    """Return the name itself, or a numbered one if it is taken."""
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = wanted.with_stem(f"{wanted.stem}-{number}")
    return name


def prepare(folder: Path, failure: type[Exception] = FailedError) -> None:
    """Create a folder if necessary, and check that it is writable. Raises `failure`."""
    try:
        _make(folder)
        probe = _beside(folder / "probe")
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink()
    except (OSError, ValueError) as error:
        msg = f"cannot write into {folder}: {getattr(error, 'strerror', None) or error}"
        raise failure(msg) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(None, f"{folder} is not a folder") from error


def _beside(target: Path) -> Path:
    """Return an unused name in the same folder; the suffix stays, because it determines the format."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) < 16 else ""
    stem = os.fsencode(target.name.removesuffix(suffix))[:_LONGEST_NAME].decode(errors="ignore")
    return target.with_name(f".{stem}.{secrets.token_hex(4)}.part{suffix}")


def _identities(path: Path) -> set[_Identity]:
    """Return the keys that identify a file: its path without links, and the file itself if it exists."""
    try:
        status = path.stat()
    except OSError:
        return {os.path.realpath(path)}
    except ValueError:
        return set()  # not a valid file name
    if not stat.S_ISREG(status.st_mode):
        return set()  # terminals and pipes can be read and written, and folders are not files
    return {os.path.realpath(path), (status.st_dev, status.st_ino)}

"""Files that a command writes: never over what it read or wrote in the same run, never half over an older one.

A file is written beside its name, in the same folder, and takes the name when it is whole. So what an earlier run has
left stays until there is something to take its place.
"""

import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final, TypeAlias

from vedette_commands.program import FailedError

_DIRECT: Final = ("/dev/std", "/dev/fd/", "/proc/")  # open already, whatever they are: nothing can take their place
_LONGEST_NAME: Final = 200  # of the name's own part, so that the name beside it fits into a folder's 255 bytes

_Identity: TypeAlias = tuple[int, int] | str


class Part:
    """A file on its way: written at `path`, known as `target` once it is whole."""

    def __init__(self, outputs: "Outputs", named: Path, target: Path, path: Path) -> None:
        self._outputs = outputs
        self._named = named
        self.target = target
        self.path = path  # what a device or a pipe is written to directly is its own target

    def finish(self, *, whole: bool = True) -> Path:
        """Take the name, over what an earlier run has left there; returns it. Raises `Outputs.failure`.

        What is not whole is kept too, but takes no older file's place: it is named NAME-partial then.
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
        """Leave nothing behind."""
        if self.path != self.target:
            self._outputs.begun.discard(self.target)
            self.path.unlink(missing_ok=True)  # there is none where it was finished


class Outputs:
    """What one run of a command reads and writes. A subclass says which error it raises."""

    failure: type[Exception] = FailedError

    def __init__(self) -> None:
        self._read: set[_Identity] = set()
        self._written: set[_Identity] = set()
        self.begun: set[Path] = set()  # names of what is on its way

    def reads(self, path: str | os.PathLike[str]) -> None:
        """From now on nothing is written over this file, under whatever name. What is not a file is let be."""
        self._read |= _identities(Path(path))

    def wrote(self, path: str | os.PathLike[str]) -> None:
        """From now on nothing else is written over this file."""
        self._written |= _identities(Path(path))

    def check(self, path: Path) -> None:
        """Raise `Outputs.failure` where writing would destroy what this run has read or written."""
        named = _identities(path)
        if named & self._read:
            msg = f"cannot write {path}: this run reads it; name another file"
            raise self.failure(msg)
        if named & self._written:
            msg = f"cannot write {path}: this run has already written it; name another file"
            raise self.failure(msg)

    def failed(self, path: Path, error: OSError | ValueError) -> Exception:
        """What to raise for an error of the file system."""
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return self.failure(f"cannot write {path}: {why}")

    def begin(self, path: Path) -> Part:
        """Begin to write a file; its folder is made where there is none. Raises `Outputs.failure`."""
        self.check(path)
        try:
            target = Path(os.path.realpath(path))  # a link stays a link, to what is written
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
        """Write a file at once, whole or not at all; returns where. Raises `Outputs.failure`."""
        part = self.begin(path)
        try:
            part.path.write_bytes(data)
            return part.finish()
        except OSError as error:
            raise self.failed(path, error) from error
        finally:
            part.discard()


def free(wanted: Path, taken: Collection[Path]) -> Path:
    """The name itself, or numbered where it is taken."""
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = wanted.with_stem(f"{wanted.stem}-{number}")
    return name


def prepare(folder: Path, failure: type[Exception] = FailedError) -> None:
    """Make a folder, and see whether a file can be made in it. Raises `failure`."""
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
    """A name in the same folder that nothing has; the suffix stays, as it says what the file is."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) < 16 else ""
    stem = os.fsencode(target.name.removesuffix(suffix))[:_LONGEST_NAME].decode(errors="ignore")
    return target.with_name(f".{stem}.{secrets.token_hex(4)}.part{suffix}")


def _identities(path: Path) -> set[_Identity]:
    """What tells whether two paths are one file: the file itself where there is one, else its name without links."""
    try:
        status = path.stat()
    except OSError:
        return {os.path.realpath(path)}
    except ValueError:
        return set()  # no name of a file at all
    if not stat.S_ISREG(status.st_mode):
        return set()  # a terminal or a pipe can be read and written, a folder is no file
    return {os.path.realpath(path), (status.st_dev, status.st_ino)}

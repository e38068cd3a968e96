"""The pictures that a command is given: files, folders, patterns, and standard input.

A file is taken as it is, whatever its name. Of a folder, everything below it is taken that is called like a picture, in
the order of its name; what is hidden, and what systems and archives leave behind, is passed over, and links to other
folders are not followed. `*`, `?`, `[…]` and `**` are understood where the shell has left them alone and no file has
that very name.
"""

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette_commands import text

from vedette_client.errors import LocalError

SUFFIXES = frozenset((
    ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff",
    ".webp",
))  # fmt: skip
STANDARD_INPUT = "-"
_LEFTOVERS = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"))
_MOST_BYTES = 2**30  # of one picture: beyond any server's limit, and a pipe need not end


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, yet to be read. Given twice, it is two."""

    path: Path | None  # None: standard input
    below: Path  # where it lies within the folder that was given; else its bare name

    @property
    def name(self) -> str:
        """What it is called in what is printed."""
        return STANDARD_INPUT if self.path is None else text.name(self.path)

    @property
    def target(self) -> Path:
        """Where it belongs in a folder of results, without a suffix."""
        return self.below.with_name(self.below.stem or self.below.name)

    def read(self) -> bytes:
        """Its bytes. Raises `LocalError`."""
        try:
            if self.path is None:
                return _standard_input()
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    msg = f"{self.path} is a device, not a file"
                    raise LocalError(msg)
                _limited(status.st_size, str(self.path))
                data = file.read(_MOST_BYTES + 1)
                _limited(len(data), str(self.path))
                return data
        except (OSError, ValueError) as error:
            msg = f"cannot read {self.path or 'standard input'}: {getattr(error, 'strerror', None) or error}"
            raise LocalError(msg) from error


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        msg = "standard input is closed"
        raise LocalError(msg)
    if sys.stdin.isatty():
        msg = "standard input is a terminal: give a picture by `< FILE` or through a pipe"
        raise LocalError(msg)
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    _limited(len(data), "standard input")
    return data


def _limited(size: int, name: str) -> None:
    if size > _MOST_BYTES:
        msg = f"{name} has more than {_MOST_BYTES} bytes: no server takes that"
        raise LocalError(msg)


@dataclass(frozen=True)
class Missing:
    """What was given, and is no picture."""

    name: str
    error: LocalError


def found(given: Iterable[str]) -> Iterator[Picture | Missing]:
    """Every picture of a command line, in its order; what there is not is told in its place."""
    for word in given:
        if word == STANDARD_INPUT:
            yield Picture(None, Path("stdin"))
            continue
        none, why = True, f"no pictures are there ({', '.join(sorted(SUFFIXES))})"
        try:
            for path in _matches(word):
                for picture in _below(path) if path.is_dir() else [Picture(path, Path(path.name))]:
                    none = False
                    yield picture
        except LocalError as error:
            why = str(error)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
        if none:
            yield Missing(text.name(word), LocalError(why))


def one(word: str) -> Picture:
    """The picture that is given where one is taken, by its very name. Raises `LocalError` for a folder."""
    if word == STANDARD_INPUT:
        return Picture(None, Path("stdin"))
    path = Path(word)
    if not word or path.is_dir():
        msg = f"cannot read {word!r}: it is {'a folder' if word else 'no name'}; give one picture"
        raise LocalError(msg)
    return Picture(path, Path(path.name))


def _matches(word: str) -> Sequence[Path]:
    """The file itself; else what the word is a pattern of. Raises `LocalError`."""
    if not word:
        msg = "a file's name is empty"
        raise LocalError(msg)
    if os.path.lexists(word) or not glob.has_magic(word):
        return [Path(word)]
    if matches := sorted(glob.glob(word, recursive=True)):  # noqa: PTH207  a path's own takes no absolute one
        return [Path(match) for match in matches]
    msg = "no file is called so, and none matches"
    raise LocalError(msg)


def _below(folder: Path) -> Iterator[Picture]:
    """The pictures of a folder. Raises `OSError` if the folder cannot be read."""

    def give_up(error: OSError) -> None:
        if error.filename == str(folder):
            raise error

    for root, folders, files in os.walk(folder, onerror=give_up):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFTOVERS)
        for name in sorted(files):
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Picture(path, path.relative_to(folder))

"""The pictures on a command line: files, folders, patterns, and standard input.

A named file is used whatever its name. A folder contributes everything below it with a picture's suffix, in order of
name. Hidden files and leftovers of systems and archives are skipped, and links to other folders are not followed. `*`,
`?`, `[…]` and `**` are expanded if the shell has not done so and no file has that literal name.
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
_MOST_BYTES = 2**30  # of one picture: beyond any server's limit, because a pipe may be endless


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, not read yet. If given twice, it counts as two."""

    path: Path | None  # None: standard input
    below: Path  # path relative to the given folder; otherwise its base name

    @property
    def name(self) -> str:
        """The name used in output."""
        return STANDARD_INPUT if self.path is None else text.name(self.path)

    @property
    def target(self) -> Path:
        """The relative path for its results, without a suffix."""
        return self.below.with_name(self.below.stem or self.below.name)

    def read(self) -> bytes:
        """Read the bytes. Raises `LocalError`."""
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
        msg = "standard input is a terminal: use `< FILE` or a pipe"
        raise LocalError(msg)
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    _limited(len(data), "standard input")
    return data


def _limited(size: int, name: str) -> None:
    if size > _MOST_BYTES:
        msg = f"{name} has more than {_MOST_BYTES} bytes, more than any server accepts"
        raise LocalError(msg)


@dataclass(frozen=True)
class Missing:
    """An argument that is not a picture."""

    name: str
    error: LocalError


def found(given: Iterable[str]) -> Iterator[Picture | Missing]:
    """Yield every picture on a command line, in order, with errors in place of missing ones."""
    for word in given:
        if word == STANDARD_INPUT:
            yield Picture(None, Path("stdin"))
            continue
        none, why = True, f"it contains no pictures ({', '.join(sorted(SUFFIXES))})"
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
    """Return the picture for an argument that takes a single literal name. Raises `LocalError` for a folder."""
    if word == STANDARD_INPUT:
        return Picture(None, Path("stdin"))
    path = Path(word)
    if not word or path.is_dir():
        msg = f"cannot read {word!r}: it is {'a folder' if word else 'an empty name'}; give one picture"
        raise LocalError(msg)
    return Picture(path, Path(path.name))


def _matches(word: str) -> Sequence[Path]:
    """Return the file itself, otherwise the matches of a pattern. Raises `LocalError`."""
    if not word:
        msg = "a file's name is empty"
        raise LocalError(msg)
    if os.path.lexists(word) or not glob.has_magic(word):
        return [Path(word)]
    if matches := sorted(glob.glob(word, recursive=True)):  # noqa: PTH207  Path.glob accepts no absolute patterns
        return [Path(match) for match in matches]
    msg = "no file has this name or matches it"
    raise LocalError(msg)


def _below(folder: Path) -> Iterator[Picture]:
    """Yield the pictures in a folder. Raises `OSError` if the folder is unreadable."""

    def give_up(error: OSError) -> None:
        if error.filename == str(folder):
            raise error

    for root, folders, files in os.walk(folder, onerror=give_up):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFTOVERS)
        for name in sorted(files):
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Picture(path, path.relative_to(folder))

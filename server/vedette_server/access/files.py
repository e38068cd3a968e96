"""Files that are reloaded when they change. If a new version cannot be read, the previous one remains in force."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import structlog

log = structlog.get_logger()

_LARGEST = 4 * 2**20  # bytes per file

T = TypeVar("T")
Told: TypeAlias = Callable[[str, bool], None]  # the kind of file that was reloaded, and whether it was accepted
_Signature: TypeAlias = tuple[tuple[int, ...] | None, ...]


class AccessError(ValueError):
    """An access file is invalid. The message contains no secrets."""


class Kept(Generic[T]):
    """The parsed content of files. `get` checks for changes, which takes microseconds, so that nothing stale is used.

    It may be called from any thread: gRPC requests certificates in its own.
    """

    def __init__(self, kind: str, paths: Sequence[Path], read: Callable[[], T], told: Told) -> None:
        """Read the files. Raises `AccessError`. `kind` is their name in log and metrics."""
        self._kind = kind
        self._paths = paths
        self._read = read
        self._told = told
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._value = read()
        self._edition = 0
        self._stale = False

    def get(self) -> T:
        """Return the current content, or the last readable one."""
        with self._lock:
            if (signature := self._signature()) != self._seen:
                self._again(signature)
            return self._value

    @property
    def edition(self) -> int:
        """A number that increases whenever the content changes."""
        self.get()
        return self._edition

    @property
    def stale(self) -> bool:
        """True if the files are currently unreadable."""
        self.get()
        return self._stale

    def reload(self) -> None:
        """Reload the files, changed or not."""
        with self._lock:
            self._again(self._signature())

    def _again(self, signature: _Signature) -> None:
        self._seen = signature  # taken before reading: later changes cause another reload
        try:
            self._value = self._read()
        except (AccessError, OSError) as error:  # OSError: no descriptors left, for example
            log.error("reload_refused", file=self._kind, error=str(error))  # noqa: TRY400  a reason, not a bug
            taken = False
        else:
            log.info("reloaded", file=self._kind)
            self._edition += 1
            taken = True
        self._stale = not taken
        self._told(self._kind, taken)

    def _signature(self) -> _Signature:
        return tuple(_look(path) for path in self._paths)


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content(path: Path) -> bytes:
    """Return the bytes of a regular file of reasonable size. Raises `AccessError`."""
    try:
        if not path.is_file():  # opening a FIFO would block
            msg = f"{path} does not exist" if not path.exists() else f"{path} is not a file"
            raise AccessError(msg)
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or os.strerror(error.errno or 0)}"
        raise AccessError(msg) from error
    if len(data) > _LARGEST:
        msg = f"{path} is larger than {_LARGEST} bytes"
        raise AccessError(msg)
    return data


def text(path: Path) -> str:
    """Return the text of such a file. Raises `AccessError`."""
    try:
        return content(path).decode()
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8"
        raise AccessError(msg) from error

"""Files that are read again when they change: what cannot be read leaves what was there before."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import structlog

log = structlog.get_logger()

_LARGEST = 4 * 2**20  # bytes of a file

T = TypeVar("T")
Told: TypeAlias = Callable[[str, bool], None]  # what was read again, and whether it was taken
_Signature: TypeAlias = tuple[tuple[int, ...] | None, ...]


class AccessError(ValueError):
    """A file about who may call is not what it must be. The message holds nothing secret."""


class Kept(Generic[T]):
    """What files say. `get` looks whether they have changed, which takes microseconds, so that nothing stale is used.

    It may be called from any thread: gRPC asks for certificates in its own.
    """

    def __init__(self, kind: str, paths: Sequence[Path], read: Callable[[], T], told: Told) -> None:
        """Read them; raises `AccessError`. `kind` is what the log and the metrics call them."""
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
        """What they say now, or have said when they could last be read."""
        with self._lock:
            if (signature := self._signature()) != self._seen:
                self._again(signature)
            return self._value

    @property
    def edition(self) -> int:
        """Another number whenever they say something else."""
        self.get()
        return self._edition

    @property
    def stale(self) -> bool:
        """Whether they cannot be read as they are now."""
        self.get()
        return self._stale

    def reload(self) -> None:
        """Read them, changed or not."""
        with self._lock:
            self._again(self._signature())

    def _again(self, signature: _Signature) -> None:
        self._seen = signature  # taken before reading: what changes meanwhile is read once more
        try:
            self._value = self._read()
        except (AccessError, OSError) as error:  # of the system: no descriptor is left, for one
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
    """The bytes of a regular file of sane size. Raises `AccessError`."""
    try:
        if not path.is_file():  # a FIFO would be waited for
            msg = f"{path}: there is no such file" if not path.exists() else f"{path} is not a file"
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
    """The same, as text. Raises `AccessError`."""
    try:
        return content(path).decode()
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8"
        raise AccessError(msg) from error

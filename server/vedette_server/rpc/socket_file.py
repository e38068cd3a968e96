"""A Unix socket's file: what a server that was killed has left is taken away, anything else is let be."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_MODE = 0o660  # connecting takes the right to write: the server's user and its group have it
_LOOK_SECONDS = 1.0


class SocketFile:
    """The file at which a server listens, made by gRPC within `making`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        self._made: tuple[int, int] | None = None

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Make room for the file, and remember what the block has made. Raises `OSError` where there is no room."""
        self._clear()
        before = os.umask(0o777 & ~_MODE)
        try:
            yield
        finally:
            os.umask(before)
        self._made = self._identity()

    def remove(self) -> None:
        """Take the file away, if it is still this server's."""
        if self._made is not None and self._identity() == self._made:
            self._path.unlink(missing_ok=True)

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _clear(self) -> None:
        try:
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                msg = f"cannot listen on unix:{self._path}: there is no folder {self._path.parent}"
                raise OSError(msg) from None
            return
        if not stat.S_ISSOCK(mode):
            msg = f"cannot listen on unix:{self._path}: what is there is not a socket, and is let be"
            raise OSError(msg)
        if self._answers():
            msg = f"cannot listen on unix:{self._path}: another server does"
            raise OSError(msg)
        self._path.unlink()

    def _answers(self) -> bool:
        """Whether anybody listens: gRPC would take the place of one who does."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_LOOK_SECONDS)
            try:
                sock.connect(str(self._path))
            except ConnectionRefusedError:
                return False
            except OSError:  # busy, or not ours to ask
                return True
        return True

"""A Unix socket's file: replaces the leftover of a killed server, and nothing else."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_MODE = 0o660  # connecting requires write permission, which the server's user and group have
_LOOK_SECONDS = 1.0


class SocketFile:
    """The file of a server's socket, created by gRPC within `making`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        self._made: tuple[int, int] | None = None

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Make room for the file, and record the file created in the block. Raises `OSError` if the path is taken."""
        self._clear()
        before = os.umask(0o777 & ~_MODE)
        try:
            yield
        finally:
            os.umask(before)
        self._made = self._identity()

    def remove(self) -> None:
        """Remove the file if it is still this server's."""
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
                msg = f"cannot listen on unix:{self._path}: the folder {self._path.parent} does not exist"
                raise OSError(msg) from None
            return
        if not stat.S_ISSOCK(mode):
            msg = f"cannot listen on unix:{self._path}: the file is not a socket, and is left alone"
            raise OSError(msg)
        if self._answers():
            msg = f"cannot listen on unix:{self._path}: another server listens on it"
            raise OSError(msg)
        self._path.unlink()

    def _answers(self) -> bool:
        """Return whether anyone listens on it: gRPC would take over a live server's path."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_LOOK_SECONDS)
            try:
                sock.connect(str(self._path))
            except ConnectionRefusedError:
                return False
            except OSError:  # busy, or without permission to connect
                return True
        return True

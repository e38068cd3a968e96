"""Files of POSIX shared memory that belong to callers, read and written without being mapped.

If the owner of a mapped file shrinks it, whoever touches the mapping is killed (SIGBUS). Reading the file itself merely
ends early. A file is opened anew for each use, so it costs nothing between uses, and its memory is free once its owner
is gone. Each time it must still be the file that was registered.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FOLDER = "/dev/shm"  # noqa: S108  where shm_open of the C library has its files
_KEY = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.+-]{1,255}", re.ASCII)
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnfitFileError(Exception):
    """The file is not what its caller says, or no longer; the text tells what was seen."""


@dataclass(frozen=True)
class SharedFile:
    """A file, told apart from all others that ever have its name."""

    key: str
    owner: int  # user id
    device: int
    inode: int


@dataclass(frozen=True)
class Piece:
    """Bytes to write, and their place in a file."""

    file: SharedFile
    offset: int
    data: bytes


def is_key(key: str) -> bool:
    """Return whether a key names a single file, and cannot lead elsewhere."""
    return _KEY.fullmatch(key) is not None


def find(key: str, owner: int) -> tuple[SharedFile, int]:
    """Return the file with this key, which must be the owner's, and its size in bytes. Raises `UnfitFileError`."""
    with _open(key, owner, os.O_RDONLY) as (_, status):
        return SharedFile(key, owner, status.st_dev, status.st_ino), status.st_size


def read(file: SharedFile, offset: int, size: int) -> bytes:
    """Read a part of a file. Raises `UnfitFileError` also if the file has become too short."""
    with _open_again(file, os.O_RDONLY, offset + size) as fd:
        data = os.pread(fd, size, offset)
    if len(data) != size:
        raise UnfitFileError(_too_short(file, offset + len(data), offset + size))
    return data


def write(parts: Sequence[Piece]) -> None:
    """Write parts to their files, once all of these are found to be fit. Raises `UnfitFileError`."""
    with contextlib.ExitStack() as opened:
        fds = [
            opened.enter_context(_open_again(part.file, os.O_WRONLY, part.offset + len(part.data))) for part in parts
        ]
        for fd, part in zip(fds, parts, strict=True):
            try:
                written = os.pwrite(fd, part.data, part.offset)
            except OSError as error:  # no memory is left, for one
                msg = f"{_path(part.file.key)} cannot be written: {error.strerror}"
                raise UnfitFileError(msg) from None
            if written != len(part.data):
                msg = f"{_path(part.file.key)} took {written} of {len(part.data)} bytes"
                raise UnfitFileError(msg)


@contextlib.contextmanager
def _open_again(file: SharedFile, flags: int, size: int) -> Iterator[int]:
    """Open a file if it is the same, and has at least `size` bytes."""
    with _open(file.key, file.owner, flags) as (fd, status):
        if (status.st_dev, status.st_ino) != (file.device, file.inode):
            msg = f"another file has taken the place of {_path(file.key)}"
            raise UnfitFileError(msg)
        if status.st_size < size:
            raise UnfitFileError(_too_short(file, status.st_size, size))
        yield fd


@contextlib.contextmanager
def _open(key: str, owner: int, flags: int) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file that is the owner's, and yield its descriptor and status.

    It is looked at before it is opened, because opening a pipe or a device can already have effects.
    """
    try:
        found = os.open(_path(key), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        msg = f"there is no file {_path(key)}"
        raise UnfitFileError(msg) from None
    try:
        _check(key, os.fstat(found), owner)
        # Without O_NONBLOCK, its owner could keep us waiting by a lease.
        fd = os.open(f"/proc/self/fd/{found}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        verb = "write" if flags & os.O_WRONLY else "read"
        msg = f"the server cannot open {_path(key)} to {verb} it: {error.strerror}"
        raise UnfitFileError(msg) from None
    finally:
        os.close(found)
    try:
        yield fd, os.fstat(fd)
    finally:
        os.close(fd)


def _check(key: str, status: os.stat_result, owner: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        msg = f"{_path(key)} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}"
        raise UnfitFileError(msg)
    if status.st_uid != owner:
        msg = f"{_path(key)} belongs to the user {status.st_uid}, and the caller is the user {owner}"
        raise UnfitFileError(msg)


def _path(key: str) -> str:
    return f"{FOLDER}/{key}"


def _too_short(file: SharedFile, size: int, needed: int) -> str:
    return f"{_path(file.key)} has {size} bytes, and {needed} are needed"

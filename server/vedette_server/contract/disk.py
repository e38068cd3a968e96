"""Safe opening of files from others: regular files only, within their folder, up to a maximum size.

Other kinds of file are never opened: a FIFO would block forever, a device may yield endless bytes, and opening some
devices has side effects.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from vedette_server.contract.loading import Check, LoadRefusedError

_MIB, _GIB = 2**20, 2**30
# Maximum bytes read from each file. Sizes come from the kernel and are checked before anything is read.
LARGEST = {
    "config.yaml": 1 * _MIB,  # the largest in the model zoo has 6 kB
    "manifest.json": 16 * _MIB,  # 10,000 classes with long names take 1 MB
    "model.toml": 1 * _MIB,
    "baseline.json": 64 * _MIB,
    "expected.json": 64 * _MIB,  # masks and label maps of hundreds of pictures
    "model.safetensors": 16 * _GIB,  # Detectron2's largest backbone, ViTDet-H, takes 2.7 GB
}
LARGEST_OTHER = 256 * _MIB  # such as a golden image
LARGEST_CHECKPOINT = 64 * _GIB  # as written by training, with the optimiser's state
MOST_FILES = 10_000  # per version

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_NEVER = {errno.ELOOP: "a link that leads to itself", errno.ENAMETOOLONG: "a name that is too long"}


def opened(path: Path, most: int, within: Path | None = None) -> BufferedReader:
    """Open a file for reading, following links that stay within the folder `within`.

    Raises `LoadRefusedError`, FILE_UNUSABLE, for a file that is not regular, lies outside the folder or has more than
    `most` bytes. Raises `OSError` for a file that is missing or may not be read.
    """
    target = _resolved(path)
    if within is not None and not target.is_relative_to(_resolved(within)):
        _refuse(path, f"leads out of {within}", f"put a copy of it into {within}")
    _check(path, target.lstat(), most)
    descriptor = os.open(target, _FLAGS)
    try:
        _check(path, os.fstat(descriptor), most)  # it may have been replaced meanwhile
        return open(descriptor, "rb")  # noqa: PTH123  the caller closes it
    except BaseException:
        os.close(descriptor)
        raise


def contents(path: Path, most: int, within: Path | None = None) -> bytes:
    """Return all bytes of a file, opened by `opened`."""
    with opened(path, most, within) as file:
        data = file.read(most + 1)
    if len(data) > most:  # the file is growing
        _too_large(path, len(data), most)
    return data


def _resolved(path: Path) -> Path:
    """Resolve a path. `Path.resolve` may raise a `RuntimeError` for a loop of links."""
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno in _NEVER:
            _refuse(path, f"is {_NEVER[error.errno]}")
        raise
    except ValueError:
        _refuse(path, "has a name with a null byte")


def _check(path: Path, found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        _refuse(path, f"is {_KINDS.get(stat.S_IFMT(found.st_mode), 'not a file')}")
    if found.st_size > most:
        _too_large(path, found.st_size, most)


def _too_large(path: Path, size: int, most: int) -> NoReturn:
    _refuse(path, f"has {size} bytes, but the limit for such a file is {most}", "give a smaller one")


def _refuse(path: Path, why: str, remedy: str | None = None) -> NoReturn:
    raise LoadRefusedError(Check.FILE_UNUSABLE, f"{path} {why}", remedy)

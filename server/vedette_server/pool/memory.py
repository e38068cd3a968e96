"""The memory that this process's allocator holds. Where that is not glibc's, nothing is known and nothing happens.

Freed memory is kept for the next image instead of being given back to the kernel. Every image needs the same large
buffers again. By its defaults glibc returns them each time, and the kernel then clears every page of them anew: a tenth
of a small model's time per image, measured on its own.

What a process may use in all can be limited, by the writable memory of its own (RLIMIT_DATA): then what is too much
fails where it is asked for, with a name, and the kernel need not choose whom to end. A limit of the address space
(RLIMIT_AS) would count libraries, files and what CUDA reserves, of which little is ever used.
"""

import ctypes
import resource
from pathlib import Path

_libc = ctypes.CDLL(None)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_* of glibc's malloc.h
_KEPT = 2**30  # bytes of free memory, beyond which it is given back after all
_MAPPED = 32 * 2**20  # bytes from which a buffer is mapped by itself: the most that glibc takes


_LEAST_ROOM = 2**27  # bytes


class _Figures(ctypes.Structure):
    """mallinfo2's: https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = (
        ("others", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),  # bytes of buffers that are mapped by themselves
        ("more", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),  # bytes of all others in use
        ("rest", ctypes.c_size_t * 2),
    )


_figures = getattr(_libc, "mallinfo2", None)
if _figures is not None:
    _figures.restype = _Figures


def keep_freed() -> None:
    """Tell the allocator to keep what is freed."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _MAPPED)


def used() -> int:
    """The bytes in use: allocated and not freed. 0 where they are not known."""
    if _figures is None:
        return 0
    figures = _figures()
    return int(figures.uordblks + figures.hblkhd)


def give_back() -> None:
    """Give what is free back to the kernel after all."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def limit(most: int) -> None:
    """Limit this process's own memory, in bytes; a lower limit that it has already stands.

    Raises `MemoryError` where that leaves no room beside what is in use: torch waits for ever for threads that could
    not be started.
    """
    if (has := _own()) + _LEAST_ROOM > most:
        msg = f"{most} bytes are too few: {has} are in use before a model is loaded, and {_LEAST_ROOM} must be left"
        raise MemoryError(msg)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (least, hard))


def _own() -> int:
    """The bytes that count towards RLIMIT_DATA."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))

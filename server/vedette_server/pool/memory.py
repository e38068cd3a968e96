"""Control of the allocator's memory. Without glibc, nothing is known and nothing happens.

Freed memory is kept for the next image instead of returning to the kernel, because every image needs the same large
buffers. By default glibc returns them each time, and the kernel then clears every page again. Measured alone, that
takes a tenth of a small model's time per image.

A process's private writable memory can be limited (RLIMIT_DATA). Excessive allocations then fail where they are
requested, with a clear error, and the kernel need not choose a victim. A limit on the address space (RLIMIT_AS) would
also count libraries, files and CUDA's reservations, which are mostly unused.
"""

import ctypes
import resource
from pathlib import Path

_libc = ctypes.CDLL(None)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_* of glibc's malloc.h
_KEPT = 2**30  # bytes of free memory, beyond which memory is returned to the kernel
_MAPPED = 32 * 2**20  # bytes above which a buffer gets a mapping of its own: glibc's maximum


_LEAST_ROOM = 2**27  # bytes


class _Figures(ctypes.Structure):
    """Result of mallinfo2: https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = (
        ("others", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),  # bytes of buffers with mappings of their own
        ("more", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),  # bytes of all other buffers in use
        ("rest", ctypes.c_size_t * 2),
    )


_figures = getattr(_libc, "mallinfo2", None)
if _figures is not None:
    _figures.restype = _Figures


def keep_freed() -> None:
    """Make the allocator keep freed memory."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _MAPPED)


def used() -> int:
    """Return the bytes allocated and not freed; 0 if unknown."""
    if _figures is None:
        return 0
    figures = _figures()
    return int(figures.uordblks + figures.hblkhd)


def give_back() -> None:
    """Return free memory to the kernel after all."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def limit(most: int) -> None:
    """Limit this process's private memory, in bytes; an existing lower limit remains.

    Raises `MemoryError` if that leaves no room beyond the current use: torch waits forever for threads that could not
    start.
    """
    if (has := _own()) + _LEAST_ROOM > most:
        msg = f"{most} bytes are too few: {has} are in use before a model is loaded, and {_LEAST_ROOM} must remain free"
        raise MemoryError(msg)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (least, hard))


def _own() -> int:
    """Return the bytes that count towards RLIMIT_DATA."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))

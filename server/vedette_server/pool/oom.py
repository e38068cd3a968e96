"""Whether memory was lacking: what programs raise then, and how often the kernel has ended a process for it."""

import errno
import resource
import signal
from pathlib import Path

EXIT_STATUS = 75  # of a worker that ends by itself for want of memory
_KILLS = "oom_kill "  # a line of either file below
_SAID = (
    "can't allocate memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
    "out of memory",
    "_STATUS_ALLOC_FAILED",  # of CUDA's libraries
)
_HARD_ENDS = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)  # of libraries that do not check what malloc gives


def lacked(error: BaseException) -> bool:
    """Whether an exception, or one that it comes from, says that memory was lacking."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return False
        if isinstance(seen, MemoryError) or (isinstance(seen, OSError) and seen.errno == errno.ENOMEM):
            return True
        if type(seen).__name__ == "OutOfMemoryError" or any(said in str(seen) for said in _SAID):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def limited() -> bool:
    """Whether this process, and so what it starts, may use a part of the address space alone."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return any(limit != resource.RLIM_INFINITY for limit in limits)


class Kills:
    """The kernel's count of processes of this control group that it ended for want of memory.

    Each counts for one lost worker: one that somebody else has killed later is not taken for another.
    """

    def __init__(self, cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> None:
        self._files = [*_files(cgroups, own)]
        self._claimed = self._count()

    def claim(self) -> bool:
        """Whether there is one more than were claimed."""
        more = self._count() > self._claimed
        self._claimed += more
        return more

    def _count(self) -> int:
        for file in self._files:
            try:
                lines = file.read_text().splitlines()
                return next(int(line.removeprefix(_KILLS)) for line in lines if line.startswith(_KILLS))
            except (OSError, ValueError, StopIteration):
                continue
        return 0


def _files(cgroups: Path, own: Path) -> list[Path]:
    """Where the count may be: of version 1 if that has memory in its care, else of 2. A container may see no path."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    groups = {kind: path.lstrip("/") for _, kind, path in (line.split(":", 2) for line in lines if line.count(":") > 1)}
    if "memory" in groups:
        return [cgroups / "memory" / group / "memory.oom_control" for group in (groups["memory"], "")]
    return [cgroups / group / "memory.events" for group in (groups.get("", ""), "")]


def ended(status: int, kills: Kills, *, by_us: bool, limit: bool) -> bool:
    """Whether a process that ended with this status did so for want of memory, as far as that can be known.

    `limit` says that it ran under a limit of its address space, under which libraries end hard.
    """
    if status == EXIT_STATUS:
        return True
    if status == -signal.SIGKILL:
        return not by_us and kills.claim()
    return limit and status in _HARD_ENDS

"""Detection of memory shortage: exceptions of programs, and the kernel's count of OOM kills."""

import errno
import resource
import signal
from pathlib import Path

EXIT_STATUS = 75  # of a worker that exits because memory ran out
_KILLS = "oom_kill "  # prefix of a line in either file below
_SAID = (
    "can't allocate memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
    "out of memory",
    "_STATUS_ALLOC_FAILED",  # CUDA libraries
)
_HARD_ENDS = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)  # of libraries that do not check the result of malloc


def lacked(error: BaseException) -> bool:
    """Return whether an exception, or one of its causes, reports a lack of memory."""
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
    """Return whether this process, and thus its children, has a limited address space or data segment."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return any(limit != resource.RLIM_INFINITY for limit in limits)


class Kills:
    """The kernel's count of OOM kills in this control group.

    Each kill accounts for one lost worker, so that a worker killed later by someone else is not counted as one.
    """

    def __init__(self, cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> None:
        self._files = [*_files(cgroups, own)]
        self._claimed = self._count()

    def claim(self) -> bool:
        """Return whether there is an unclaimed kill, and claim it."""
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
    """Return the candidate files of the count: cgroup v1 if it controls memory, else v2, with and without the path."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    groups = {kind: path.lstrip("/") for _, kind, path in (line.split(":", 2) for line in lines if line.count(":") > 1)}
    if "memory" in groups:
        return [cgroups / "memory" / group / "memory.oom_control" for group in (groups["memory"], "")]
    return [cgroups / group / "memory.events" for group in (groups.get("", ""), "")]


def ended(status: int, kills: Kills, *, by_us: bool, limit: bool) -> bool:
    """Return whether a process with this exit status ran out of memory, as far as can be known.

    `limit` says that it ran under a memory limit, under which libraries crash.
    """
    if status == EXIT_STATUS:
        return True
    if status == -signal.SIGKILL:
        return not by_us and kills.claim()
    return limit and status in _HARD_ENDS

"""The ends of workers: their causes, and who is to blame."""

import signal
from enum import Enum, StrEnum, auto

from vedette_server.pool import device, oom

_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)

_kills = oom.Kills()  # shared by all workers, because the kernel counts per group


class End(StrEnum):
    """The cause of a worker's end, as far as can be known."""

    OUT_OF_MEMORY = "out_of_memory"
    KILLED = "killed"  # by a signal from outside
    HUNG = "hung"  # made no progress
    DISMISSED = "dismissed"  # failed a golden image, or was otherwise distrusted
    DEVICE_FAILED = "device_failed"  # its GPU can no longer compute
    CRASHED = "crashed"


class Loss(Enum):
    """The way in which a worker ended during a job."""

    CRASHED = auto()  # crashed or hung: the job may be to blame
    OUT_OF_MEMORY = auto()  # the job or other memory use may be to blame
    KILLED = auto()  # by a signal from outside, or dismissed: the job is innocent
    MISUNDERSTOOD = auto()  # sent a message that the gateway cannot read: a bug


LOSSES = {
    End.OUT_OF_MEMORY: Loss.OUT_OF_MEMORY,
    End.KILLED: Loss.KILLED,
    End.HUNG: Loss.CRASHED,
    End.DISMISSED: Loss.KILLED,
    End.DEVICE_FAILED: Loss.CRASHED,
    End.CRASHED: Loss.CRASHED,
}


def lacked_memory(status: int, *, by_us: bool = False, limited: bool = False) -> bool:
    """Return whether a process of ours with this exit status ran out of memory; `limited` says that it had a limit."""
    return oom.ended(status, _kills, by_us=by_us, limit=limited or oom.limited())


class Ending:
    """The cause of one worker's end: whatever the gateway did to it, else what its exit status says."""

    def __init__(self, *, limited: bool) -> None:
        """`limited` says that the worker runs under a memory limit of its own."""
        self._limited = limited
        self._by_us: End | None = None
        self._cause: End | None = None  # once known

    def begin(self, why: End) -> None:
        """Note why the gateway is about to kill it; to hang weighs more than to be dismissed."""
        if self._by_us is not End.HUNG:
            self._by_us = why

    def cause(self, status: int) -> End:
        """Return the cause, given the exit status; repeated calls return the same."""
        if self._cause is None:
            self._cause = self._found(status)
        return self._cause

    def _found(self, status: int) -> End:
        if lacked_memory(status, by_us=self._by_us is not None, limited=self._limited):
            return End.OUT_OF_MEMORY
        if self._by_us:
            return self._by_us
        if status == device.EXIT_STATUS:
            return End.DEVICE_FAILED
        return End.KILLED if status in _FROM_OUTSIDE else End.CRASHED

"""Settings of a version's workers and queue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Settings of a version's workers and queue."""

    factory: str
    workers: int
    threads: int  # of each worker
    devices: Sequence[str]  # over which the workers are spread
    max_queued: int
    max_queued_bytes: int
    golden_seconds: float = 60.0  # between two proofs that a worker still sees; 0: only at its start
    hang_seconds: float = 60.0  # after which a worker that does nothing of what it has to do is replaced
    stuck_seconds: float = 30.0  # without an answer, after which a version that owes one is not ready
    memory_bytes: int | None = None  # that each worker may use; None: any
    violated: Callable[[Sequence[str]], None] | None = None  # told which invariants do not hold; None: never checked

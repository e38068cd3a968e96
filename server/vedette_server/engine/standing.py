"""The standing of a version: its state, the reason for it, and since when it owes an answer."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum

import structlog

from vedette_server.contract.loading import CHECKS, Check
from vedette_server.engine.ledger import Ledger
from vedette_server.engine.query import Monitor
from vedette_server.engine.settings import PoolSettings
from vedette_server.pool.pool import Pool
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()


class State(StrEnum):
    """State of a version."""

    LOADING = "loading"
    READY = "ready"
    UNAVAILABLE = "unavailable"


def why(check: Check) -> str:
    """Return why a version is unavailable, for callers: the failed check. Details are in the log."""
    return f"{check}: {CHECKS[check].meaning} The server's log says what was seen."


class Standing:
    """Tells of one version's state, from its workers and from what waits for them."""

    def __init__(
        self,
        model: ModelVersion,
        settings: PoolSettings,
        pool: Pool,
        ledger: Ledger,
        monitor: Monitor,
        changed: asyncio.Event,
    ) -> None:
        """`changed` is set whenever something may have changed."""
        self._model = model
        self._settings = settings
        self._pool = pool
        self._ledger = ledger
        self._monitor = monitor
        self._changed = changed
        self._clock = pool.clock
        self._owes_since: float | None = None  # monotonic; None: there is nothing to answer, or somebody to do it
        self.stuck = False  # it has answered nothing for too long, though it has something to answer

    @property
    def state(self) -> State:
        """The current state of this version."""
        if self._pool.workers:
            return State.READY
        return State.UNAVAILABLE if self._pool.last_failure else State.LOADING

    @property
    def reason(self) -> str:
        """The reason why it does not answer, for callers. Details are in the log."""
        match self.state:
            case State.READY:
                return ""
            case State.LOADING:
                return "its workers are loading or answering their golden images"
            case State.UNAVAILABLE:
                if check := self._pool.check:
                    return why(check)
                return "no worker came up, or all were lost; the server's log says why; they are being restarted"

    @property
    def refused(self) -> bool:
        """True if no worker starts because the model fails a check, so that waiting is futile."""
        return self._pool.check is not None and not self._pool.workers and self._pool.back_in is None

    @property
    def takes_queries(self) -> bool:
        """True if it answers, or soon will: lost workers are being replaced, and queries may wait."""
        return self._pool.back_in is not None

    def look(self) -> None:
        """Notice whether it has answered nothing for too long, as time alone tells."""
        silent = 0.0 if self._owes_since is None else self._clock() - self._owes_since
        if silent > self._settings.stuck_seconds and not self.stuck:
            log.error("stuck", model=self._model.name, version=self._model.version, seconds=round(silent, 1))
            self.stuck = True
            self._changed.set()

    def excuse(self) -> None:
        """Count from now on since when it answers nothing: this process was stopped, and has heard of no answer."""
        self._owes_since = None
        self.note()

    def answered(self) -> None:
        """A worker has answered, be it with a refusal; `note` counts from now on."""
        self._owes_since = None

    @property
    def _owes(self) -> bool:
        """True if something waits, or runs while no worker is free to answer anything else."""
        busy = {run.worker for run in self._ledger.running.values()}
        return bool(self._ledger.queue) or (bool(busy) and busy.issuperset(self._pool.workers))

    def note(self) -> None:
        """Something has changed: tell whoever wants to know."""
        if not (owes := self._owes):
            self._owes_since = None
        if self._owes_since is None:
            self.stuck = False
            self._owes_since = self._clock() if owes else None
        self._check(self._ledger.violations())
        self._changed.set()
        self._monitor.state(
            self._model,
            workers=len(self._pool.workers),
            wanted=self._settings.workers,
            queued=len(self._ledger.queue),
            running=len(self._ledger.running),
            restarts=self._pool.restarts,
        )
        self._monitor.lost(self._model, self._pool.losses)
        self._monitor.owes(self._model, self._owes_since)

    def stopped(self) -> None:
        """The last worker has ended: nothing may be left."""
        left = self._ledger.admitted - self._ledger.settled
        self._check([f"{left} items are not settled after the last worker has ended"] if left else [])

    def _check(self, violations: Sequence[str]) -> None:
        if violations and self._settings.violated:
            self._settings.violated(violations)

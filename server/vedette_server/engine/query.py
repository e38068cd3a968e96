"""Queries to the engine, and their outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Asked
from vedette_server.contract.refusal import Reason
from vedette_server.engine.queue import Flow, Priority
from vedette_server.explain.findings import Code, Finding
from vedette_server.repository.repository import ModelVersion
from vedette_server.repository.shelf import RefusedVersion

log = structlog.get_logger()

# What bounds the time of a request, in the words of a refusal.
CALLERS_LIMIT = "the deadline of the call"
SERVERS_LIMIT = "max_request_seconds of the server"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One image and what is asked about it."""

    model: str  # empty: the only one
    version: str  # empty: the newest that is ready
    image: SentImage
    asked: Asked
    seconds: float | None  # until the caller gives up; None: the server's own maximum
    flow: Flow = field(default_factory=Flow)  # of the caller
    priority: Priority = Priority.NORMAL
    source: str = ""  # the stream's id; empty: it comes by itself
    request_id: str = ""  # in the log
    captured: int | None = None  # nanoseconds since the epoch, of a stream's frame


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An answer, and where it came from."""

    answer: Answer
    model: ModelVersion
    queue_seconds: float
    total_seconds: float
    findings: tuple[Finding, ...] = ()  # the primary reason first, if it is empty
    source: str = ""  # as in `Query`
    request_id: str = ""  # the same
    age_seconds: float | None = None  # since a frame was captured


class Monitor(Protocol):
    """The listener that the engine reports to, and never hears back from."""

    def loaded(self, model: ModelVersion) -> None:
        """A version is served from now on."""

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more."""

    def answered(self, outcome: Outcome) -> None:
        """A query was answered."""

    def refused(self, model: str, version: str, reason: Reason) -> None:
        """A query was refused, or failed. `model` and `version` are empty where the query named none that is known."""

    def dropped(self, model: str, version: str, source: str, reason: str) -> None:
        """A frame was dropped by its stream's own policy."""

    def batch(self, model: ModelVersion, size: int) -> None:
        """So many images go to a worker at once."""

    def state(
        self, model: ModelVersion, *, workers: int, wanted: int, queued: int, running: int, restarts: int
    ) -> None:
        """The state of a version's pool and queue changed; `wanted` workers are there when all is well."""

    def owes(self, model: ModelVersion, since: float | None) -> None:
        """Since when a version answers nothing of what it has to answer, on the monotonic clock; None: all is well."""

    def lost(self, model: ModelVersion, causes: Mapping[str, int]) -> None:
        """Set the number of a version's workers that were lost or failed to start so far, by cause."""

    def set_aside(self, versions: Sequence[RefusedVersion]) -> None:
        """These versions cannot be served, and no others."""

    def suspected(self, model: ModelVersion, source: str, cause: str | None) -> None:
        """A source was looked into; None: nothing was found, or no longer."""

    def golden(self, model: ModelVersion, cause: Code | None) -> None:
        """A worker has answered the golden images; None: as it must."""

    def disagrees(self, model: ModelVersion, predecessor: ModelVersion, share: float) -> None:
        """A version misses that share of the objects on an earlier one's golden images, or takes them for others."""

    def streams(self, count: int) -> None:
        """Streams opened or closed; `count` are open."""


def unfailing(monitor: Monitor) -> Monitor:
    """The same monitor; where it raises, that is logged, and no answer is lost to it."""
    return cast("Monitor", _Unfailing(monitor))


class _Unfailing:
    """Passes every call on."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def __getattr__(self, name: str) -> Callable[..., None]:
        tell = getattr(self._monitor, name)

        def told(*args: object, **facts: object) -> None:
            try:
                tell(*args, **facts)
            except Exception:
                log.exception("monitor_failed", told=name)

        return told

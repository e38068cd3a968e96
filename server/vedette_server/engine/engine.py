"""The engine: everything that is served, and the one way in for a query."""

import asyncio
import time
from collections.abc import Sequence

from vedette_server.contract import convert
from vedette_server.contract.options import Options, resolve
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import Monitor, Outcome, Query
from vedette_server.engine.served import PoolSettings, ServedVersion, State
from vedette_server.pool.channel import SharedImage
from vedette_server.repository.repository import ModelVersion

_LINGER_SECONDS = 0.3  # without a new request, after which nobody seems to come any more


class Engine:
    """Admits queries, finds the version that answers them, and tells the monitor what became of each."""

    def __init__(
        self, models: Sequence[ModelVersion], settings: PoolSettings, monitor: Monitor, max_seconds: float
    ) -> None:
        self.changed = asyncio.Event()  # set whenever a version's state may have changed
        self._monitor = monitor
        self._max_seconds = max_seconds
        self._served = [ServedVersion(model, settings, monitor, self.changed) for model in models]
        self._in_flight = 0
        self._arrivals = 0
        self._draining = False

    def run(self) -> None:
        """Start every version's workers."""
        for version in self._served:
            version.run()

    @property
    def served(self) -> Sequence[ServedVersion]:
        """Every version, by name and number."""
        return self._served

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers, and the engine takes queries."""
        models = {version.model.name for version in self._served}
        answering = {version.model.name for version in self._served if version.state is State.READY}
        return models == answering and not self._draining

    def find(self, model: str, version: str) -> ServedVersion:
        """The version that a query names; the newest that is ready, or else the newest, where it names none.

        Raises `Refused`: MODEL_NAME_MISSING, MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND.
        """
        names = sorted({served.model.name for served in self._served})
        if not model and len(names) > 1:
            raise Refused(Reason.MODEL_NAME_MISSING, served=", ".join(names))
        versions = [served for served in self._served if served.model.name == (model or names[0])]
        if not versions:
            raise Refused(Reason.MODEL_NOT_FOUND, model=model, served=", ".join(names))
        if version:
            for served in versions:
                if str(served.model.version) == version:
                    return served
            numbers = ", ".join(str(served.model.version) for served in versions)
            raise Refused(Reason.MODEL_VERSION_NOT_FOUND, model=versions[0].model.name, version=version, served=numbers)
        ready = [served for served in versions if served.state is State.READY]
        return (ready or versions)[-1]

    async def detect(self, query: Query) -> Outcome:
        """Answer one query.

        Raises `Refused` for everything that is wrong with it or keeps it from being answered.
        """
        started = time.monotonic()
        served: ServedVersion | None = None
        self._in_flight += 1
        self._arrivals += 1
        try:
            served = self.find(query.model, query.version)
            options = self._admit(query, served)
            shared = SharedImage(query.data)
            try:
                answer, waited = await served.answer(query.image, shared, options, self._seconds(query))
            finally:
                shared.close()
        except Refused as refusal:
            known = (served.model.name, str(served.model.version)) if served else ("", "")
            self._monitor.refused(*known, refusal.reason)
            raise
        finally:
            self._in_flight -= 1
        outcome = Outcome(answer, served.model, waited, time.monotonic() - started)
        self._monitor.answered(outcome)
        return outcome

    def _admit(self, query: Query, served: ServedVersion) -> Options:
        """Check everything that can be checked without a worker; returns what a worker is to do."""
        if self._draining:
            raise Refused(Reason.SHUTTING_DOWN)
        if served.state is not State.READY:
            raise Refused(Reason.MODEL_NOT_READY, model=served.model.name, why=served.state_reason)
        contract = served.model.contract
        options = resolve(query.asked, contract)
        convert.check(query.image, query.data, contract)
        return options

    def _seconds(self, query: Query) -> float:
        return self._max_seconds if query.seconds is None else min(query.seconds, self._max_seconds)

    async def drain(self, seconds: float) -> bool:
        """Refuse what is new and wait for what was admitted; returns whether all of it was settled within `seconds`.

        It goes on refusing until callers have noticed: a request that reaches a transport while that closes is cut
        off without the status that tells its caller to try elsewhere.
        """
        self._draining = True
        self.changed.set()
        try:
            async with asyncio.timeout(seconds):
                seen = -1
                while self._in_flight or seen != self._arrivals:
                    seen = self._arrivals
                    await asyncio.sleep(_LINGER_SECONDS)
        except TimeoutError:
            return not self._in_flight
        return True

    async def stop(self) -> None:
        """End every worker."""
        await asyncio.gather(*(version.stop() for version in self._served))

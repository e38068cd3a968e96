"""The engine: everything that is served, and the one way in for a query."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TypeVar

import structlog

from vedette_server.contract import convert
from vedette_server.contract.options import AskedImage, resolve
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import CALLERS_LIMIT, SERVERS_LIMIT, Monitor, Outcome, Query, unfailing
from vedette_server.engine.queue import Item
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State, why
from vedette_server.engine.watcher import Watcher
from vedette_server.explain.diagnosis import Diagnosis
from vedette_server.pool.forkserver import Forkserver
from vedette_server.pool.pool import OVERSLEPT_SECONDS
from vedette_server.repository.repository import ModelVersion
from vedette_server.repository.shelf import RefusedVersion

log = structlog.get_logger()

T = TypeVar("T")
_LOOK_SECONDS = 1.0  # between two looks at what time alone changes
_LINGER_SECONDS = 0.3  # without a new request, after which nobody seems to come any more


class Engine:
    """Finds the version that answers a query, and tells the monitor what became of each.

    It is long because it is the one way in: what comes and goes, who is found and what is drained are of one list.
    """

    def __init__(
        self,
        settings: PoolSettings,
        monitor: Monitor,
        watcher: Watcher,
        max_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changed = asyncio.Event()  # set whenever a version's state may have changed
        self.max_seconds = max_seconds  # that a request may take
        self.clock = clock  # monotonic; of deadlines, and of everything that hangs or is late
        self.monitor = unfailing(monitor)
        self._settings = settings
        self._forkserver = Forkserver(settings.factory, settings.memory_bytes)
        self._watcher = watcher
        self._served: list[ServedVersion] = []
        self.refused: Sequence[RefusedVersion] = ()
        self._going: list[ServedVersion] = []  # being unloaded
        self._in_flight = 0
        self._arrivals = 0
        self.holders: set[Callable[[], int]] = set()  # of open streams: the bytes that each holds back
        self.held = 0  # bytes of frames that were read, and for which there is no room yet
        self.stopping = asyncio.Event()  # set from the drain on

    def load(self, model: ModelVersion) -> ServedVersion:
        """Start serving a version, in processes of its own."""
        before = [
            one.model for one in self._served if one.model.name == model.name and one.model.version < model.version
        ]
        predecessor = before[-1] if before else None
        served = ServedVersion(
            model, self._settings, self._forkserver, self.monitor, self.changed, self.clock, predecessor
        )
        self._served = sorted([*self._served, served], key=lambda one: (one.model.name, one.model.version))
        self.monitor.loaded(model)
        served.run()
        return served

    def replace(self, models: Sequence[ModelVersion]) -> list[ServedVersion]:
        """Load what is new among `models`; returns what is served, is not among them and can be missed by now.

        A version can be missed when its model has another that answers, or has none left among `models`. One that
        comes back while it is being unloaded is left for a later call: the monitor could not tell the two apart.
        """
        wanted = {(model.name, model.version): model for model in models}
        loaded = {(one.model.name, one.model.version) for one in (*self._served, *self._going)}
        for key in sorted(set(wanted) - loaded):
            self.load(wanted[key])
        names = {model.name for model in models}
        answering = {
            one.model.name
            for one in self._served
            if (one.model.name, one.model.version) in wanted and one.standing.state is State.READY
        }
        gone = [one for one in self._served if (one.model.name, one.model.version) not in wanted]
        return [one for one in gone if one.model.name in answering or one.model.name not in names]

    async def unload(self, served: ServedVersion) -> None:
        """Stop serving a version: nothing new reaches it, what it was given is answered, then its processes end."""
        self._served.remove(served)
        self._going.append(served)
        self._watcher.unloaded(served.model)
        self.changed.set()
        await served.drain()
        await served.stop()
        self.monitor.unloaded(served.model)
        self._going.remove(served)

    @property
    def served(self) -> Sequence[ServedVersion]:
        """Every version, by name and number."""
        return self._served

    def set_aside(self, refused: Sequence[RefusedVersion]) -> None:
        """Tell of the versions that cannot be served, as all that there are."""
        self.refused = refused
        self.monitor.set_aside(refused)

    @property
    def held_bytes(self) -> int:
        """The bytes of the images that wait or run, or are held by their streams."""
        return (
            self.held
            + sum(held() for held in self.holders)
            + sum(version.scheduler.held_bytes for version in self._served)
        )

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes of a frame that was read, and for which there is no room yet."""
        self.held += size
        try:
            yield
        finally:
            self.held -= size

    @property
    def ready(self) -> bool:
        """True if every model has a version that answers, and the engine takes queries.

        One that does not pass a check is not waited for, as long as another model answers.
        """
        models = {version.model.name for version in self._served if not version.standing.refused}
        answering = {
            one.model.name for one in self._served if one.standing.state is State.READY and not one.standing.stuck
        }
        return bool(models) and models == answering and not self.draining

    @property
    def draining(self) -> bool:
        """True once no new queries are taken."""
        return self.stopping.is_set()

    async def watch(self) -> None:
        """Have it noticed which versions get stuck, until cancelled."""
        while True:
            due = self.clock() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            overslept = self.clock() > due + OVERSLEPT_SECONDS
            for served in self._served:
                served.standing.excuse() if overslept else served.standing.look()

    def look_up(self, model: str, version: str) -> ServedVersion | RefusedVersion:
        """The same as `find`, or the version that cannot be served. Raises `Refused`, but for MODEL_NOT_READY."""
        try:
            return self.find(model, version)
        except Refused:
            if refused := self._refused(model, version):
                return refused
            raise

    def _refused(self, model: str, version: str) -> RefusedVersion | None:
        """The newest refused version that is meant; None: a served one is, or none."""
        if not version and any(served.model.name == model for served in self._served):
            return None
        meant = [one for one in self.refused if one.name == model and version in ("", str(one.version))]
        return meant[-1] if meant else None

    def find(self, model: str, version: str) -> ServedVersion:
        """The version that a query names; the newest that is ready, or else the newest, where it names none.

        Raises `Refused`: MODEL_NAME_MISSING, MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, MODEL_NOT_READY for one that
        cannot be served.
        """
        if refused := self._refused(model, version):
            raise Refused(Reason.MODEL_NOT_READY, model=model, why=why(refused.reason.check))
        names = sorted({served.model.name for served in self._served})
        if not model and len(names) != 1:
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
        ready = [served for served in versions if served.standing.state is State.READY]
        return (ready or versions)[-1]

    async def detect(self, query: Query) -> Outcome:
        """Answer one query.

        Raises `Refused` for everything that is wrong with it or keeps it from being answered.
        """
        started = self.clock()
        with self.underway(query.model, query.version):
            seconds = self.max_seconds if query.seconds is None else min(query.seconds, self.max_seconds)
            served, item = self.item(query, started + seconds)
            served.scheduler.admit(item)
            return await self.outcome(served, item, started)

    @contextlib.contextmanager
    def underway(self, model: str, version: str) -> Iterator[None]:
        """Count a query as under way, so that a drain waits for it, and tell the monitor if it is refused."""
        self._in_flight += 1
        self._arrivals += 1
        try:
            yield
        except Refused as refusal:
            self.count(refusal, model, version)
            raise
        finally:
            self._in_flight -= 1

    def count(self, refusal: Refused, model: str, version: str) -> None:
        """Count a refusal of an image for this model."""
        self.monitor.refused(*self._known(model, version), refusal.reason)

    def _known(self, model: str, version: str) -> tuple[str, str]:
        """The name and version that a query means; both empty where it names none that is served."""
        try:
            found = self.find(model, version).model
        except Refused:
            return "", ""
        return found.name, str(found.version)

    def item(self, query: Query, deadline: float) -> tuple[ServedVersion, Item]:
        """Check everything that can be checked without a worker; returns what a worker is to do. Raises `Refused`."""
        served = self.find(query.model, query.version)
        if self.draining:
            raise Refused(Reason.SHUTTING_DOWN)
        if not served.standing.takes_queries:
            raise Refused(Reason.MODEL_NOT_READY, model=served.model.name, why=served.standing.reason)
        contract = served.model.contract
        options = resolve(query.asked, contract)
        size = convert.check(query.image, contract)
        callers = query.seconds is not None and query.seconds < self.max_seconds
        item = Item(
            image=query.image,
            options=options,
            size=size,
            flow=query.flow,
            priority=query.priority,
            deadline=deadline,
            source=query.source,
            request_id=query.request_id,
            captured=query.captured,
            limit=CALLERS_LIMIT if callers else SERVERS_LIMIT,
            queued=self.clock(),
        )
        return served, item

    async def outcome(self, served: ServedVersion, item: Item, started: float) -> Outcome:
        """Wait for an item's answer, until its deadline. Raises `Refused`."""
        try:
            async with asyncio.timeout(None if math.isinf(item.deadline) else item.deadline - self.clock()):
                answer = await item.answer
        except TimeoutError:
            raise item.late() from None
        now = self.clock()
        findings = self._watcher.see(served, item.source, AskedImage(item.image, item.options), answer)
        outcome = Outcome(
            answer=answer,
            model=served.model,
            queue_seconds=(item.started or now) - item.queued,
            total_seconds=now - started,
            findings=findings,
            source=item.source,
            request_id=item.request_id,
            age_seconds=None if item.captured is None else max(0.0, (time.time_ns() - item.captured) / 1e9),
        )
        self.monitor.answered(outcome)
        return outcome

    async def drain(self, seconds: float) -> bool:
        """Refuse what is new and wait for what was admitted; returns whether all of it was settled within `seconds`.

        It goes on refusing until callers have noticed: a request that reaches a transport while that closes is cut
        off without the status that tells its caller to try elsewhere.
        """
        self.stopping.set()
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

    async def diagnose(self, query: Query, *, sampled: bool) -> tuple[Diagnosis, ModelVersion]:
        """Have it found out why a query's image gives nothing, as `Watcher.diagnose` says. Raises `Refused`."""
        served = self.find(query.model, query.version)
        return await self._unless_stopping(self._watcher.diagnose(served, query, sampled=sampled)), served.model

    async def _unless_stopping(self, work: Coroutine[None, None, T]) -> T:
        """Wait for what may take longer than a drain. Raises `Refused`: SHUTTING_DOWN."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Refused(Reason.SHUTTING_DOWN)
            return task.result()
        finally:
            task.cancel()
            stop.cancel()

    def dump(self) -> None:
        """Have every worker write its stacks to stderr."""
        for served in self._served:
            served.dump()

    async def stop(self) -> None:
        """End every worker."""
        await self._watcher.stop()
        await asyncio.gather(*(version.stop() for version in self._served))
        await self._forkserver.stop()

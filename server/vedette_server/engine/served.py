"""One model version in service: its workers, and who schedules, proves and tells of them."""

import asyncio
import math
from collections.abc import Callable

import structlog

from vedette_server.contract import convert
from vedette_server.contract.answer import Answer
from vedette_server.contract.options import AskedImage
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.estimate import Estimate
from vedette_server.engine.ledger import Ledger
from vedette_server.engine.proofs import Proofs
from vedette_server.engine.query import Monitor
from vedette_server.engine.queue import Flow, Item, Priority
from vedette_server.engine.scheduler import Scheduler
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import Standing, State
from vedette_server.explain.usual import Usual
from vedette_server.pool.forkserver import Forkserver
from vedette_server.pool.messages import Start
from vedette_server.pool.pool import Pool
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()


class ServedVersion:
    """Puts one version together, and starts and stops it."""

    def __init__(
        self,
        model: ModelVersion,
        settings: PoolSettings,
        forkserver: Forkserver,
        monitor: Monitor,
        changed: asyncio.Event,
        clock: Callable[[], float],
        predecessor: ModelVersion | None = None,
    ) -> None:
        """`predecessor` is the version before, whose golden images are answered too, for comparison."""
        self.model = model
        starts = [
            Start(settings.factory, str(model.folder), model.contract, device, settings.threads)
            for index in range(settings.workers)
            for device in [settings.devices[index % len(settings.devices)]]
        ]
        ledger, estimate = Ledger(), Estimate(model.contract.resize)
        self.proofs = Proofs(model, predecessor, settings.golden_seconds, estimate, monitor, clock)
        probation, vigil = self.proofs.probation, self.proofs.vigil
        pool = Pool(starts, forkserver, settings.hang_seconds, probation, vigil, self._note, clock)
        self.standing = Standing(model, settings, pool, ledger, monitor, changed)
        self.scheduler = Scheduler(model, settings, pool, ledger, estimate, self.standing, monitor, self._note)
        self._pool = pool
        self._ledger = ledger
        self._aside = Flow()  # of what is inferred after all traffic

    def _note(self) -> None:
        """Something has changed: go on with what can go on, and tell whoever wants to know."""
        self.scheduler.dispatch()
        self.standing.note()

    def run(self) -> None:
        """Start the workers."""
        if waivers := self.model.contract.waivers:
            log.warning("checks_waived", model=self.model.name, version=self.model.version, waivers=waivers)
        self._pool.run()
        self._note()

    @property
    def golden_failing(self) -> str:
        """Waived failures of the golden images when they were last answered; empty if there are none."""
        return self.proofs.failing(self._pool.workers)

    @property
    def usual(self) -> Usual:
        """The normal range, by the golden images and the version's baseline."""
        return self.proofs.usual

    @property
    def workers(self) -> int:
        """The number of workers when all is well."""
        return self.scheduler.workers

    @property
    def last_traffic(self) -> float:
        """Time of the last arrival other than a diagnosis, on the monotonic clock."""
        return self.scheduler.last_traffic

    async def infer_aside(self, asked: AskedImage) -> Answer:
        """Infer an image after all traffic. Raises `Refused`, also MODEL_NOT_READY."""
        size = convert.check(asked.image, self.model.contract)
        if self.standing.state is not State.READY:
            raise Refused(Reason.MODEL_NOT_READY, model=self.model.name, why=self.standing.reason)
        item = Item(
            image=asked.image,
            options=asked.options,
            size=size,
            flow=self._aside,
            priority=Priority.LOW,
            deadline=math.inf,
        )
        self.scheduler.put(item)
        return await item.answer

    @property
    def pids(self) -> list[int]:
        """The processes in rotation."""
        return [worker.pid for worker in self._pool.workers]

    @property
    def running_pids(self) -> list[int]:
        """The processes that infer something now."""
        return [worker.pid for worker in self._pool.workers if worker.batches]

    @property
    def restarts(self) -> int:
        """The number of replaced workers."""
        return self._pool.restarts

    def dump(self) -> None:
        """Have every worker write its stacks to stderr."""
        for worker in self._pool.workers:
            worker.dump()

    async def drain(self) -> None:
        """Wait until everything that was taken is answered."""
        await self._ledger.empty.wait()

    async def stop(self) -> None:
        """End the workers; whoever still waits is told to try elsewhere."""
        self.scheduler.give_up()
        await self._pool.stop()
        self.standing.stopped()

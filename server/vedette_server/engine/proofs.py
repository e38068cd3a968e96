"""The golden images of one version: its workers prove by them that they see, before they serve and while they do."""

import asyncio
import weakref
from collections.abc import Callable, Iterable

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.files import declare
from vedette_server.contract.loading import Check, LoadRefusedError, refuse
from vedette_server.contract.options import defaults
from vedette_server.contract.refusal import Refused
from vedette_server.engine.estimate import Estimate
from vedette_server.engine.golden_answers import GoldenAnswers
from vedette_server.engine.query import Monitor
from vedette_server.explain.findings import Code
from vedette_server.explain.usual import Usual
from vedette_server.pool.pool import ProbationError
from vedette_server.pool.process import Worker, WorkerBugError, WorkerLostError
from vedette_server.repository.golden import Golden, agreed
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()

_IDLE_SECONDS = 0.02  # between two looks whether a worker is idle


class Proofs:
    """Has workers answer the golden images, and tells what they showed."""

    def __init__(
        self,
        model: ModelVersion,
        predecessor: ModelVersion | None,
        seconds: float,
        estimate: Estimate,
        monitor: Monitor,
        clock: Callable[[], float],
    ) -> None:
        """`seconds` lie between two proofs of a worker that serves; 0: it gives none but the first.

        `predecessor` is the version before, whose golden images are answered too, for comparison.
        """
        self._model = model
        self._predecessor = predecessor  # None also once it was compared with
        self._seconds = seconds
        self._estimate = estimate
        self._monitor = monitor
        self._clock = clock
        # What they showed last, where it is waived that this must be nothing.
        self._failing: weakref.WeakKeyDictionary[Worker, str] = weakref.WeakKeyDictionary()
        self.usual = Usual()  # what they and the version's baseline show

    def failing(self, workers: Iterable[Worker]) -> str:
        """Failures of the golden images when these workers last answered them; empty if there are none."""
        return next(filter(None, map(self._failing.get, workers)), "")

    async def probation(self, worker: Worker) -> None:
        """Let a new worker prove that it sees before it serves."""
        if not self._model.golden:
            log.warning("no_golden_images", model=self._model.name, version=self._model.version)
        await self._answer_golden(worker)
        if predecessor := self._predecessor:
            self._predecessor = None
            await self._compare_with(predecessor, worker)
        log.info("worker_ready", model=self._model.name, version=self._model.version, pid=worker.pid)

    async def vigil(self, worker: Worker) -> None:
        """Let a worker that serves prove it again and again; what no longer sees is replaced."""
        try:
            while self._seconds:
                await asyncio.sleep(self._seconds)
                await self._answer_golden(worker)
        except ProbationError as error:
            if worker.alive:
                log.error("worker_fails_golden", pid=worker.pid, error=str(error))  # noqa: TRY400  a reason, not a bug
                worker.dismiss()

    async def _until_idle(self, worker: Worker) -> None:
        """Wait until a worker has nothing else to do; if that takes too long, until it has room."""
        patience = self._clock() + self._seconds

        def ready() -> bool:
            return not worker.alive or (worker.room and (self._clock() > patience or not worker.batches))

        while not ready():  # noqa: ASYNC110  workers tell when they have room, and not when time has passed
            await asyncio.sleep(_IDLE_SECONDS)

    async def _answer_golden(self, worker: Worker) -> None:
        """Have a worker answer the golden images, through the same channel as everything else.

        Nothing of it is told to the monitor as traffic. Raises `ProbationError`, unless GOLDEN_CHANGED is waived.
        """
        answers = GoldenAnswers(self._model)
        for golden in self._model.golden:
            await self._until_idle(worker)
            answer = await self._answer_one(golden, worker)
            if wrong := answers.see(golden, answer):
                self._golden_changed(wrong, answers.cause)
            if golden is self._model.golden[-1]:  # the first ones warm the model up
                self._estimate.learn_from(answer)
        self._failing[worker] = answers.failing
        self.usual = answers.usual()
        if self._model.golden:
            self._monitor.golden(self._model, answers.cause)

    async def _answer_one(self, golden: Golden, worker: Worker) -> Answer:
        """Have a worker answer one golden image. Raises `ProbationError`."""
        try:
            return await worker.predict(declare(golden.data, self._model.contract), defaults(self._model.contract))
        except (Refused, WorkerBugError, WorkerLostError) as error:
            msg = f"golden image {golden.name} was not answered: {error}"
            raise ProbationError(msg) from error

    async def _compare_with(self, predecessor: ModelVersion, worker: Worker) -> None:
        """Tell how far this version agrees with the one before: a wrong class order shows before any traffic comes."""
        names, its = predecessor.contract.class_names, self._model.contract.class_names
        found = expected = 0
        for golden in predecessor.golden:
            try:
                answer = await self._answer_one(golden, worker)
            except ProbationError as error:
                if not worker.alive:
                    raise
                # It need not take what the one before took.
                log.warning("not_compared", model=self._model.name, version=self._model.version, why=str(error))
            else:
                found += agreed(golden, names, answer, its)
                expected += len(golden.objects)
        if not expected:
            return
        share = 1 - found / expected
        log.info(
            "compared", model=self._model.name, version=self._model.version, with_=predecessor.version, differs=share
        )
        self._monitor.disagrees(self._model, predecessor, share)

    def _golden_changed(self, wrong: str, cause: Code | None) -> None:
        try:
            refuse(Check.GOLDEN_CHANGED, wrong, self._model.contract.waivers)
        except LoadRefusedError as error:
            self._monitor.golden(self._model, cause)
            raise ProbationError(str(error), error.check) from error
        log.warning("golden_changed_and_waived", model=self._model.name, version=self._model.version, seen=wrong)

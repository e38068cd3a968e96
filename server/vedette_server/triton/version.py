"""The model of an instance: it answers requests, proves again and again that it sees, and can be looked into."""

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from vedette_server.contract import convert
from vedette_server.contract.answer import Answer
from vedette_server.contract.files import declare
from vedette_server.contract.image import SentImage
from vedette_server.contract.loading import Check
from vedette_server.contract.options import AskedImage, Options, defaults
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.golden_answers import GoldenAnswers
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import ModelVersion

log = structlog.get_logger()

_GAP_SECONDS = 0.005  # before each inference that no request asked for, so that requests go first


class ExportedVersion:
    """A version with its predictor, on one event loop: what is inferred waits for what is being inferred."""

    workers = 1

    def __init__(self, model: ModelVersion, predict: Callable[[SentImage, Options], Answer], metrics: Metrics) -> None:
        """`predict` is that of its predictor."""
        self.model = model
        self._predict = predict
        self._metrics = metrics
        self._blind = ""  # why it does not answer
        self.last_traffic = -math.inf
        self.prove(GoldenAnswers(model))

    def infer(self, asked: AskedImage) -> Answer:
        """Infer an image of a request, as the engine and its workers do.

        Raises `Refused`, also MODEL_NOT_READY while it fails its golden images.
        """
        convert.check(asked.image, self.model.contract)
        if self._blind:
            raise Refused(Reason.MODEL_NOT_READY, model=self.model.name, why=self._blind)
        self.last_traffic = time.monotonic()
        return self._predict(asked.image, asked.options)

    async def infer_aside(self, asked: AskedImage) -> Answer:
        """Infer an image after all requests that have arrived. Raises `Refused`."""
        await asyncio.sleep(_GAP_SECONDS)
        return self._predict(asked.image, asked.options)

    def prove(self, answers: GoldenAnswers) -> None:
        """Take note of its answers to the golden images."""
        self.golden_failing, self.usual = answers.failing, answers.usual()
        waived = Check.GOLDEN_CHANGED in self.model.contract.waivers
        failing = answers.failing and not waived
        self._blind = f"it fails its golden images: {answers.failing}" if failing else ""

    async def vigil(self, seconds: float) -> None:
        """Answer the golden images every so many seconds; while they fail, requests are refused. 0: never."""
        while seconds:
            await asyncio.sleep(seconds)
            answers = GoldenAnswers(self.model)
            try:
                for golden in self.model.golden:
                    image = declare(golden.data, self.model.contract)
                    answers.see(golden, await self.infer_aside(AskedImage(image, defaults(self.model.contract))))
            except Exception:
                log.exception("golden_not_answered")
                answers.fail("a golden image was not answered; the log says why")
            self.prove(answers)
            self._metrics.golden(self.model, answers.cause)
            if answers.failing:
                log.error("instance_fails_golden", error=answers.failing)

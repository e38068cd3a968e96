"""Diagnose an image: infer it as it would look had each known mistake been made and undone, and rank what helps."""

import asyncio

import msgspec

from vedette_server.contract import convert
from vedette_server.contract.contract import Output
from vedette_server.contract.mistakes import Mistake, applicable
from vedette_server.contract.options import AskedImage
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import CALLERS_LIMIT
from vedette_server.explain.diagnosis import Candidate, Diagnosis, rank
from vedette_server.explain.explain import Context, explain, values
from vedette_server.watch.budget import Budget
from vedette_server.watch.watched import Watched

_OUTPUTS = Output.BOXES, Output.ROTATED_BOXES  # all that a diagnosis looks at
_MOST_WAITING = 4  # diagnoses asked for by callers that wait for their turn


class Diagnostician:
    """Diagnoses one image at a time, after all traffic and within a budget."""

    def __init__(self, share: float) -> None:
        self._budget = Budget(share)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def diagnose(self, served: Watched, sample: AskedImage, *, thumbnails: bool) -> Diagnosis:
        """Try everything that can have gone wrong with an image.

        Raises `Refused` for what `convert.check` and decoding find, MODEL_NOT_READY, OVERLOADED.
        """
        if self._waiting >= _MOST_WAITING:
            raise Refused(
                Reason.OVERLOADED,
                model=served.model.name,
                queued=self._waiting,
                expected="many",
                left="few",
                limit=CALLERS_LIMIT,
                retry_seconds="10",
            )
        self._waiting += 1
        try:
            async with self._turn:
                return await self._diagnose(served, sample, thumbnails=thumbnails)
        finally:
            self._waiting -= 1

    async def _diagnose(self, served: Watched, sample: AskedImage, *, thumbnails: bool) -> Diagnosis:
        convert.check(sample.image, served.model.contract)
        as_sent = await self.try_one(served, sample, Mistake.NONE, thumbnail=thumbnails)
        contract, answer = served.model.contract, as_sent.answer
        assert answer.pixels is not None  # noqa: S101  workers observe
        mistakes = applicable(answer.pixels, (answer.height, answer.width), contract, sample.options.threshold)
        tried = [await self.try_one(served, sample, mistake, thumbnail=thumbnails) for mistake in mistakes]
        context = Context(golden_failing=served.golden_failing, values=values(answer.pixels, None), usual=served.usual)
        findings = explain(answer, contract, context)
        return Diagnosis(as_sent, rank(as_sent, tried, findings), findings)

    async def try_one(
        self, served: Watched, sample: AskedImage, mistake: Mistake, *, thumbnail: bool = False
    ) -> Candidate:
        """Infer an image with one mistake undone, when the budget allows it. Raises `Refused`."""
        options = msgspec.structs.replace(sample.options, outputs=_OUTPUTS, undo=mistake, thumbnail=thumbnail)
        if mistake is Mistake.THRESHOLD:
            options = msgspec.structs.replace(options, threshold=served.model.contract.floor)
        await self._budget.turn(served)
        answer = await served.infer_aside(AskedImage(sample.image, options))
        self._budget.spend(served, answer.times.total)
        return Candidate(mistake, answer)

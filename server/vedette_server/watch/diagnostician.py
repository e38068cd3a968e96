"""Diagnose an image: infer it as it would look had each known mistake been made and undone, and rank what helps."""

import asyncio
import time
from dataclasses import dataclass

import msgspec

from vedette_server.contract import convert
from vedette_server.contract.contract import Output
from vedette_server.contract.image import SentImage
from vedette_server.contract.mistakes import Mistake, applicable
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import CALLERS_LIMIT
from vedette_server.engine.queue import Flow, Item, Priority
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.standing import State
from vedette_server.explain.diagnosis import Candidate, Diagnosis, rank
from vedette_server.explain.explain import Context, explain, values
from vedette_server.watch.budget import Budget

_OUTPUTS = Output.BOXES, Output.ROTATED_BOXES  # all that a diagnosis looks at
_MOST_WAITING = 4  # diagnoses asked for by callers that wait for their turn


@dataclass(frozen=True)
class AskedImage:
    """An image and what was asked about it."""

    image: SentImage
    options: Options


class Diagnostician:
    """Diagnoses one image at a time, after all traffic and within a budget."""

    def __init__(self, share: float) -> None:
        self._budget = Budget(share)
        self._flow = Flow()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def diagnose(self, served: ServedVersion, sample: AskedImage, *, thumbnails: bool) -> Diagnosis:
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

    async def _diagnose(self, served: ServedVersion, sample: AskedImage, *, thumbnails: bool) -> Diagnosis:
        as_sent = await self.try_one(served, sample, Mistake.NONE, thumbnail=thumbnails)
        contract, answer = served.model.contract, as_sent.answer
        assert answer.pixels is not None  # noqa: S101  workers observe
        mistakes = applicable(answer.pixels, (answer.height, answer.width), contract, sample.options.threshold)
        tried = [await self.try_one(served, sample, mistake, thumbnail=thumbnails) for mistake in mistakes]
        context = Context(
            golden_failing=served.golden_failing, values=values(answer.pixels, None), usual=served.proofs.usual
        )
        findings = explain(answer, contract, context)
        return Diagnosis(as_sent, rank(as_sent, tried, findings), findings)

    async def try_one(
        self, served: ServedVersion, sample: AskedImage, mistake: Mistake, *, thumbnail: bool = False
    ) -> Candidate:
        """Infer an image with one mistake undone, when the budget allows it. Raises `Refused`."""
        options = msgspec.structs.replace(sample.options, outputs=_OUTPUTS, undo=mistake, thumbnail=thumbnail)
        if mistake is Mistake.THRESHOLD:
            options = msgspec.structs.replace(options, threshold=served.model.contract.floor)
        size = convert.check(sample.image, served.model.contract)
        await self._budget.turn(served.scheduler)
        if served.standing.state is not State.READY:
            raise Refused(Reason.MODEL_NOT_READY, model=served.model.name, why=served.standing.reason)
        item = Item(
            image=sample.image,
            options=options,
            size=size,
            flow=self._flow,
            priority=Priority.LOW,
            deadline=float("inf"),
        )
        served.scheduler.put(item)
        answer = await item.answer
        self._budget.spend(served.scheduler, time.monotonic() - (item.started or time.monotonic()))
        return Candidate(mistake, answer)

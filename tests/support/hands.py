"""A scheduler on a clock that stands still, with workers that answer when a test tells them to."""

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
from vedette_server.contract.contract import ImageLimits
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.mistakes import Mistake
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Refused
from vedette_server.engine.estimate import Estimate
from vedette_server.engine.ledger import Ledger
from vedette_server.engine.queue import Flow, Item, Priority
from vedette_server.engine.scheduler import Scheduler
from vedette_server.engine.standing import Standing
from vedette_server.pool.pool import Pool
from vedette_server.pool.process import Worker
from vedette_server.repository.repository import ModelVersion

from tests.support.clocks import SetClock
from tests.support.contracts import contract
from tests.support.scripted import MODEL, SETTINGS, Silent

NOW = 100.0
SQUARE, WIDE = (10, 10), (10, 20)  # 800 x 800 and 667 x 1,333 to the model
LIMITED = dataclasses.replace(MODEL, contract=contract(limits=ImageLimits(max_bytes=100)))


class Hand:
    """A worker that has been given batches."""

    pid = 1

    def __init__(self, *, depth: int = 1, max_batch: int = 1, forked: float = 0.0) -> None:
        self.depth, self.max_batch, self.forked = depth, max_batch, forked
        self.given: list[list[asyncio.Future[Any]]] = []
        self.alone: list[bool] = []
        self.broken = False  # raises on the next batch

    @property
    def batches(self) -> int:
        return sum(not all(reply.done() for reply in batch) for batch in self.given)

    @property
    def room(self) -> bool:
        return self.batches < self.depth

    def has(self, _reply: object) -> bool:
        return True

    def submit(self, works: Sequence[object], *, alone: bool) -> list[asyncio.Future[Any]]:
        if self.broken:
            self.broken = False
            raise ValueError("no such slot")
        self.alone.append(alone)
        self.given.append([asyncio.get_running_loop().create_future() for _ in works])
        return self.given[-1]


class Counting(Silent):
    """A monitor that is told the sizes of batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch(self, model: ModelVersion, size: int) -> None:
        assert model.name == "test"
        self.batches.append(size)


class World:
    """A scheduler and all that it looks at."""

    def __init__(self, *hands: Hand, model: ModelVersion = MODEL, **settings: Any) -> None:
        self.clock, self.monitor, self.changes = SetClock(NOW), Counting(), 0
        none = cast("Any", None)  # nothing is started
        self.pool = Pool((), none, 60, none, none, lambda: None, self.clock.monotonic)
        self.pool.workers.extend(cast("list[Worker]", hands))
        self.ledger, self.estimate = Ledger(), Estimate(model.contract.resize)
        for size in (SQUARE, WIDE):
            self.estimate.learn(size, 2.0)
        limits = dataclasses.replace(SETTINGS, **settings)
        self.standing = Standing(model, limits, self.pool, self.ledger, self.monitor, asyncio.Event())
        terms = (model, limits, self.pool, self.ledger, self.estimate, self.standing, self.monitor, self._changed)
        self.scheduler = Scheduler(*terms)

    def _changed(self) -> None:
        self.changes += 1

    def put(self, *items: Item) -> None:
        for one in items:
            self.scheduler.put(one)
        self.scheduler.dispatch()
        assert not self.ledger.violations()

    def refusal(self, one: Item) -> Refused:
        with pytest.raises(Refused) as caught:
            self.scheduler.admit(one)
        assert one not in self.ledger.queue.items
        return caught.value


def item(
    deadline: float = math.inf, size: tuple[int, int] = SQUARE, *, data: int = 1, source: str = "", **more: Any
) -> Item:
    given = {"flow": Flow(), "priority": Priority.NORMAL, "queued": NOW, "limit": "the deadline", **more}
    options = given.pop("options", Options(0.5, ()))
    return Item(
        image=SentImage(EncodedImage(), bytes(data)),
        options=options,
        size=size,
        deadline=deadline,
        source=source,
        **given,
    )


def undoing() -> Item:
    """A diagnosis' image."""
    return item(options=Options(0.5, (), undo=Mistake.MIRRORED))

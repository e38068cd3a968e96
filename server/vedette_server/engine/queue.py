"""The queue of a version's workers, and its order.

Of those with the highest priority, next is who belongs to the flow that has been served least: streams and callers
take turns, weighted by the time that their images cost (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
Within a flow, and between flows that have been served alike, the earliest deadline comes first. What was lost with a
worker precedes everything.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.pool.ends import Loss


class Priority(IntEnum):
    """Scheduling priority."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(eq=False)
class Flow:
    """A stream or a connection, which takes turns with others. Flows of one owner share its turns in rotation."""

    served: float = 0.0  # up to which point in virtual time, in seconds of service
    owner: "Flow | None" = None
    now: float = 0.0  # of an owner: the virtual time among those that share its turns

    @property
    def payer(self) -> "Flow":
        """The flow that is charged for its images."""
        return self.owner or self


_numbers = itertools.count()


@dataclass(eq=False, kw_only=True)
class Item:
    """One image that waits, or is being answered."""

    image: SentImage
    options: Options
    size: tuple[int, int]  # height and width, as the header or the declaration says
    flow: Flow
    priority: Priority
    deadline: float  # on the monotonic clock; infinite for what is never too late
    source: str = ""  # the stream's id; empty: it came by itself
    request_id: str = ""  # in the log
    captured: int | None = None  # nanoseconds since the epoch, of a stream's frame
    limit: str = ""  # what has set the deadline, in the words of a refusal
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    cost: float = 0.0  # seconds of a worker that it will probably take
    queued: float = field(default_factory=time.monotonic)
    started: float | None = None  # when it was given to a worker
    losses: list[Loss] = field(default_factory=list)  # of workers that had it
    since: float = -math.inf  # on the monotonic clock: only workers forked after that may have it
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def lost(self) -> bool:
        """True if it was lost with a worker, so that it is retried alone."""
        return bool(self.losses)

    def late(self) -> Refused:
        """The refusal of an image that was not answered in time."""
        return Refused(Reason.DEADLINE_EXCEEDED, seconds=f"{self.deadline - self.queued:.3f}", limit=self.limit)


class Queue:
    """Items, by whose turn it is. Looked through from end to end: it is bounded, and short."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._now = 0.0  # the virtual time: where the flow was that was served last
        self.bytes = 0

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return len(self._items)

    def push(self, item: Item) -> None:
        """Add one."""
        self._items.append(item)
        self.bytes += len(item.image.data)

    def remove(self, item: Item) -> bool:
        """Take one out of its turn; returns whether it was waiting."""
        if item not in self._items:
            return False
        self._items.remove(item)
        self.bytes -= len(item.image.data)
        return True

    def next(self, forked: float = math.inf) -> Item | None:
        """Whose turn it is, left in the queue, where the youngest worker was forked then."""
        return min((item for item in self._items if item.since < forked), key=self._turn, default=None)

    def in_turn(self) -> list[Item]:
        """Everything, in the order of turns."""
        return sorted(self._items, key=self._turn)

    def _turn(self, item: Item) -> tuple[bool, int, tuple[float, float], float, int]:
        flow, owner = item.flow, item.flow.owner
        if owner is None:
            turn = max(self._now, flow.served), 0.0
        else:
            turn = max(self._now, owner.served), max(owner.now, flow.served)
        return not item.lost, -item.priority, turn, item.deadline, item.number

    def take(self, item: Item) -> None:
        """Take one out because it is served now, on its flow's account."""
        self.remove(item)
        flow, owner = item.flow, item.flow.owner
        if owner is not None:
            owner.now = max(owner.now, flow.served)
            flow.served = owner.now + item.cost
        self._now = max(self._now, flow.payer.served)
        flow.payer.served = self._now + item.cost

    def seconds_before(self, flow: Flow, priority: Priority) -> float:
        """The workers' time that goes before a newcomer: of each flow, what is due before the newcomer's own turn."""
        ahead = sum(item.cost for item in self._items if item.flow is flow)
        if flow.owner is not None:  # among those that share its owner's turns
            siblings = [item for item in self._items if item.flow.owner is flow.owner]
            turn = max(flow.owner.now, flow.served) + ahead
            due = _due(siblings, [item.flow for item in siblings], flow.owner.now)
            ahead = sum(item.cost for item, begins in due if begins <= turn)
        turn = max(self._now, flow.payer.served) + ahead
        return sum(
            item.cost
            for item, begins in _due(self._items, [item.flow.payer for item in self._items], self._now)
            if item.priority > priority or item.lost or (item.priority == priority and begins <= turn)
        )

    @property
    def singles(self) -> int:
        """The number of waiting items that belong to no stream."""
        return sum(not item.source for item in self._items)

    @property
    def items(self) -> list[Item]:
        """Everything that waits now, in the order in which it came."""
        return list(self._items)


def _due(items: Sequence[Item], flows: Sequence[Flow], now: float) -> Iterator[tuple[Item, float]]:
    """Each of some items, and where in virtual time it begins; `flows` are those that pay for them."""
    due: dict[int, float] = {}  # by flow, where its next image begins
    for item, flow in zip(items, flows, strict=True):
        begins = due.get(id(flow), max(now, flow.served))
        due[id(flow)] = begins + item.cost
        yield item, begins

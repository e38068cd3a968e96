"""What waits for a version's workers, and who is next.

Of those with the highest priority, next is who belongs to the flow that has been served least: streams and callers
take turns, weighted by the time that their images cost (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
Within a flow, and between flows that have been served alike, the earliest deadline comes first. What was lost with a
worker precedes everything.
"""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from enum import IntEnum

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import Buffer, ImageSpec
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.pool.process import Loss


class Priority(IntEnum):
    """What goes before what."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(eq=False)
class Flow:
    """Who takes turns with others: a stream, or a caller."""

    served: float = 0.0  # up to which point in virtual time, in seconds of service


_numbers = itertools.count()


@dataclass(eq=False)
class Item:
    """One image that waits, or is being answered."""

    spec: ImageSpec
    data: Buffer
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
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def lost(self) -> bool:
        """Whether it was lost with a worker, so that it is tried again, alone."""
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
        """How many wait."""
        return len(self._items)

    def push(self, item: Item) -> None:
        """Add one."""
        self._items.append(item)
        self.bytes += len(item.data)

    def remove(self, item: Item) -> bool:
        """Take one out of its turn; returns whether it was waiting."""
        if item not in self._items:
            return False
        self._items.remove(item)
        self.bytes -= len(item.data)
        return True

    def next(self) -> Item | None:
        """Whose turn it is, left in the queue."""
        return min(self._items, key=self._turn, default=None)

    def in_turn(self) -> list[Item]:
        """Everything, in the order of turns."""
        return sorted(self._items, key=self._turn)

    def _turn(self, item: Item) -> tuple[bool, int, float, float, int]:
        return not item.lost, -item.priority, max(self._now, item.flow.served), item.deadline, item.number

    def take(self, item: Item) -> None:
        """Take one out because it is served now, on its flow's account."""
        self.remove(item)
        self._now = max(self._now, item.flow.served)
        item.flow.served = self._now + item.cost

    def seconds_before(self, flow: Flow, priority: Priority) -> float:
        """The workers' time that goes before a newcomer: of each flow, what is due before the newcomer's own turn."""
        due: dict[int, float] = {}  # by flow, where in virtual time its next image begins
        ahead = sum(item.cost for item in self._items if item.flow is flow)
        turn = max(self._now, flow.served) + ahead
        seconds = 0.0
        for item in self._items:
            begins = due.get(id(item.flow), max(self._now, item.flow.served))
            due[id(item.flow)] = begins + item.cost
            if item.priority > priority or item.lost or (item.priority == priority and begins <= turn):
                seconds += item.cost
        return seconds

    @property
    def singles(self) -> int:
        """How many wait that belong to no stream."""
        return sum(not item.source for item in self._items)

    @property
    def items(self) -> list[Item]:
        """Everything that waits now, in the order in which it came."""
        return list(self._items)

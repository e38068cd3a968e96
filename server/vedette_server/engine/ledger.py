"""The ledger: it owns every admitted item of one model version until that item is settled.

An item waits, runs on a worker, or is settled, and only the ledger moves it from one to the next. Whatever raises on
the way, in a callback as well as in a call, settles the item as INTERNAL: no bug leaves a caller waiting.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.queue import Item, Queue
from vedette_server.pool.process import Worker

log = structlog.get_logger()


@dataclass(frozen=True)
class Run:
    """An item's run on a worker."""

    worker: Worker
    reply: asyncio.Future[Answer]  # the worker's; cancelled callers do not end it


class Ledger:
    """The items of one version: waiting in `queue`, or `running`, or settled."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.running: dict[Item, Run] = {}
        self.admitted = 0
        self.settled = 0
        self.empty = asyncio.Event()  # set while nothing waits and nothing runs
        self.empty.set()

    def admit(self, item: Item) -> None:
        """Take an item; it waits from now on."""
        self.queue.push(item)
        self.admitted += 1
        self.empty.clear()

    def run(self, item: Item, run: Run) -> None:
        """Move an item from the queue to the worker that has it."""
        self.queue.take(item)
        self.running[item] = run

    def retry(self, item: Item) -> None:
        """Let an item wait again after its worker was lost; one that nobody waits for is settled."""
        if item.answer.done():
            self._close(item)
        elif self.running.pop(item, None):
            item.started = None
            self.queue.push(item)

    def settle(self, item: Item, result: Answer | Refused) -> None:
        """End an item's way, and give its caller the result if the caller still waits. Settling twice does nothing."""
        if not self._close(item) or item.answer.done():
            return
        if isinstance(result, Refused):
            item.answer.set_exception(result)
        else:
            item.answer.set_result(result)

    def withdraw(self, item: Item) -> bool:
        """Settle an item that waits and whose caller has gone; returns whether it waited."""
        return item not in self.running and self._close(item)

    def _close(self, item: Item) -> bool:
        """Take an item off the books; returns whether it was on them."""
        if not self.running.pop(item, None) and not self.queue.remove(item):
            return False
        self.settled += 1
        if not self.queue and not self.running:
            self.empty.set()
        return True

    @contextlib.contextmanager
    def guarded(self, items: Sequence[Item]) -> Iterator[None]:
        """Settle `items` as INTERNAL if the block raises, and log why under their request ids. It must not await."""
        try:
            yield
        except (Exception, asyncio.CancelledError):
            log.exception("bug", request_ids=[item.request_id for item in items])
            for item in items:
                self.settle(item, Refused(Reason.INTERNAL))

    def violations(self) -> list[str]:
        """Return every violation of the ledger's invariants, one line each.

        admitted = settled + waiting + running, and each running item is under way at a worker that was sent it and
        whose end would be noticed, or has the worker's reply.
        """
        found = []
        waiting, running = len(self.queue), len(self.running)
        if self.admitted != self.settled + waiting + running:
            found.append(f"{self.admitted} admitted, {self.settled} settled, {waiting} waiting, {running} running")
        if self.empty.is_set() != (not waiting and not running):
            found.append(f"empty is {self.empty.is_set()} with {waiting} waiting and {running} running")
        found += [
            f"item {item.number} runs on worker {run.worker.pid}, which does not have it"
            for item, run in self.running.items()
            if not run.reply.done() and not run.worker.has(run.reply)
        ]
        return found

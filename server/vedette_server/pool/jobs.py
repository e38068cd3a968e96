"""The jobs in flight on one worker, and the slots that hold their images."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vedette_server.contract.answer import Answer
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Options
from vedette_server.pool.messages import Job
from vedette_server.pool.slots import Slot

DEPTH = 2  # unfinished batches per worker: one is inferred while the next is prepared
_MOST_BATCHES = 4  # in flight per worker, including those being encoded

Work: TypeAlias = tuple[SentImage, Options]


@dataclass(eq=False)
class _Underway:
    """A job in flight on a worker."""

    slot: int | None  # None: the model is done with it, and only encoding remains
    answer: asyncio.Future[Answer]
    batch: int


class Jobs:
    """The jobs of one worker, from the copy of their images until they are settled."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._underway: dict[int, _Underway] = {}
        self._slots: list[Slot] = []
        self._free: list[int] = []
        self._alone = False  # whether the current batch was lost with another worker before

    def __len__(self) -> int:
        """The number of jobs in flight."""
        return len(self._underway)

    @property
    def batches(self) -> int:
        """The number of batches whose inference is unfinished."""
        return len({job.batch for job in self._underway.values() if job.slot is not None})

    @property
    def room(self) -> bool:
        """True if another batch fits. A batch that was lost with another worker gets a worker to itself."""
        batches = self.batches
        behind = len({job.batch for job in self._underway.values()}) >= _MOST_BATCHES
        return not behind and (not batches or (batches < DEPTH and not self._alone))

    @contextlib.contextmanager
    def written(self, works: Sequence[Work]) -> Iterator[tuple[list[Job], list[int]]]:
        """Copy images into slots; gives the jobs, and the descriptors of new memory, to be sent within.

        If sending raises, the worker may not have received the memory, so that these slots get new memory.
        """
        numbers = [self._take() for _ in works]
        slots = [self._slots[number] for number in numbers]
        try:
            jobs = [self._job(number, work) for number, work in zip(numbers, works, strict=True)]
            yield jobs, [slot.fd for slot in slots if slot.fd is not None]
            for slot in slots:
                slot.given()
        except BaseException:
            for slot in slots:
                slot.close()
            self._free += numbers
            raise

    def _take(self) -> int:
        if not self._free:
            self._slots.append(Slot())
            return len(self._slots) - 1
        return self._free.pop()

    def _job(self, number: int, work: Work) -> Job:
        image, options = work
        fresh = self._slots[number].write(image.data)
        return Job(next(self._ids), number, len(image.data), fresh, image.spec, options)

    def add(self, jobs: Sequence[Job], *, alone: bool) -> list[asyncio.Future[Answer]]:
        """Count a batch that was sent as in flight; `alone` keeps other batches away meanwhile."""
        batch, self._alone = next(self._ids), alone
        sent = [_Underway(job.slot, asyncio.get_running_loop().create_future(), batch) for job in jobs]
        self._underway.update(zip((job.job_id for job in jobs), sent, strict=True))
        return [job.answer for job in sent]

    def has(self, answer: asyncio.Future[Answer]) -> bool:
        """Return whether this future's job is in flight."""
        return any(job.answer is answer for job in self._underway.values())

    def inferred(self, job_id: int) -> None:
        """The model is done with a job, whose slot can be used again."""
        if job := self._underway.get(job_id):
            self._give_back(job)

    def settle(self, job_id: int, result: Answer | Exception) -> None:
        """End a job."""
        job = self._underway.pop(job_id)
        self._give_back(job)
        if job.answer.done():
            return
        if isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        """End all jobs, with the same error."""
        for job_id in [*self._underway]:
            self.settle(job_id, error)

    def _give_back(self, job: _Underway) -> None:
        if job.slot is not None:
            self._free.append(job.slot)
            job.slot = None

    def close(self) -> None:
        """Release the memory of all slots."""
        for slot in self._slots:
            slot.close()

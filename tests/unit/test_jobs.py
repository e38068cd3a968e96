"""The jobs of one worker, and the cause of its end, without a worker."""

import contextlib
import os
import signal

import pytest
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import defaults
from vedette_server.pool import device, oom
from vedette_server.pool.channel import MessageTooLargeError
from vedette_server.pool.ends import End, Ending
from vedette_server.pool.jobs import DEPTH, Jobs

from tests.support.contracts import contract

WORK = SentImage(EncodedImage(), b"image"), defaults(contract())


def send(jobs: Jobs, *, alone: bool = False) -> int:
    """Put one image in flight; return its job's number."""
    with jobs.written([WORK]) as (batch, _):
        pass
    jobs.add(batch, alone=alone)
    return batch[0].job_id


async def test_a_worker_has_room_for_as_many_batches_as_are_not_inferred() -> None:
    jobs, rooms = Jobs(), []
    sent = [send(jobs) for _ in range(DEPTH)]
    rooms.append(jobs.room)
    jobs.inferred(sent[0])
    rooms.append(jobs.room)
    for number in [send(jobs), sent[1], send(jobs)]:
        jobs.inferred(number)
    rooms.append(jobs.room)
    assert rooms == [False, True, False], "at last, four are not encoded yet"
    assert jobs.batches == 0


async def test_a_batch_that_is_to_be_alone_is_alone() -> None:
    jobs, rooms = Jobs(), []
    number = send(jobs, alone=True)
    rooms.append(jobs.room)
    jobs.inferred(number)
    rooms.append(jobs.room)
    assert rooms == [False, True]


async def test_a_slot_is_used_again_once_its_image_is_inferred() -> None:
    jobs = Jobs()
    fresh = []
    for _ in range(2):
        with jobs.written([WORK]) as (batch, descriptors):
            fresh.append((batch[0].slot, batch[0].fresh, len(descriptors)))
        jobs.add(batch, alone=False)
        jobs.inferred(batch[0].job_id)
    assert fresh == [(0, True, 1), (0, False, 0)]
    jobs.close()


def unsent(jobs: Jobs) -> int:
    """Fail to send one image; return the descriptor of its memory."""
    with contextlib.suppress(MessageTooLargeError), jobs.written([WORK]) as (_, descriptors):
        raise MessageTooLargeError
    return descriptors[0]


async def test_a_slot_whose_message_was_not_sent_gets_new_memory() -> None:
    jobs = Jobs()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(unsent(jobs))
    assert len(jobs) == 0
    with jobs.written([WORK]) as (batch, descriptors):
        assert (batch[0].slot, batch[0].fresh, len(descriptors)) == (0, True, 1)
    jobs.close()


@pytest.mark.parametrize(
    ("status", "by_us", "cause"),
    [
        (-signal.SIGKILL, [End.HUNG], End.HUNG),
        (-signal.SIGKILL, [End.DISMISSED], End.DISMISSED),
        (-signal.SIGKILL, [End.HUNG, End.DISMISSED], End.HUNG),
        (-signal.SIGKILL, [End.DISMISSED, End.HUNG], End.HUNG),
        (-signal.SIGTERM, [], End.KILLED),
        (oom.EXIT_STATUS, [End.HUNG], End.OUT_OF_MEMORY),
        (device.EXIT_STATUS, [], End.DEVICE_FAILED),
        (-signal.SIGSEGV, [], End.CRASHED),
        (1, [], End.CRASHED),
    ],
)
def test_an_end_has_one_cause(status: int, by_us: list[End], cause: End) -> None:
    ending = Ending(limited=False)
    for why in by_us:
        ending.begin(why)
    assert ending.cause(status) is cause
    ending.begin(End.DISMISSED)
    assert ending.cause(status) is cause, "it is found once"


def test_under_a_limit_of_memory_libraries_crash_for_want_of_it() -> None:
    assert Ending(limited=True).cause(-signal.SIGSEGV) is End.OUT_OF_MEMORY

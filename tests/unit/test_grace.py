"""The order in which messages and answers are given up when memory runs short, and their grace, on a set clock."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc.intake import Intake
from vedette_server.rpc.unread import Unread

from tests.support.clocks import SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


class Awaited:
    """Messages that an intake awaits, and that never arrive."""

    def __init__(self, clock: SetClock) -> None:
        self._clock = clock
        self.told: list[Reason] = []
        self._intake = Intake(lambda: 0, self.told.append, clock=clock.monotonic)
        self._tasks: dict[str, asyncio.Future[object]] = {}

    async def single(self, name: str) -> None:
        self._tasks[name] = asyncio.create_task(self._intake.single(asyncio.Event().wait, name))
        await settle()

    async def streamed(self, name: str) -> None:
        self._tasks[name] = asyncio.ensure_future(anext(self._intake._all(_resting())))
        await settle()

    async def given_up(self) -> set[str]:
        """Give some up, as above the ceiling; the names of all that were until now."""
        self._intake._give_up()
        await settle()
        done = {name: task for name, task in self._tasks.items() if task.done()}
        for task in done.values():
            with pytest.raises(Refused) as caught:
                task.result()
            assert caught.value.reason is Reason.INTAKE_FULL
        assert self.told == [Reason.INTAKE_FULL] * len(done)
        return set(done)

    async def end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def _resting() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def awaited(clock: SetClock) -> AsyncIterator[Awaited]:
    made = Awaited(clock)
    yield made
    await made.end()


async def test_a_message_has_its_grace(awaited: Awaited, clock: SetClock) -> None:
    await awaited.single("one")
    clock.seconds = 0.1
    assert await awaited.given_up() == set()
    clock.seconds = 0.11
    assert await awaited.given_up() == {"one"}


async def test_the_older_half_of_the_messages_goes_and_streams_go_last(awaited: Awaited, clock: SetClock) -> None:
    await awaited.streamed("stream")
    for name in ("first", "second", "third"):
        clock.seconds += 1
        await awaited.single(name)
    clock.seconds += 1
    assert await awaited.given_up() == {"first", "second"}
    assert await awaited.given_up() == {"first", "second", "third"}
    assert await awaited.given_up() == {"first", "second", "third", "stream"}


def test_an_answer_has_its_grace_and_then_the_older_half_goes(clock: SetClock) -> None:
    unread = Unread(clock.monotonic)
    with unread.writing("ipv4:127.0.0.1:1"):
        clock.seconds = 0.5
        with unread.writing("ipv6:%5B::1%5D:2"), unread.writing("unix:"):
            clock.seconds = 1.0
            assert unread.give_up() == 0
            clock.seconds = 1.25
            assert unread.give_up() == 1
            clock.seconds = 2.0
            assert unread.give_up() == 1, "of two; one on a Unix socket is left alone"
        assert unread.give_up() == 1
    assert unread.give_up() == 0

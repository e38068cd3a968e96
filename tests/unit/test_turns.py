"""Who begins when: a few at a time, in turns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from vedette_server.rpc.turns import TurnedAwayError, Turns


class Clock:
    """A time that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Calls:
    """Calls that begin when they may, and end when they are told to."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.away: list[str] = []
        self.over: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(self, *names: str) -> None:
        """Make calls, each of the caller that is its first letter, in this order."""
        for name in names:
            self.over[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._call(name))
            await settle()

    async def _call(self, name: str) -> None:
        with contextlib.suppress(TurnedAwayError):
            async with self.turns.turn(name[0]):
                self.begun.append(name)
                await self.over[name].wait()
            return
        self.away.append(name)

    async def end(self, *names: str) -> None:
        for name in names:
            self.over[name].set()
            await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def calls(clock: Clock) -> AsyncIterator[Calls]:
    made = Calls(Turns(2, 1.0, clock))
    yield made
    for task in made.tasks.values():
        task.cancel()
    await asyncio.gather(*made.tasks.values(), return_exceptions=True)


async def test_what_is_over_or_no_longer_new_makes_room(calls: Calls, clock: Clock) -> None:
    await calls.call("a1", "a2", "a3", "a4", "a5")
    assert calls.begun == ["a1", "a2"]
    await calls.end("a2")
    assert calls.begun == ["a1", "a2", "a3"]
    clock.now = 1.0
    calls.turns.go_on()
    await settle()
    assert calls.begun == ["a1", "a2", "a3", "a4", "a5"]


async def test_each_caller_has_its_turn_however_long_anothers_line_is(calls: Calls) -> None:
    await calls.call("a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1")
    await calls.end("a1", "a2", "a3", "b1", "c1", "a4")
    assert calls.begun == ["a1", "a2", "a3", "b1", "c1", "a4", "b2", "a5"]


async def test_nothing_begins_while_it_is_shut(calls: Calls) -> None:
    calls.turns.shut = True
    await calls.call("a1", "b1")
    assert calls.begun == []
    calls.turns.shut = False
    calls.turns.go_on()
    await settle()
    assert calls.begun == ["a1", "b1"]


async def test_a_call_that_is_given_up_takes_nobodys_turn(calls: Calls) -> None:
    await calls.call("a1", "a2", "b1", "c1")
    calls.tasks["b1"].cancel()
    await settle()
    await calls.end("a1")
    assert calls.begun == ["a1", "a2", "c1"]
    calls.tasks["c1"].cancel()
    await settle()
    await calls.call("d1")
    assert calls.begun == ["a1", "a2", "c1", "d1"]


async def test_the_longest_line_is_halved(calls: Calls) -> None:
    calls.turns.shut = True
    await calls.call("a1", "a2", "a3", "b1")
    calls.turns.turn_away()
    await settle()
    assert calls.away == ["a3", "a2"]
    calls.turns.turn_away()
    calls.turns.turn_away()
    calls.turns.turn_away()
    await settle()
    assert sorted(calls.away) == ["a1", "a2", "a3", "b1"]

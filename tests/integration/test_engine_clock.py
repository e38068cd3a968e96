"""Decisions of the engine and its pool that depend on time, on a clock that stands still until it is set.

Real processes, no model. Numbers are multiples of 1/64 where a limit is met exactly.
"""

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from vedette_server.contract.options import Asked
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine import engine as engine_module
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import SERVERS_LIMIT
from vedette_server.engine.queue import Priority
from vedette_server.engine.standing import State
from vedette_server.engine.stream import DropPolicy, Frame, Stream, StreamSettings
from vedette_server.pool.jobs import DEPTH
from vedette_server.pool.pool import OVERSLEPT_SECONDS

from tests.support.clocks import SetClock
from tests.support.scripted import HANG, KILL, SETTINGS, SLEEP, query, started

MOMENT = 1 / 64  # second

Start = Callable[..., Awaitable[Engine]]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def start(clock: SetClock) -> AsyncIterator[Start]:
    """Starts an engine of one worker with these settings, which is stopped after the test."""
    engines: list[Engine] = []

    async def start(**settings: Any) -> Engine:
        engines.append(await started(dataclasses.replace(SETTINGS, workers=1, **settings), clock=clock.monotonic))
        return engines[-1]

    yield start
    for engine in engines:
        await engine.stop()


async def underway(engine: Engine, first: int) -> asyncio.Task[object]:
    """A query that its only worker has begun with."""
    task: asyncio.Task[object] = asyncio.create_task(engine.detect(query(first)))
    while not engine.served[0].running_pids:
        await asyncio.sleep(0)
    return task


def is_ready(engine: Engine) -> bool:
    """`engine.ready` read anew: to a type checker, a property is what it was."""
    return engine.ready


async def test_only_time_in_which_the_gateway_was_awake_makes_a_worker_hang(start: Start, clock: SetClock) -> None:
    limit = 0.25
    engine = await start(hang_seconds=limit)
    pool = engine.served[0]._pool
    held = await underway(engine, HANG)
    (worker,) = pool.workers
    clock.seconds += limit + OVERSLEPT_SECONDS + MOMENT
    while worker.silent_seconds:
        await asyncio.sleep(MOMENT)
    assert worker.alive, "it is excused, and counted from here"
    for losses in (1, 2):
        clock.seconds += limit + OVERSLEPT_SECONDS  # as late as a timer may be
        while pool.losses["hung"] < losses or not (held.done() or engine.served[0].running_pids):
            await asyncio.sleep(MOMENT)
    with pytest.raises(Refused) as caught:
        await held
    assert caught.value.reason is Reason.IMAGE_POISONOUS


async def test_only_time_in_which_the_gateway_was_awake_makes_a_version_stuck(
    start: Start, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_LOOK_SECONDS", MOMENT)
    engine = await start(stuck_seconds=0.25)
    (pid,) = engine.served[0].pids
    os.kill(pid, signal.SIGSTOP)
    held = await underway(engine, 0)
    standing = engine.served[0].standing
    assert standing._owes_since == 0
    watching = asyncio.create_task(engine.watch())
    await asyncio.sleep(0)  # it waits for its next look
    clock.seconds = MOMENT + OVERSLEPT_SECONDS + MOMENT
    while standing._owes_since != clock.seconds:
        await asyncio.sleep(MOMENT)
    assert not standing.stuck
    clock.seconds += MOMENT + OVERSLEPT_SECONDS
    while is_ready(engine):
        await asyncio.sleep(MOMENT)
    os.kill(pid, signal.SIGCONT)
    await held
    assert is_ready(engine)
    watching.cancel()


async def test_an_image_is_taken_if_it_can_be_answered_in_time(start: Start, clock: SetClock) -> None:
    """It waits for the one that runs, and twice its own time must be left."""
    engine = await start()
    engine.served[0].scheduler._estimate.learn((1, 100), 8.0)
    busy = await underway(engine, SLEEP)
    with pytest.raises(Refused) as caught:
        await engine.detect(query(0, seconds=23.0))
    assert caught.value.reason is Reason.OVERLOADED
    facts = {"expected": "24.00", "left": "23.00", "retry_seconds": "8.000"}
    assert {name: caught.value.facts[name] for name in facts} == facts
    clock.seconds = 1.0
    outcome = await engine.detect(query(0, seconds=23.0))
    assert outcome.answer.evidence.best_score == 7 * 299
    await busy


async def test_an_image_whose_time_is_up_reaches_no_worker(start: Start, clock: SetClock) -> None:
    engine = await start()
    busy = [asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(DEPTH)]
    await asyncio.sleep(0)
    late = asyncio.create_task(engine.detect(query(KILL)))
    await asyncio.sleep(0)
    clock.seconds = engine.max_seconds + MOMENT
    with pytest.raises(Refused) as caught:
        await late
    assert (caught.value.reason, caught.value.facts) == (
        Reason.DEADLINE_EXCEEDED,
        {"seconds": "60.000", "limit": SERVERS_LIMIT},
    )
    await asyncio.gather(*busy)
    assert not engine.served[0].restarts


async def test_a_lossless_frame_waits_for_a_worker_as_long_as_a_request_may_take(start: Start, clock: SetClock) -> None:
    engine = await start()
    served, sent = engine.served[0], query(0)
    settings = StreamSettings(
        model="", version="", policy=DropPolicy.LOSSLESS, priority=Priority.NORMAL, name="", max_in_flight=None
    )
    with Stream(engine, settings, Asked()) as stream:
        async with engine._forkserver._turn:  # no other worker comes
            os.kill(served.pids[0], signal.SIGKILL)
            while served.standing.state is not State.UNAVAILABLE:
                await asyncio.sleep(MOMENT)
            putting = asyncio.create_task(stream.put(Frame(1, 0, sent.image)))
            await asyncio.sleep(0)
            clock.seconds = engine.max_seconds - MOMENT
            assert not (await asyncio.wait({putting}, timeout=0.2))[0]
            clock.seconds = engine.max_seconds
            await putting
        await stream.finish()
        (told,) = [told async for told in stream.told()]
    assert not isinstance(told.fate, Refused), "it waits for the next worker like any other"


async def test_a_stream_rests_from_its_last_frame_on_but_not_while_one_waits(start: Start, clock: SetClock) -> None:
    engine = await start()
    engine.max_seconds, served = 1_000.0, engine.served[0]
    settings = StreamSettings(
        model="", version="", policy=DropPolicy.LOSSLESS, priority=Priority.NORMAL, name="", max_in_flight=None
    )
    with Stream(engine, settings, Asked()) as stream:
        clock.sleep(70)
        assert stream.rested_seconds == 70
        async with engine._forkserver._turn:  # no other worker comes
            os.kill(served.pids[0], signal.SIGKILL)
            while served.standing.state is not State.UNAVAILABLE:
                await asyncio.sleep(MOMENT)
            putting = asyncio.create_task(stream.put(Frame(1, 0, query(0).image)))
            for _ in range(3):
                clock.sleep(70)
                async with asyncio.timeout(10):
                    while stream.rested_seconds:
                        await asyncio.sleep(MOMENT)
            putting.cancel()

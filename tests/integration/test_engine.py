"""The engine and its pool with predictors that misbehave: real processes, no model."""

import asyncio
import dataclasses
import os
import re
import signal
import struct
import time
from collections.abc import AsyncIterator

import pytest
from vedette_server.baseline.scrape import Page
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Asked
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Outcome
from vedette_server.engine.queue import Priority
from vedette_server.engine.standing import State
from vedette_server.engine.stream import DropPolicy, Fate, Frame, Stream, StreamSettings
from vedette_server.monitor.metrics import Metrics
from vedette_server.pool.jobs import DEPTH
from vedette_server.repository.golden import ExpectedObject, Golden

from tests.support import running
from tests.support.scripted import (
    BREAK,
    EXHAUST,
    FILLED,
    HANG,
    HANG_EARLY,
    HANG_LATE,
    KILL,
    MODEL,
    RAISE,
    REFUSE,
    SETTINGS,
    SLEEP,
    query,
    started,
)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = await started(SETTINGS)
    yield engine
    await engine.stop()


@pytest.mark.parametrize("size", [3, 300, 6_000_000])
async def test_bytes_arrive_as_they_were_sent(engine: Engine, size: int) -> None:
    outcome = await engine.detect(query(0, size))
    assert outcome.answer.evidence.best_score == 7 * (size - 1)


async def test_an_image_that_crashes_two_workers_is_poisonous_and_harms_no_other(engine: Engine) -> None:
    poisoned = asyncio.create_task(engine.detect(query(KILL)))
    others = [asyncio.create_task(engine.detect(query(0))) for _ in range(3)]  # some share its worker
    with pytest.raises(Refused) as caught:
        await poisoned
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_POISONOUS, {"losses": "2"})
    assert all(outcome.answer.evidence.best_score == 7 * 299 for outcome in await asyncio.gather(*others))
    served = engine.served[0]
    while len(served.pids) < SETTINGS.workers:
        engine.changed.clear()
        await engine.changed.wait()
    assert served.restarts == 2


async def test_an_image_that_exhausts_the_memory_of_two_workers_is_told_so(engine: Engine) -> None:
    others = [asyncio.create_task(engine.detect(query(0))) for _ in range(3)]
    with pytest.raises(Refused) as caught:
        await engine.detect(query(EXHAUST))
    assert (caught.value.reason, caught.value.facts) == (Reason.WORKER_OUT_OF_MEMORY, {"losses": "2"})
    assert all(outcome.answer.evidence.best_score == 7 * 299 for outcome in await asyncio.gather(*others))


async def test_an_image_is_not_to_blame_for_memory_that_older_workers_have_filled(engine: Engine) -> None:
    while len(engine.served[0].pids) < SETTINGS.workers:
        engine.changed.clear()
        await engine.changed.wait()
    asked = query(FILLED)
    data = bytes([FILLED]) + struct.pack("d", time.monotonic()) + bytes(291)
    outcome = await engine.detect(dataclasses.replace(asked, image=SentImage(asked.image.spec, data)))
    assert outcome.answer.evidence.best_score == sum(data)


@pytest.mark.parametrize(("stage", "method"), [(HANG_EARLY, "prepare"), (HANG, "infer"), (HANG_LATE, "encode")])
async def test_a_worker_that_hangs_is_replaced_and_its_image_refused(
    stage: int, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It dumps its stacks before it is killed, so that the log says where it hung."""
    engine = await started(dataclasses.replace(SETTINGS, hang_seconds=2.0))
    before = set(engine.served[0].pids)
    with pytest.raises(Refused) as caught:
        await engine.detect(query(stage))
    assert caught.value.reason is Reason.IMAGE_POISONOUS
    assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299
    assert not before & set(engine.served[0].pids)
    await engine.stop()
    assert re.search(rf'scripted\.py", line \d+ in {method}\n', capfd.readouterr().err)


def is_ready(engine: Engine) -> bool:
    """`engine.ready` read anew: to a type checker, a property is what it was."""
    return engine.ready


async def test_a_version_is_not_ready_while_no_worker_answers_anything() -> None:
    engine = await started(dataclasses.replace(SETTINGS, stuck_seconds=0.0))
    served = engine.served[0]
    first, second = await both(engine)
    os.kill(first, signal.SIGSTOP)
    held = [asyncio.create_task(engine.detect(query(0)))]
    await asyncio.sleep(0)
    for _ in range(3):
        await engine.detect(query(0))
        served.standing.look()
        assert engine.ready, "the other worker answers what comes"
    os.kill(second, signal.SIGSTOP)
    held.append(asyncio.create_task(engine.detect(query(0))))
    while is_ready(engine):  # as long as it takes to begin
        await asyncio.sleep(0.01)
        served.standing.look()
    for pid in (first, second):
        os.kill(pid, signal.SIGCONT)
    await asyncio.gather(*held)
    assert engine.ready
    await engine.stop()


async def test_callers_that_give_up_do_not_make_it_ready() -> None:
    engine = await started(dataclasses.replace(SETTINGS, stuck_seconds=0.0))
    pids = await both(engine)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    since = set()
    for _ in range(3 * DEPTH):  # they have some, and some wait
        with pytest.raises(Refused):
            await engine.detect(query(0, seconds=0.05))
        since.add(engine.served[0].standing._owes_since)
    assert len(since - {None}) == 1
    engine.served[0].standing.look()
    assert not engine.ready
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    while not is_ready(engine):
        await asyncio.sleep(0.01)
    await engine.stop()


async def both(engine: Engine) -> list[int]:
    """Its workers, all of them."""
    while len(engine.served[0].pids) < SETTINGS.workers:
        engine.changed.clear()
        await engine.changed.wait()
    return engine.served[0].pids


async def test_what_has_time_waits_for_workers_that_were_lost(engine: Engine) -> None:
    served = engine.served[0]
    for _ in range(3):
        while len(served.pids) < SETTINGS.workers:
            engine.changed.clear()
            await engine.changed.wait()
        async with engine._forkserver._turn:  # else the first may be replaced before the second is missed
            for pid in served.pids:
                os.kill(pid, signal.SIGKILL)
            while served.pids:
                engine.changed.clear()
                await engine.changed.wait()
            assert served.standing.state is State.UNAVAILABLE
            with pytest.raises(Refused) as caught:
                await engine.detect(query(0, seconds=0.0001))
            assert caught.value.reason is Reason.MODEL_NOT_READY
        assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299


async def test_an_exception_is_that_images_alone_and_kept_from_callers(engine: Engine) -> None:
    with pytest.raises(Refused) as caught:
        await engine.detect(query(RAISE))
    assert (caught.value.reason, caught.value.facts) == (Reason.INTERNAL, {})
    assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299


async def test_a_worker_whose_gpu_fails_it_is_replaced_and_says_so(engine: Engine) -> None:
    """CUDA fails whatever a process computes after such an error: it would be healthy and answer nobody."""
    other = asyncio.create_task(engine.detect(query(0)))
    with pytest.raises(Refused) as caught:
        await engine.detect(query(BREAK))
    assert caught.value.reason is Reason.IMAGE_POISONOUS
    assert (await other).answer.evidence.best_score == (await engine.detect(query(0))).answer.evidence.best_score
    assert engine.served[0]._pool.losses == {"device_failed": 2}


async def test_a_refusal_arrives_with_its_facts(engine: Engine) -> None:
    with pytest.raises(Refused) as caught:
        await engine.detect(query(REFUSE))
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_TRUNCATED, {"bytes": "300", "codec": "TEST"})


async def test_a_full_queue_refuses_and_loses_nothing(engine: Engine) -> None:
    results = await asyncio.gather(*(engine.detect(query(SLEEP)) for _ in range(12)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refused)]
    assert {refusal.reason for refusal in refused} == {Reason.OVERLOADED}
    assert len(results) - len(refused) >= SETTINGS.max_queued
    assert all(isinstance(result, Outcome | Refused) for result in results)


async def test_a_deadline_ends_the_waiting_and_the_worker_goes_on(engine: Engine) -> None:
    with pytest.raises(Refused) as caught:
        await engine.detect(query(SLEEP, seconds=0.05))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299


async def test_cancelled_callers_leave_nothing_behind(engine: Engine) -> None:
    callers = [asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(5)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert running.shared_memories(os.getpid()) <= SETTINGS.workers * DEPTH
    assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299


async def test_draining_answers_what_was_admitted_and_refuses_the_rest(engine: Engine) -> None:
    admitted = [asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(4)]
    await asyncio.sleep(0)
    drain = asyncio.create_task(engine.drain(60))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as caught:
        await engine.detect(query(0))
    assert caught.value.reason is Reason.SHUTTING_DOWN
    assert await drain
    assert len(await asyncio.gather(*admitted)) == 4


async def test_a_drain_has_a_limit(engine: Engine) -> None:
    task = asyncio.create_task(engine.detect(query(SLEEP)))
    await asyncio.sleep(0)
    assert not await engine.drain(0.01)
    assert isinstance(await task, Outcome)


async def test_an_estimate_that_is_wrong_refuses_nothing_for_ever(engine: Engine) -> None:
    """Nothing else waits, so that it is tried, and the estimate learns."""
    served = engine.served[0]
    while len(served.pids) < SETTINGS.workers:
        engine.changed.clear()
        await engine.changed.wait()
    for _ in range(20):
        served.scheduler._estimate.learn((1, 100), 60.0)
    for _ in range(3):
        assert (await engine.detect(query(0, seconds=5.0))).answer.evidence.best_score == 7 * 299
    busy = [asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(SETTINGS.workers)]
    await asyncio.sleep(0)
    with pytest.raises(Refused) as caught:
        await engine.detect(query(0, seconds=5.0))
    assert caught.value.reason is Reason.OVERLOADED
    await asyncio.gather(*busy)


BATCHES = dataclasses.replace(SETTINGS, factory="tests.support.scripted:batching", workers=1, max_queued=20)


async def test_what_waits_and_is_of_one_size_is_inferred_at_once_where_that_pays() -> None:
    engine = await started(BATCHES)
    first, second = (asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(2))  # one runs, one is prepared
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(engine.detect(query(0, size))) for size in (300, 3, 300, 300, 300, 300)]
    sizes = [(await task).answer.evidence.best_score for task in (first, second, *waiting)]
    assert sizes == [1, 1, 4, 1, 4, 4, 4, 1], "never more than pays, and nothing of another size"
    await engine.stop()


async def test_an_image_that_fails_in_a_batch_fails_alone() -> None:
    engine = await started(BATCHES)
    busy = [asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(2)]
    await asyncio.sleep(0)
    good, bad = asyncio.create_task(engine.detect(query(0))), asyncio.create_task(engine.detect(query(RAISE)))
    with pytest.raises(Refused) as caught:
        await bad
    assert caught.value.reason is Reason.INTERNAL
    assert (await good).answer.evidence.best_score == 1
    await asyncio.gather(*busy)
    await engine.stop()


async def test_what_a_failed_batch_had_allocated_is_free_when_its_images_are_tried_alone() -> None:
    engine = await started(dataclasses.replace(BATCHES, factory="tests.support.scripted:hoarding"))
    busy = [asyncio.create_task(engine.detect(query(SLEEP))) for _ in range(2)]
    await asyncio.sleep(0)
    outcomes = await asyncio.gather(*(engine.detect(query(0)) for _ in range(4)))
    assert [outcome.answer.evidence.best_score for outcome in outcomes] == [0, 0, 0, 0]
    await asyncio.gather(*busy)
    await engine.stop()


async def test_what_a_model_fails_for_want_of_memory_is_that_and_no_fault_of_its_own() -> None:
    starving = dataclasses.replace(SETTINGS, factory="tests.support.scripted:starved")
    engine = await started(starving, State.UNAVAILABLE)
    assert engine.served[0].standing.reason.startswith("OUT_OF_MEMORY: ")
    await engine.stop()


async def test_a_model_that_cannot_be_loaded_is_unavailable_with_its_reason() -> None:
    engine = await started(
        dataclasses.replace(SETTINGS, factory="tests.support.scripted:unloadable"), State.UNAVAILABLE
    )
    with pytest.raises(Refused) as caught:
        await engine.detect(query(0))
    assert caught.value.reason is Reason.MODEL_NOT_READY
    await engine.stop()


async def test_a_version_need_not_take_what_the_one_before_took(engine: Engine) -> None:
    something = ExpectedObject(0, 0.9, (0, 0, 1, 1))
    pictures = [Golden(name, bytes([first, 0, 0]), (something,)) for name, first in (("a", REFUSE), ("b", RAISE))]
    before, after = dataclasses.replace(MODEL, golden=tuple(pictures)), dataclasses.replace(MODEL, version=2)
    engine.served[0].model = before
    newest = engine.load(after)
    while newest.standing.state is not State.READY:
        engine.changed.clear()
        await engine.changed.wait()
    assert (await engine.detect(query(0))).model is after


async def test_a_version_that_comes_back_before_it_has_gone_is_loaded_after_it() -> None:
    metrics = Metrics()
    engine = await started(SETTINGS, monitor=metrics)
    slow = asyncio.create_task(engine.detect(query(SLEEP)))
    await asyncio.sleep(0)
    going = asyncio.create_task(engine.unload(engine.served[0]))
    await asyncio.sleep(0)
    engine.replace([MODEL])
    assert not engine.served
    await asyncio.gather(slow, going)
    engine.replace([MODEL])
    (back,) = engine.served
    while back.standing.state is not State.READY:
        engine.changed.clear()
        await engine.changed.wait()
    await engine.detect(query(0))
    assert Page.parse(metrics.page("")[0].decode()).value("vedette_answers_total", model="test", version="1") == 1
    await engine.stop()


async def test_what_a_live_stream_holds_is_counted_until_it_goes(engine: Engine) -> None:
    settings = StreamSettings(
        model="",
        version="",
        policy=DropPolicy.LATEST,
        priority=Priority.NORMAL,
        name="camera",
        max_in_flight=1,
    )
    with Stream(engine, settings, Asked()) as stream:
        for frame_id, first in enumerate((SLEEP, 0, 0)):
            sent = query(first)
            await stream.put(Frame(frame_id, time.time_ns(), sent.image))
            await asyncio.sleep(0)
        assert engine.held_bytes == 2 * 300, "one under way, and the newest; the one between was superseded"
    while engine.held_bytes:
        engine.changed.clear()
        await engine.changed.wait()


ROOMY = 32 * 2**20  # what the contract lets an image have is always taken
LARGE = query(SLEEP, ROOMY // 3 - ROOMY // 3 % 3_000)


async def lossless(engine: Engine, frames: int) -> list[Fate]:
    """The fates of the frames of a stream that reads all that it may."""
    settings = StreamSettings(
        model=engine.served[0].model.name,
        version="",
        policy=DropPolicy.LOSSLESS,
        priority=Priority.NORMAL,
        name="",
        max_in_flight=4,
    )
    with Stream(engine, settings, Asked()) as stream:
        for frame_id in range(frames):
            await stream.put(Frame(frame_id, time.time_ns(), LARGE.image))
        await stream.finish()
        return [told.fate async for told in stream.told()]


async def test_lossless_streams_that_read_at_once_lose_no_frame_for_want_of_room() -> None:
    """Each finds room for one more frame when it looks, and there is room for one of all."""
    engine = await started(dataclasses.replace(SETTINGS, max_queued_bytes=ROOMY))
    for one in await asyncio.gather(*(lossless(engine, 4) for _ in range(5))):
        assert [type(fate) for fate in one] == [Outcome] * 4
    await engine.stop()


async def test_a_frame_that_waits_for_room_in_a_version_that_goes_is_refused() -> None:
    engine = await started(dataclasses.replace(SETTINGS, max_queued_bytes=ROOMY))
    (served,) = engine.served
    streams = [asyncio.create_task(lossless(engine, 1)) for _ in range(8)]
    while not engine.held:  # the bytes of frames that wait for room
        await asyncio.sleep(0)
    await engine.unload(served)
    fates = [fate for stream in streams for fate in await stream]
    refused = {fate.reason for fate in fates if isinstance(fate, Refused)}
    assert refused == {Reason.MODEL_NOT_FOUND}
    assert any(isinstance(fate, Outcome) for fate in fates), "what the version had been given is answered"
    await engine.stop()

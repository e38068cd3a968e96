"""Admission, dispatch and settlement on a clock that stands still, with workers that answer when they are told to."""

import asyncio
import dataclasses
import math
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture
from vedette_server.contract.answer import StageTimes
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine import ledger, scheduler
from vedette_server.engine.queue import Flow, Item
from vedette_server.pool.ends import Loss
from vedette_server.pool.process import WorkerBugError, WorkerLostError

from tests.support.answers import answer
from tests.support.hands import LIMITED, NOW, SQUARE, WIDE, Hand, World, item, undoing


async def settled(*items: Item) -> None:
    await asyncio.wait([one.answer for one in items], timeout=5)


async def test_an_image_is_admitted_while_twice_its_time_is_left_at_its_turn() -> None:
    world = World(Hand())
    world.put(item())
    world.scheduler.admit(item(NOW + 6))  # 2 s for what runs, and 2 s twice
    assert world.refusal(item(NOW + 7.9)).facts == {
        "expected": "8.00",
        "left": "7.90",
        "retry_seconds": "2.000",
        "model": "test",
        "limit": "the deadline",
        "queued": "1",
    }
    refused = world.refusal(item(NOW + 1))
    assert (refused.reason, refused.facts["retry_seconds"]) == (Reason.OVERLOADED, "7.000")
    world.clock.sleep(1.5)
    world.scheduler.admit(item(NOW + 8, flow=Flow(served=-9)))
    world.clock.sleep(60)
    assert world.refusal(item(NOW + 61.5 + 7.9)).facts["expected"] == "8.00"


async def test_workers_share_what_waits() -> None:
    world = World(Hand(), Hand())
    world.put(item(), item(), item())
    assert [one.answer.done() for one in world.ledger.running] == [False, False]
    assert world.refusal(item(NOW + 6.9)).facts["expected"] == "7.00"
    world.scheduler.admit(item(NOW + 7))


async def test_what_is_past_its_deadline_is_told_so() -> None:
    world = World(Hand())
    world.put(item())
    refused = world.refusal(item(NOW, queued=NOW - 3))
    assert refused.reason is Reason.DEADLINE_EXCEEDED
    assert refused.facts == {"seconds": "3.000", "limit": "the deadline"}


async def test_an_idle_worker_tries_what_seems_too_late() -> None:
    world = World(Hand())
    world.scheduler.admit(item(NOW + 0.1))
    assert world.refusal(item(NOW + 0.1)).reason is Reason.OVERLOADED, "something waits already"


async def test_no_more_wait_than_are_allowed_and_streams_do_not_count() -> None:
    world = World(Hand(), max_queued=2)
    world.put(item(), item(source="a stream"))
    for _ in range(2):
        world.scheduler.admit(item())
    assert world.refusal(item()).reason is Reason.OVERLOADED


async def test_without_workers_only_what_has_time_waits() -> None:
    world = World()
    refused = world.refusal(item(NOW + 3.9))
    assert refused.reason is Reason.MODEL_NOT_READY
    assert refused.facts == {"model": "test", "why": "its workers are loading or answering their golden images"}
    world.scheduler.admit(item(NOW + 4))
    world.pool._back_at = NOW + 5
    assert world.refusal(item(NOW + 10.9)).reason is Reason.MODEL_NOT_READY
    world.scheduler.admit(item(NOW + 11))


@pytest.mark.parametrize(("most", "of_streams"), [(1_000, 500), (150, 100)])  # room for one image at least
async def test_streams_leave_room_for_single_images(most: int, of_streams: int) -> None:
    world = World(model=LIMITED, max_queued_bytes=most)
    takes = world.scheduler.takes
    assert [takes(size, streamed=True) for size in (of_streams, of_streams + 1)] == [True, False]
    assert [takes(size, streamed=False) for size in (most, most + 1)] == [True, False]
    with pytest.raises(Refused) as caught:
        world.scheduler.put(item(NOW + 9, data=of_streams + 1, source="a stream"))
    assert (caught.value.reason, caught.value.facts["left"]) == (Reason.OVERLOADED, "9.00")
    crowded = []
    for size in (of_streams // 2, 1):
        world.scheduler.put(item(data=size, source="a stream"))
        crowded.append(world.scheduler.crowded)
    assert crowded == [False, True]
    assert not takes(of_streams // 2, streamed=True)


async def test_what_waits_and_what_runs_is_held() -> None:
    world = World(Hand())
    assert (world.scheduler.workers, world.scheduler.held_bytes) == (2, 0)
    assert not world.scheduler.turn.locked()
    world.put(item(data=5), item(data=7), item(data=11))
    assert world.scheduler.held_bytes == 23


async def test_a_diagnosis_is_no_traffic() -> None:
    world = World(Hand(depth=9))
    world.put(undoing())
    assert (world.scheduler.last_traffic, world.monitor.batches, world.changes) == (-math.inf, [], 1)
    world.clock.sleep(3)
    world.put(item())
    assert (world.scheduler.last_traffic, world.monitor.batches, world.changes) == (NOW + 3, [1], 2)


async def test_a_caller_that_gives_up_leaves_the_queue() -> None:
    world = World(Hand())
    runs, waits = item(), item()
    world.put(runs, waits)
    for one, changes in ((runs, 2), (waits, 3)):
        one.answer.cancel()
        await asyncio.sleep(0)
        assert world.changes == changes
    assert (len(world.ledger.queue), len(world.ledger.running)) == (0, 1)


async def test_workers_with_room_are_given_what_is_next() -> None:
    busy, idle = Hand(depth=2), Hand(depth=2)
    world = World(busy, idle)
    items = [item() for _ in range(5)]
    world.put(*items)
    assert [len(hand.given) for hand in (busy, idle)] == [2, 2]
    assert world.ledger.queue.items == items[4:]
    assert [one.started for one in items] == [NOW] * 4 + [None]
    assert busy.alone == [False, False]


async def test_what_was_lost_waits_for_an_idle_worker_that_is_younger() -> None:
    old, young = Hand(depth=2, forked=10), Hand(depth=2, forked=20)
    world = World(old, young)
    world.put(item(), item())
    world.put(item(losses=[Loss.OUT_OF_MEMORY], since=15), item())
    for hand, given in ((None, [1, 1]), (old, [1, 1]), (young, [2, 2])):
        if hand is not None:
            hand.given[0][0].set_result(answer())
            await asyncio.sleep(0)
            world.scheduler.dispatch()
        assert [len(one.given) for one in (old, young)] == given, "what comes next waits behind it"
    assert (old.alone, young.alone) == ([False, False], [False, True])


@pytest.mark.parametrize(("left", "others", "given"), [(2, 1, True), (1.9, 1, False), (0, 0, True), (-0.1, 0, False)])
async def test_what_has_become_hopeless_is_told_so_if_others_wait(left: float, others: int, *, given: bool) -> None:
    hand = Hand()
    world = World(hand)
    first = item(NOW + 5 + left)
    for one in (first, *[item() for _ in range(others)]):
        world.scheduler.put(one)
    world.clock.sleep(5)
    world.scheduler.dispatch()
    assert (first in world.ledger.running) == given
    assert len(hand.given) == max(given, others)
    if not given:
        with pytest.raises(Refused) as caught:
            await first.answer
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED


def batched(*items: Item, most: int = 4) -> list[Item]:
    """Return the images that go to a worker with the first of these."""
    world = World(Hand(max_batch=most))
    for one in items:
        world.scheduler.put(one)
    world.scheduler.dispatch()
    assert world.monitor.batches == [len(world.ledger.running)] or items[0].options.undo
    return list(world.ledger.running)


async def test_a_batch_is_of_one_padded_size_and_no_larger_than_the_worker_takes() -> None:
    items = [item(), item(), item(size=WIDE), item(size=(11, 11)), item(), item()]
    assert batched(*items) == [items[0], items[1], items[3], items[4]]
    assert batched(*[item() for _ in range(3)], most=2) != []
    items = [item() for _ in range(3)]
    assert batched(*items, most=2) == items[:2]
    items = [item() for _ in range(3)]
    assert batched(*items, most=1) == items[:1]


async def test_what_differs_is_not_batched() -> None:
    first, *others = item(), item(options=Options(0.5, (), panoptic_threshold=0.1)), undoing()
    assert batched(first, *others) == [first]
    first = undoing()
    assert batched(first, undoing(), item()) == [first]
    lost = item(losses=[Loss.KILLED])
    assert batched(lost, item()) == [lost]
    alike = [item(options=Options(0.5, (), panoptic_threshold=0.1)) for _ in range(2)]
    assert batched(*alike) == alike


@pytest.mark.parametrize(
    ("deadlines", "together"),
    [((4, 9), 2), ((3.9, 9), 1), ((9, 3.9), 1), ((4, 4), 2), ((9, 6, 9), 3), ((9, 5.9, 9), 2)],
)
async def test_a_batch_ends_before_the_tightest_deadline(deadlines: tuple[float, ...], together: int) -> None:
    flow = Flow()
    items = [item(NOW + left, flow=flow) for left in deadlines]
    assert len(batched(*items)) == together


async def test_an_answer_is_settled_and_learned_from() -> None:
    hand = Hand()
    world = World(hand)
    for given, learned in ((undoing(), 2.0), (item(), 2.2)):
        world.put(given)
        took = dataclasses.replace(answer(), height=10, width=10, times=StageTimes(1, 1, 1, 1))
        hand.given[-1][0].set_result(took)
        await settled(given)
        assert given.answer.result() is took
        assert world.estimate.of(SQUARE) == pytest.approx(learned)
        assert not world.ledger.running
    assert world.changes == 4


RAISED = {"event": "predictor_raised", "model": "test", "version": 1, "request_id": "a", "error": "a secret"}
BUG = {"event": "bug", "request_ids": ["a"], "exc_info": True}


@pytest.mark.parametrize(
    ("error", "reason", "logged"),
    [
        (Refused(Reason.IMAGE_TRUNCATED), Reason.IMAGE_TRUNCATED, []),
        (WorkerBugError("a secret"), Reason.INTERNAL, [RAISED]),
        (ValueError("a bug of ours"), Reason.INTERNAL, [BUG]),
    ],
)
async def test_a_failure_is_the_images_alone(
    error: Exception, reason: Reason, logged: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = LogCapture()
    for module in (scheduler, ledger):  # whatever other tests have configured
        monkeypatch.setattr(module, "log", structlog.wrap_logger(None, [capture], structlog.stdlib.BoundLogger))
    hand = Hand(depth=2)
    world = World(hand)
    one, other = item(request_id="a"), item()
    world.put(one, other)
    hand.given[0][0].set_exception(error)
    await settled(one)
    with pytest.raises(Refused) as caught:
        await one.answer
    assert caught.value.reason is reason
    assert list(world.ledger.running) == [other]
    assert capture.entries == [{**line, "log_level": "error"} for line in logged]


@pytest.mark.parametrize(("end", "stuck"), [(answer(), False), (WorkerLostError("gone", Loss.KILLED), True)])
async def test_any_answer_but_a_lost_worker_tells_that_a_version_lives(end: Any, *, stuck: bool) -> None:
    hand = Hand()
    world = World(hand)
    world.put(item(), item())
    world.standing.note()
    world.clock.sleep(20)
    (hand.given[0][0].set_exception if stuck else hand.given[0][0].set_result)(end)
    await asyncio.sleep(0)
    world.standing.note()
    world.clock.sleep(15)
    world.standing.look()
    assert world.standing.stuck == stuck


async def test_a_worker_that_takes_nothing_harms_only_what_it_was_given() -> None:
    hand = Hand()
    world = World(hand)
    hand.broken = True
    one, other = item(), item()
    world.put(one, other)
    with pytest.raises(Refused, match="INTERNAL"):
        await one.answer
    assert list(world.ledger.running) == [other]


async def test_a_worker_is_free_when_it_is_through_with_what_it_has() -> None:
    hand = Hand(depth=3)
    world = World(hand)
    items = [item() for _ in range(3)]
    world.put(*items)
    world.scheduler.put(item(source="a stream"))  # so that the worker's idleness admits nothing
    for clock, answered, expected in ((0, None, 12), (1, None, 11), (2, 0, 10), (60, None, 6), (60, 1, 8), (60, 2, 6)):
        world.clock.seconds = NOW + clock
        if answered is not None:
            hand.given[answered][0].set_result(answer())
            await settled(items[answered])
        seen = world.refusal(item(NOW + clock + 0.5)).facts["expected"]
        assert seen == f"{expected:.2f}", (clock, answered)


async def lose(world: World, hand: Hand, one: Item, loss: Loss) -> None:
    hand.given[-1][0].set_exception(WorkerLostError("gone", loss))
    await asyncio.sleep(0)
    if not one.answer.done():
        assert world.ledger.queue.items == [one]
        assert one.started is None
        world.scheduler.dispatch()


CRASHED, FULL, KILLED, UNREAD = Loss.CRASHED, Loss.OUT_OF_MEMORY, Loss.KILLED, Loss.MISUNDERSTOOD


@pytest.mark.parametrize(
    ("losses", "reason", "facts"),
    [
        ([CRASHED, CRASHED], Reason.IMAGE_POISONOUS, {"losses": "2"}),
        ([FULL, CRASHED, FULL], Reason.WORKER_OUT_OF_MEMORY, {"losses": "2"}),
        ([UNREAD, KILLED, UNREAD], Reason.INTERNAL, {"losses": "2"}),
        ([KILLED] * 10, Reason.WORKERS_LOST, {"losses": "10"}),
        ([KILLED] * 8 + [CRASHED, FULL], Reason.WORKERS_LOST, {"losses": "10"}),
        ([KILLED] * 8 + [CRASHED, CRASHED], Reason.IMAGE_POISONOUS, {"losses": "2"}),
    ],
)
async def test_what_takes_workers_with_it_is_refused(losses: list[Loss], reason: Reason, facts: dict[str, str]) -> None:
    hand = Hand(forked=10**9)
    world = World(hand)
    one = item()
    world.put(one)
    for number, loss in enumerate(losses):
        assert not one.answer.done()
        assert hand.alone[number] == bool(number)
        await lose(world, hand, one, loss)
    with pytest.raises(Refused) as caught:
        await one.answer
    assert (caught.value.reason, caught.value.facts) == (reason, facts)


@pytest.mark.parametrize(("loss", "since"), [(FULL, NOW + 7), (CRASHED, -math.inf), (KILLED, -math.inf)])
async def test_only_a_new_worker_has_memory_that_nothing_else_took(loss: Loss, since: float) -> None:
    hand = Hand(forked=NOW + 7)
    world = World(hand)
    one = item()
    world.put(one)
    world.clock.sleep(7)
    await lose(world, hand, one, loss)
    assert one.since == since
    assert len(hand.given) == 1 + (loss is not FULL)


async def test_a_version_that_gives_up_tells_what_still_waits() -> None:
    world = World(Hand())
    items = [item() for _ in range(3)]
    world.put(*items)
    world.scheduler.give_up()
    assert not items[0].answer.done()
    for one in items[1:]:
        with pytest.raises(Refused) as caught:
            await one.answer
        assert caught.value.reason is Reason.SHUTTING_DOWN

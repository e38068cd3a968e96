"""Whose turn it is, and how long an image takes."""

import math

import pytest
from vedette_server.contract.contract import ResizeRule
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import Options
from vedette_server.engine.estimate import Estimate, resized
from vedette_server.engine.queue import Flow, Item, Priority, Queue
from vedette_server.pool.ends import Loss

OPTIONS = Options(0.5, ())


def item(
    flow: Flow,
    *,
    deadline: float = math.inf,
    priority: Priority = Priority.NORMAL,
    cost: float = 1.0,
    data: bytes = b"x",
) -> Item:
    return Item(
        image=SentImage(EncodedImage(), data),
        options=OPTIONS,
        size=(10, 10),
        flow=flow,
        priority=priority,
        deadline=deadline,
        cost=cost,
    )


def served(queue: Queue) -> list[Item]:
    taken = []
    while (one := queue.next()) is not None:
        queue.take(one)
        taken.append(one)
    return taken


async def test_the_earliest_deadline_of_a_flow_comes_first() -> None:
    queue, flow = Queue(), Flow()
    late, early, never = item(flow, deadline=9), item(flow, deadline=3), item(flow)
    for one in (late, early, never):
        queue.push(one)
    assert served(queue) == [early, late, never]


async def test_between_flows_that_were_served_alike_the_earliest_deadline_comes_first() -> None:
    queue = Queue()
    late, early = item(Flow(), deadline=9), item(Flow(), deadline=3)
    queue.push(late)
    queue.push(early)
    assert served(queue) == [early, late]


async def test_flows_take_turns_however_much_each_sends() -> None:
    queue, greedy, modest = Queue(), Flow(), Flow()
    for _ in range(6):
        queue.push(item(greedy, deadline=1))
    for _ in range(2):
        queue.push(item(modest, deadline=9))
    order = [one.flow is modest for one in served(queue)]
    assert order == [False, True, False, True, False, False, False, False]


async def test_a_flow_of_costly_images_has_fewer_turns() -> None:
    queue, large, small = Queue(), Flow(), Flow()
    for _ in range(3):
        queue.push(item(large, cost=3.0))
    for _ in range(9):
        queue.push(item(small, cost=1.0))
    first = served(queue)[:8]
    assert sum(one.flow is small for one in first) == 6


@pytest.mark.parametrize("owner", [None, Flow()], ids=["each its own", "of one owner"])
async def test_a_flow_that_comes_back_has_saved_nothing_up(owner: Flow | None) -> None:
    queue, old, new = Queue(), Flow(owner=owner), Flow(owner=owner)
    for _ in range(5):
        queue.push(item(old))
    served(queue)
    for flow in (old, old, new, new, new):
        queue.push(item(flow))
    assert [one.flow is new for one in served(queue)] == [True, False, True, False, True]


async def test_priority_precedes_all_turns_and_what_was_lost_precedes_priority() -> None:
    queue, flow = Queue(), Flow()
    low, high, lost = item(flow, priority=Priority.LOW), item(flow, priority=Priority.HIGH), item(flow)
    lost.losses.append(Loss.CRASHED)
    for one in (low, high, lost):
        queue.push(one)
    assert queue.seconds_before(Flow(), Priority.NORMAL) == 2.0, "what is low does not delay it"
    assert served(queue) == [lost, high, low]


async def test_a_newcomer_waits_for_a_turn_of_each_flow_and_not_for_all_that_it_has_waiting() -> None:
    queue, file, other, new = Queue(), Flow(), Flow(), Flow()
    for flow in (*[file] * 10, *[other] * 10):
        queue.push(item(flow))
    assert queue.seconds_before(new, Priority.NORMAL) == 2.0
    assert queue.seconds_before(file, Priority.NORMAL) == 20.0, "behind its own, and as many of the other's"


async def test_bytes_and_number_are_kept() -> None:
    queue, flow = Queue(), Flow()
    one, other = item(flow, data=b"12345"), item(flow, data=b"123")
    queue.push(one)
    queue.push(other)
    assert (len(queue), queue.bytes) == (2, 8)
    assert queue.remove(one)
    assert not queue.remove(one)
    assert (queue.items, len(queue), queue.bytes) == ([other], 1, 3)


@pytest.mark.parametrize(("size", "shape"), [
    ((480, 640), (800, 1088)),
    ((1080, 1920), (768, 1344)),  # the longest edge decides
    ((640, 480), (1088, 800)),
])  # fmt: skip
def test_the_size_is_the_models(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert resized(size, ResizeRule(800, 1333)) == shape


def test_what_is_not_resized_keeps_its_size() -> None:
    assert resized((100, 200), ResizeRule(0, 0)) == (128, 224)


def test_an_estimate_follows_what_is_seen_and_guesses_by_area() -> None:
    estimate = Estimate(ResizeRule(0, 0))
    assert estimate.of((320, 320)) == 0.0
    estimate.learn((320, 320), 0.1)
    assert estimate.of((320, 320)) == pytest.approx(0.1)
    assert estimate.of((640, 320)) == pytest.approx(0.2), "twice the area"
    for _ in range(100):
        estimate.learn((320, 320), 0.3)
    assert estimate.of((320, 320)) == pytest.approx(0.3, rel=0.01)
    for width in range(1, 400):
        estimate.learn((32, 32 * width), 0.01)
    assert estimate.of((320, 320)) > 0, "what was long not seen is guessed again"


def test_a_few_odd_images_do_not_shut_others_out() -> None:
    estimate = Estimate(ResizeRule(0, 0))
    estimate.learn((320, 320), 0.1)
    for _ in range(3):
        estimate.learn((320, 320), 26.0)
        estimate.learn((640, 320), 26.0)
    assert estimate.of((320, 320)) < 0.3
    assert estimate.of((640, 320)) < 1.5, "nor those of a size that was never seen before"


async def test_those_of_one_owner_share_its_turns_in_turns() -> None:
    queue, owner, alone = Queue(), Flow(), Flow()
    first, second = Flow(owner=owner), Flow(owner=owner)
    for flow in (first, first, first, second, second, second, alone, alone, alone):
        queue.push(item(flow))
    order = served(queue)
    assert sum(one.flow is alone for one in order[:4]) == 2
    shared = [one.flow for one in order if one.flow is not alone]
    assert shared[:4] == [first, second, first, second]


async def test_a_newcomer_is_told_of_its_own_turn_among_those_of_its_owner() -> None:
    queue, owner = Queue(), Flow()
    streams = [Flow(owner=owner) for _ in range(4)]
    for flow in streams:
        for _ in range(3):
            queue.push(item(flow))
    alone = Flow()
    assert queue.seconds_before(alone, Priority.NORMAL) == 1.0, "one image of the owner, whatever it has waiting"
    assert queue.seconds_before(Flow(owner=owner), Priority.NORMAL) <= 5.0, "one of each, not all twelve"
    assert queue.seconds_before(streams[0], Priority.NORMAL) == 12.0, "behind three of its own, as are the others"

"""On a GPU: batches form, a lost worker gives its memory back, and what a GPU lacks or breaks is named.

That served answers equal Detectron2's there is held by the other tests, with TEST_DEVICE=cuda.
"""

import dataclasses
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from vedette_client import Client
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture

from tests.plugins.on_gpu import OnGpu
from tests.support import running
from tests.support.scripted import BREAK, EXHAUST, SETTINGS, query, started

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MOST_FREE = 200 * 2**20  # bytes that are left to others on a GPU that is full
BATCHES = "vedette_batch_images"


@pytest.fixture(scope="module")
def server() -> Iterator[running.Server]:
    with running.server("--device", "cuda") as running_server:
        yield running_server


def free() -> int:
    return int(torch.cuda.mem_get_info()[0])


def workers(server: running.Server) -> list[int]:
    """The processes that became workers, in turn."""
    return [event["pid"] for event in server.events("worker_ready")]


def test_the_golden_images_of_a_cpu_are_answered_the_same(server: running.Server) -> None:
    assert not server.events("worker_failed_to_start")
    assert running.sample(server, 'vedette_golden_checks_total{model="roadsigns",result="passed",version="1"}') == 1


def test_what_comes_at_once_is_answered_in_batches_as_it_is_alone(server: running.Server, scene: Picture) -> None:
    data = jpeg(scene.pixels)
    with Client(server.address, timeout=running.PATIENCE) as client, ThreadPoolExecutor(32) as threads:
        alone = client.detect(data)
        answers = [*threads.map(lambda _index: client.detect(data), range(256))]
    batches, images = (running.sample(server, f"{BATCHES}_{name}") for name in ("count", "sum"))
    assert images > 1.5 * batches
    assert len(alone)
    for answer in answers:
        assert answer.class_ids.tolist() == alone.class_ids.tolist()
        assert abs(answer.scores - alone.scores).max() < 1e-4
        assert abs(answer.boxes - alone.boxes).max() < 0.02


def test_a_lost_worker_is_replaced_and_gives_its_memory_back(server: running.Server, scene: Picture) -> None:
    torch.zeros(1, device="cuda")  # what this process itself takes is taken before it is looked
    before = free()
    with Client(server.address, timeout=running.PATIENCE) as client:
        for _ in range(3):
            lost = workers(server)
            os.kill(lost[-1], signal.SIGKILL)
            assert client.detect(jpeg(scene.pixels))
            running.wait_for(lambda: len(workers(server)) > len(lost), "another worker")  # noqa: B023  at once
    running.wait_for(lambda: free() > before - MOST_FREE, "the lost workers' memory")


def test_a_gpu_without_memory_to_load_a_model_is_named_and_tried_again(scene: Picture) -> None:
    torch.zeros(1, device="cuda")
    taken = fill()
    with running.server("--device", "cuda", serving=False) as server:
        (failed, *_) = server.logged("worker_failed_to_start")
        assert failed["check"] == "OUT_OF_MEMORY"
        taken.clear()
        torch.cuda.empty_cache()
        server.wait_until_serving()
        with Client(server.address) as client:
            assert client.detect(jpeg(scene.pixels))


def fill() -> list[torch.Tensor]:
    """Take all of the GPU's memory but a little."""
    taken, size = [], 2**34
    while (left := free() - MOST_FREE) > 0:
        size = min(size, max(left, 2**21))
        taken.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    return taken


@pytest.mark.parametrize(("first", "reason", "cause"), [
    (EXHAUST, Reason.WORKER_OUT_OF_MEMORY, "out_of_memory"),
    (BREAK, Reason.IMAGE_POISONOUS, "device_failed"),
])  # fmt: skip
async def test_what_a_gpu_lacks_or_breaks_is_named_and_fails_no_other_image(
    first: int, reason: Reason, cause: str
) -> None:
    engine = await started(dataclasses.replace(SETTINGS, factory="tests.plugins.on_gpu:on_gpu"))
    with pytest.raises(Refused) as caught:
        await engine.detect(query(first))
    assert caught.value.reason is reason
    assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299
    assert engine.served[0]._pool.losses == {cause: 2}
    await engine.stop()


def asking(**_start: object) -> OnGpu:
    """Of this module, which asks whether there is a GPU as it is imported."""
    return OnGpu()


async def test_what_asks_for_a_gpu_as_it_is_imported_keeps_no_worker_from_using_it() -> None:
    engine = await started(dataclasses.replace(SETTINGS, factory="tests.integration.test_gpu:asking"))
    assert (await engine.detect(query(0))).answer.evidence.best_score == 7 * 299
    await engine.stop()

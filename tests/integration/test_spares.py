"""A process stands by, and becomes the next worker when one is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from vedette_client import Client
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture

from tests import running


@pytest.fixture
def server() -> Iterator[running.Server]:
    with running.server("--threads", "1", spares=1) as started:
        yield started


def workers(server: running.Server) -> list[int]:
    """The processes that became workers, in turn."""
    return [event["pid"] for event in server.events("worker_ready")]


def standing_by(server: running.Server) -> int:
    """The process that stands by, once there is one and it has imported what it needs."""
    (pid,) = running.wait_for(lambda: set(server.worker_pids()) - set(workers(server)), "a spare")
    running.wait_for(lambda: "libtorch_python" in Path(f"/proc/{pid}/maps").read_text(), "its imports")
    return int(pid)


def test_a_lost_worker_is_replaced_by_the_process_that_stands_by(server: running.Server, scene: Picture) -> None:
    spare = standing_by(server)
    with Client(server.address, timeout=running.PATIENCE) as client:
        for _ in range(2):
            lost = workers(server)
            os.kill(lost[-1], signal.SIGKILL)
            assert client.detect(jpeg(scene.pixels))
            running.wait_for(lambda: len(workers(server)) > len(lost), "another worker")  # noqa: B023  at once
            assert workers(server)[-1] == spare
            spare = standing_by(server)


def test_a_spare_that_is_lost_is_done_without(server: running.Server, scene: Picture) -> None:
    os.kill(standing_by(server), signal.SIGKILL)
    os.kill(workers(server)[-1], signal.SIGKILL)
    with Client(server.address, timeout=running.PATIENCE) as client:
        assert client.detect(jpeg(scene.pixels))
    assert standing_by(server) not in workers(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_server(number: signal.Signals, server: running.Server) -> None:
    spare = standing_by(server)
    server.stop(number)
    running.wait_for(lambda: not server.is_worker(spare), "the spare to end")

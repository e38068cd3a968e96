"""Workers are forked from one process, which has their imports done, and are the gateway's children."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from vedette_client import Client
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture
from vedette_server.pool import forks, worker

from tests.support import running


@contextlib.contextmanager
def serving() -> Iterator[running.Server]:
    with running.server("--workers", "2", "--threads", "1") as started:
        running.wait_for(lambda: len(ready(started)) == 2, "both workers")
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[running.Server]:
    """One that outlives what is done to its processes."""
    with serving() as started:
        yield started


def forkserver(server: running.Server) -> int:
    """The process that workers come from."""
    (pid,) = running.wait_for(lambda: set(server.children()) - set(server.worker_pids()), "a fork server")
    return int(pid)


def ready(server: running.Server) -> set[int]:
    return {event["pid"] for event in server.events("worker_ready")}


def replaced(server: running.Server) -> None:
    """Kill every worker, and wait until as many others serve."""
    lost = set(server.worker_pids())
    running.wait_for(lambda: lost <= ready(server), "the workers to be logged")
    before = ready(server)
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    running.wait_for(lambda: len(ready(server) - before) == len(lost), "other workers")


def private(pid: int) -> int:
    """The kibibytes of a process's memory that it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_workers_share_the_memory_of_their_imports(server: running.Server) -> None:
    for pid in server.worker_pids():
        assert private(pid) < resident(pid) / 2


def test_lost_workers_are_forked_anew_and_leave_nothing_behind(server: running.Server, scene: Picture) -> None:
    origin = forkserver(server)
    with Client(server.address, timeout=running.PATIENCE) as client:
        for _ in range(3):
            replaced(server)
            assert client.detect(jpeg(scene.pixels))
    assert forkserver(server) == origin
    assert len(server.children()) == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_fork_server_that_is_lost_is_replaced_and_workers_stay(
    number: signal.Signals, server: running.Server, scene: Picture
) -> None:
    origin, workers = forkserver(server), server.worker_pids()
    os.kill(origin, number)
    with Client(server.address, timeout=running.PATIENCE) as client:
        assert client.detect(jpeg(scene.pixels))
        assert server.worker_pids() == workers
        replaced(server)
        assert client.detect(jpeg(scene.pixels))
    assert forkserver(server) != origin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_server_and_so_do_workers(number: signal.Signals) -> None:
    with serving() as server:
        processes = server.children()
        server.stop(number)
        running.wait_for(lambda: not any(map(running.lives, processes)), "all of them to end")


def test_a_worker_that_fails_leaves_its_channel_to_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that reads from a closed one would end the process first, and hide of what it ends."""

    def fail(channel: socket.socket) -> None:
        raise RuntimeError(channel)

    monkeypatch.setattr(worker, "serve", fail)
    monkeypatch.setattr(forks, "NAME", Path("/proc/self/comm").read_text())
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with pytest.raises(RuntimeError) as caught:
        forks._work(theirs.detach(), [])
    with ours, caught.value.args[0], pytest.raises(BlockingIOError):  # were it closed, there would be an end to read
        ours.recv(1)

"""Workers lost under load: by kill -9, by SIGSTOP, for want of memory, and all at once every tenth time.

`python -m tests.bench.losses --count N` prints what became of the calls beside it, each with a deadline of 10 s and
without retries, and how long each worker's replacement took, from the moment at which its loss was noticed.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.demo.publish import jpeg

from tests.bench import load
from tests.support import running

if TYPE_CHECKING:  # it is in the stubs alone
    from vedette.v1.detection_service_pb2_grpc import DetectionServiceAsyncStub

DEADLINE = 10.0  # seconds
HANG_SECONDS = 4.0
CALLERS = 3
_LARGE = jpeg(np.zeros((2900, 2900, 3), np.uint8))  # whose pixels are mapped by themselves, each time anew
_ALL_AT_ONCE = 10  # every so many rounds


@dataclass
class Losses:
    """The figures of the run."""

    lost: Counter[str] = field(default_factory=Counter)  # workers, by the cause that the server's log names
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of each replacement

    def __str__(self) -> str:
        """The figures, one a line."""
        lost = ", ".join(f"{cause} {count}" for cause, count in sorted(self.lost.items()))
        p99 = float(np.percentile(self.seconds, 99))
        return (
            f"lost workers        {self.lost.total()} ({lost})\n"
            f"calls               {self.answered} answered, {self.failed.total()} failed {dict(self.failed) or ''}\n"
            f"replaced within     median {statistics.median(self.seconds):.2f} s, p99 {p99:.2f} s, "
            f"most {max(self.seconds):.2f} s"
        )


def _starve(pid: int) -> None:
    """Let a process have no more memory than it has."""
    resource.prlimit(pid, resource.RLIMIT_DATA, (1, resource.RLIM_INFINITY))


WAYS: tuple[Callable[[int], None], ...] = (
    lambda pid: os.kill(pid, signal.SIGKILL),
    lambda pid: os.kill(pid, signal.SIGSTOP),
    _starve,
)


class _Log:
    """A server's log, read on as it grows: by then it has thousands of lines."""

    def __init__(self, started: running.Server) -> None:
        self._file = started.log_path.open()
        self.lost: list[dict[str, Any]] = []
        self.ready: list[dict[str, Any]] = []

    def read(self) -> None:
        by_name = {"worker_lost": self.lost, "worker_ready": self.ready}
        for line in self._file:
            event = json.loads(line) if line.startswith("{") and line.endswith("}\n") else {}
            if (events := by_name.get(event.get("event", ""))) is not None:
                events.append(event)


async def lose(count: int) -> Losses:
    """Lose at least so many workers, one after another was replaced, beside calls."""
    seen, done = Losses(), asyncio.Event()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(f"hang_seconds = {HANG_SECONDS}\n")
        config.flush()
        with load.server("--config", config.name) as started:
            log, number = _Log(started), 0
            async with grpc.aio.insecure_channel(started.address, options=load.OPTIONS) as channel:
                stub = DetectionServiceStub(channel)
                callers = [asyncio.create_task(_call(stub, load.picture(), seen, done)) for _ in range(CALLERS)]
                while len(log.lost) < count:
                    await _lose(started, log, stub, number)
                    number += 1
                done.set()
                await asyncio.gather(*callers)
            seen.lost = Counter(event["cause"] for event in log.lost)
            back = log.ready[load.WORKERS :]
            seen.seconds = [(_time(new) - _time(old)).total_seconds() for old, new in zip(log.lost, back, strict=True)]
    return seen


async def _call(stub: "DetectionServiceAsyncStub", data: bytes, seen: Losses, done: asyncio.Event) -> None:
    while not done.is_set():
        try:
            await stub.Detect(load.request(data), timeout=DEADLINE)
            seen.answered += 1
        except grpc.aio.AioRpcError as error:
            seen.failed[f"{error.code().name}: {error.details()}"] += 1


async def _lose(started: running.Server, log: _Log, stub: "DetectionServiceAsyncStub", number: int) -> None:
    """Lose one worker, or all of them, and wait until they are replaced."""
    log.read()
    workers, before = started.worker_pids(), len(log.lost)
    victims = workers if number % _ALL_AT_ONCE == _ALL_AT_ONCE - 1 else workers[:1]
    way = WAYS[number % len(WAYS)]
    for pid in victims:
        way(pid)
    while len(log.lost) < before + len(victims) or len(log.ready) < len(log.lost) + load.WORKERS:
        if way is _starve and len(log.lost) < before + len(victims):
            await stub.Detect(load.request(_LARGE), timeout=DEADLINE)  # it takes new memory, as no other call does
        await asyncio.sleep(0.02)
        log.read()


def _time(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="workers to lose")
    print(asyncio.run(lose(parser.parse_args().count)))


if __name__ == "__main__":
    main()

"""Generated requests at the parser and at admission, in this process: each is answered, or refused by name.

    python -m tests.bench.requests --count 1000000 --seed 1

Each goes the way that the server's own take, from the deserialiser to the queue and back, but that the worker is one
of this process that answers at once. What raises, hangs, is answered as a bug, is read otherwise than Protobuf reads
it, or makes the process grow is told.
"""

import argparse
import asyncio
import collections
import dataclasses
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast
from unittest import mock

import numpy as np
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_server.access.access import Access, Credentials
from vedette_server.contract.answer import Answer, Detections, Evidence, StageTimes
from vedette_server.contract.contract import ImageLimits, Input
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Options
from vedette_server.engine.engine import Engine
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.settings import PoolSettings
from vedette_server.monitor.metrics import Metrics
from vedette_server.pool.process import Worker
from vedette_server.repository import repository
from vedette_server.rpc import guard, wire
from vedette_server.rpc.calls import Calls
from vedette_server.rpc.detection import DetectionService
from vedette_server.rpc.errors import TABLE
from vedette_server.rpc.open_streams import OpenStreams
from vedette_server.rpc.server import _handlers
from vedette_server.settings import BUNDLED_REPOSITORY
from vedette_server.watch.probe import Probe

from tests.support import wire_requests

MIB = 2**20
CEILING = 64 * MIB  # that the process may grow by, once it is warm
LIMITS = ImageLimits(max_bytes=120_000, max_pixels=40_000, max_edge=1_000)
ANSWERED = "answered"
_HANG_SECONDS = 20  # of one request
_WARM = 2_000  # requests
_METHODS = (*6 * ["Detect"], *2 * ["StreamDetect"], "Diagnose", "GetModel", "ListModels")
_NEVER = ("INTERNAL", "DEADLINE_EXCEEDED", "OVERLOADED", "IMAGE_POISONOUS", "WORKERS_LOST", "MODEL_NOT_READY")
_SHOWN = 20  # of what is wrong


class _Inline:
    """A worker that has answered when it is asked, and has found nothing."""

    alive = room = True
    forked = 0.0
    batches = ()
    max_batch = 1

    def submit(
        self, works: Sequence[tuple[SentImage, Options]], *, alone: bool = False
    ) -> list[asyncio.Future[Answer]]:
        del alone
        nothing = Detections(
            boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int32)
        )
        replies = []
        for _image, options in works:
            reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            evidence = Evidence(best_scores=np.zeros(1, np.float32), scored=1)
            reply.set_result(
                Answer(
                    height=16,
                    width=24,
                    threshold=options.threshold,
                    detections=nothing,
                    evidence=evidence,
                    times=StageTimes(0, 0, 0, 0),
                )
            )
            replies.append(reply)
        return replies


class _Ended(Exception):  # noqa: N818  how gRPC ends a call, not an error
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Context:
    """A call as gRPC shows it to a service."""

    def time_remaining(self) -> float:
        return _HANG_SECONDS / 2

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def set_trailing_metadata(self, _metadata: object) -> None:
        """Be told what goes with the end."""

    async def abort_with_status(self, status: Any) -> NoReturn:
        told = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
        raise _Ended(reason(told))


def reason(status: status_pb2.Status) -> str:
    """The one reason of a status. Raises `ValueError` where there is none of the table."""
    (found,) = [one for one in status.details if one.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    info = error_details_pb2.ErrorInfo()
    found.Unpack(info)
    if info.reason not in TABLE:
        raise ValueError(info.reason)
    return str(info.reason)


@dataclass
class Tally:
    """Outcomes of the requests."""

    outcomes: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds, of the processor
    slowest_number: int = 0
    grown: int = 0  # bytes, since it was warm

    def of(self, outcome: str) -> int:
        return sum(count for (_, seen), count in self.outcomes.items() if seen == outcome)


class Service:
    """The server's own methods, without gRPC."""

    def __init__(self) -> None:
        (version,) = repository.read(BUNDLED_REPOSITORY)
        contract = dataclasses.replace(version.contract, limits=LIMITS, inputs=tuple(Input))
        settings = PoolSettings(
            factory="",
            workers=1,
            threads=1,
            devices=("cpu",),
            max_queued=64,
            max_queued_bytes=2**26,
            golden_seconds=0,
        )
        metrics = Metrics()
        self._engine = Engine(settings, metrics, Probe(metrics), max_seconds=_HANG_SECONDS / 2)
        with mock.patch.object(ServedVersion, "run"):  # no process is started
            served = self._engine.load(dataclasses.replace(version, contract=contract))
        served._pool.workers.append(cast("Worker", _Inline()))
        streams = OpenStreams(self._engine, 64)
        self._handlers: Any = _handlers(DetectionService(self._engine, Calls(self._engine), streams))
        self._access = Access()
        self.bugs: list[str] = []
        structlog.configure(processors=[self._note])

    def _note(self, _logger: object, _level: str, event: Any) -> NoReturn:
        """Keep what the log says of bugs, and drop all else."""
        if event.get("exc_info"):
            self.bugs.append(traceback.format_exc(limit=-4))
        raise structlog.DropEvent

    async def ask(self, method: str, messages: Sequence[bytes]) -> list[str]:
        """Return the end of a call: the answer or the reason, of each frame of a stream as well."""
        name = f"/{guard.SERVICE}/{method}"
        guard._current.set(self._access.begin(Credentials(), guard.verb(name)))
        handler = self._handlers.service(_Details(name))
        sent = [handler.request_deserializer(one) for one in messages]
        try:
            if method != "StreamDetect":
                handler.response_serializer(await handler.unary_unary(sent[0], _Context()))
                return [ANSWERED]
            outcomes = []
            async for told in handler.stream_stream(_each(sent), _Context()):
                handler.response_serializer(told)
                outcomes.append(reason(told.error.status) if told.HasField("error") else ANSWERED)
        except _Ended as ended:
            return [ended.reason]
        return outcomes or [ANSWERED]


@dataclass
class _Details:
    method: str
    invocation_metadata: tuple[()] = ()


async def _each(sent: Sequence[Any]) -> AsyncIterator[Any]:
    for one in sent:
        yield one


_SPLIT: dict[str, tuple[Callable[[bytes], Any], type[Message]]] = {
    "Detect": (wire.detect_request, pb.DetectRequest),
    "StreamDetect": (wire.stream_request, pb.StreamDetectRequest),
}


def differs(method: str, data: bytes) -> str:
    """Describe how the server's reading of a message differs from Protobuf's; empty if it does not, or is refused."""
    if method not in _SPLIT:
        return ""
    ours, kind = _SPLIT[method]
    try:
        read = ours(data)
    except Exception:  # noqa: BLE001  which of them is told elsewhere
        return ""
    if read.data is None:
        return ""
    theirs: Message = kind.FromString(data)  # raises where ours ought to have raised
    message: Any = read.message
    image = message.image if method == "Detect" else message.frame.image
    if (kept := image.WhichOneof("content")) is not None:
        getattr(image, kept).data = bytes(read.data)
    # As bytes: a threshold that is no number does not equal itself.
    same = message.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    return "" if same else "READ OTHERWISE than Protobuf does"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _hangs(_number: int, _frame: object) -> NoReturn:
    raise TimeoutError


def generate(seed: int, number: int) -> tuple[str, list[bytes]]:
    """The request of that number: its method and messages."""
    rng = random.Random(seed << 32 | number)  # noqa: S311  not secrets
    method = rng.choice(_METHODS)
    if method != "StreamDetect":
        return method, [wire_requests.generated(rng, method)]
    first = wire_requests.configuration(rng) if rng.random() < 0.8 else wire_requests.generated(rng, method)
    return method, [first, *(wire_requests.generated(rng, method) for _ in range(rng.randrange(4)))]


async def _one(service: Service, tally: Tally, number: int, method: str, messages: list[bytes]) -> None:
    signal.alarm(_HANG_SECONDS)
    started = time.process_time()
    try:
        outcomes = await service.ask(method, messages)
        spent = time.process_time() - started
        outcomes += filter(None, (differs(method, one) for one in messages))
    except BaseException as error:  # noqa: BLE001  whatever it is, it is told
        outcomes, spent = [f"RAISED {type(error).__name__}"], time.process_time() - started
        service.bugs.append(traceback.format_exc(limit=-4))
    finally:
        signal.alarm(0)
    if spent > tally.slowest:
        tally.slowest, tally.slowest_number = spent, number
    for outcome in outcomes:
        tally.outcomes[method, outcome] += 1
        if outcome in _NEVER or outcome not in (ANSWERED, *TABLE):
            tally.wrong.append(f"{number}: {method}: {outcome}")
    tally.wrong += [f"{number}: {method}: {bug}" for bug in service.bugs]
    service.bugs.clear()


async def run(count: int, seed: int, first: int = 0) -> Tally:
    """Ask so many."""
    tally, service = Tally(), Service()
    signal.signal(signal.SIGALRM, _hangs)
    warm = 0
    for number in range(first, first + count):
        await _one(service, tally, number, *generate(seed, number))
        if number - first == min(_WARM, count // 2):
            warm = _resident()
        if number % 5_000 == 0:
            tally.grown = max(tally.grown, _resident() - warm if warm else 0)
    tally.grown = max(tally.grown, _resident() - warm)
    if tally.grown > CEILING:
        tally.wrong.append(f"the process has grown by {tally.grown / MIB:.0f} MiB")
    return tally


def main() -> None:
    """Ask many and print what became of them; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first request's number")
    chosen = parser.parse_args()
    started = time.monotonic()
    tally = asyncio.run(run(chosen.count, chosen.seed, chosen.first))
    for outcome, count in tally.outcomes.most_common():
        print(f"{count:8} {' '.join(outcome)}")
    print(*tally.wrong[:_SHOWN], sep="\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{chosen.count} requests in {time.monotonic() - started:.0f} s, {len(tally.wrong)} wrong; the slowest took "
        f"{tally.slowest * 1e3:.1f} ms (number {tally.slowest_number}); memory: {peak / MIB:.0f} MiB at most, grown by "
        f"{tally.grown / MIB:.0f} MiB",
    )
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()

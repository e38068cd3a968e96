"""Whatever raises between admission and answer settles its image alone: nobody waits in vain, and streams live on.

A fault is put into one place of an image's life at a time, in the gateway or in the worker process, and strikes only
images that carry its mark. Each place is tried with `Detect` and with both kinds of streams over a real connection.
"""

import asyncio
import gc
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from vedette.v1 import answer_pb2, image_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.addresses import Tcp
from vedette_server.contract import convert as contract_convert
from vedette_server.contract.answer import Answer
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Outcome, Query
from vedette_server.engine.queue import Item
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.pool.jobs import Jobs
from vedette_server.pool.process import Worker
from vedette_server.rpc import convert, detection
from vedette_server.rpc.server import RpcServer
from vedette_server.watch.probe import Probe

from tests.support import invariants
from tests.support.scripted import MODEL, Scripted, Silent, query

if TYPE_CHECKING:  # it is in the stubs alone
    from vedette.v1.detection_service_pb2_grpc import DetectionServiceAsyncStub

GOOD, MARKED = 0, 100
PREPARE, INFER, ENCODE, UNSENDABLE, UNREADABLE = 101, 102, 103, 104, 105  # marks that the worker itself heeds
SETTINGS = PoolSettings(
    factory="tests.integration.test_settling:faulty",
    workers=2,
    threads=1,
    devices=("cpu",),
    max_queued=64,
    max_queued_bytes=10_000_000,
    violated=invariants.note,
)


class BrokenError(Exception):
    """The fault."""


class Faulty(Scripted):
    """Fails at the stage that the first byte of an image names."""

    def prepare(self, image: SentImage, options: Options) -> tuple[bytes, Options]:
        if image.data[0] == PREPARE:
            raise BrokenError
        return super().prepare(image, options)

    def infer(self, images: Sequence[tuple[bytes, Options]]) -> list[tuple[bytes, Options]]:
        if any(data[0] == INFER for data, _ in images):
            raise BrokenError
        return super().infer(images)

    def encode(self, inferred: tuple[bytes, Options]) -> Answer:
        answer = super().encode(inferred)
        match inferred[0][0]:
            case 103:  # ENCODE
                raise BrokenError
            case 104:  # UNSENDABLE
                object.__setattr__(answer, "height", object())
            case 105:  # UNREADABLE
                object.__setattr__(answer, "height", "high")
        return answer


def faulty(**_start: object) -> Faulty:
    return Faulty()


def strikes(value: object) -> bool:
    """True if a marked image is among a function's arguments."""
    if isinstance(value, bytes | memoryview):
        return len(value) == 300 and value[0] == MARKED
    if isinstance(value, list | tuple):
        return any(map(strikes, value))
    match value:
        case Item(image=inner) | Query(image=inner) | SentImage(data=inner) | Outcome(answer=inner):
            return strikes(inner)
        case Answer():
            return value.evidence.best_score == MARKED + 299 * 7
    return False


@dataclass
class Place:
    """Where a marked image meets its fault."""

    name: str
    break_: Callable[[pytest.MonkeyPatch, ServedVersion], None] = lambda _patch, _served: None
    mark: int = MARKED
    fails: bool = True  # as INTERNAL; else the answer is given all the same


def raising(owner: Callable[[ServedVersion], Any], name: str) -> Callable[[pytest.MonkeyPatch, ServedVersion], None]:
    """A method that raises when it is given a marked image."""

    def put(patch: pytest.MonkeyPatch, served: ServedVersion) -> None:
        target = owner(served)
        original = getattr(target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if strikes(args) or strikes(list(kwargs.values())):
                raise BrokenError
            return original(*args, **kwargs)

        patch.setattr(target, name, call)

    return put


def after_marked(
    owner: Callable[[ServedVersion], Any], name: str
) -> Callable[[pytest.MonkeyPatch, ServedVersion], None]:
    """A method that raises while a marked image waits or runs, though it is not given it."""

    def put(patch: pytest.MonkeyPatch, served: ServedVersion) -> None:
        target = owner(served)
        original = getattr(target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            ledger = served._ledger
            if any(strikes(item.image) for item in (*ledger.queue.items, *ledger.running)):
                raise BrokenError
            return original(*args, **kwargs)

        patch.setattr(target, name, call)

    return put


PLACES = [
    Place("check", raising(lambda _served: contract_convert, "check")),
    Place("room", raising(lambda served: served.scheduler, "put")),
    Place("admission", raising(lambda served: served._ledger, "admit")),
    Place("queue", raising(lambda served: served._ledger.queue, "push")),
    Place("turn", raising(lambda served: served._ledger.queue, "_turn")),
    Place("dispatch", raising(lambda served: served.scheduler, "_serve")),
    Place("batch", raising(lambda served: served.scheduler, "_batch")),
    Place("shared memory", raising(lambda _served: Jobs, "_job")),
    Place("message", after_marked(lambda _served: Worker, "_send")),
    Place("run", raising(lambda served: served._ledger, "run")),
    Place("worker's prepare", mark=PREPARE),
    Place("worker's infer", mark=INFER),
    Place("worker's encode", mark=ENCODE),
    Place("worker's reply cannot be sent", mark=UNSENDABLE),
    Place("worker's reply cannot be read", mark=UNREADABLE),
    Place("reply's callback", after_marked(lambda served: served.scheduler, "_conclude")),
    Place("learning", raising(lambda served: served.scheduler._estimate, "learn_from"), fails=False),
    Place("findings", raising(lambda _served: Probe, "see")),
    Place("conversion", raising(lambda _served: convert, "answer")),
]


@dataclass
class Running:
    """An engine behind gRPC."""

    engine: Engine
    stub: "DetectionServiceAsyncStub"

    @property
    def served(self) -> ServedVersion:
        return self.engine.served[0]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    engine = Engine(SETTINGS, Silent(), Probe(Silent()), max_seconds=20)
    server = RpcServer(engine, 1_000_000, 4)
    address = await server.start(Tcp("127.0.0.1", 0))
    engine.load(MODEL)
    while len(engine.served[0].pids) < SETTINGS.workers:
        engine.changed.clear()
        await engine.changed.wait()
    channel = grpc.aio.insecure_channel(address)
    yield Running(engine, DetectionServiceStub(channel))
    await channel.close()
    await server.stop(0)
    await engine.stop()


def image(first: int) -> image_pb2.Image:
    pixels = bytes([first]) + bytes([7]) * 299
    return image_pb2.Image(
        raw=image_pb2.RawImage(data=pixels, height=10, width=10, pixel_format=image_pb2.PIXEL_FORMAT_BGR8)
    )


def assert_internal(status: status_pb2.Status) -> None:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "INTERNAL"
    assert len(info.metadata["request_id"]) > 8
    assert "BrokenError" not in str(status)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_a_fault_settles_its_image_and_harms_no_other(
    running: Running, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.break_(monkeypatch, running.served)
    call = running.stub.Detect(pb.DetectRequest(image=image(place.mark)), timeout=15)
    if place.fails:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        status = rpc_status.from_call(caught.value)
        assert status is not None, caught.value
        assert_internal(status)
    else:
        await call

    for policy in (pb.DROP_POLICY_LOSSLESS, pb.DROP_POLICY_LATEST):
        fates = [fate async for fate in stream(running, policy, [GOOD, place.mark, GOOD])]
        expected = ["answer", "error" if place.fails else "answer", "answer"]
        assert [fate.WhichOneof("message") for fate in fates] == expected
        if place.fails:
            assert_internal(fates[1].error.status)

    ledger = running.served._ledger
    assert (ledger.admitted - ledger.settled, len(ledger.queue), len(ledger.running)) == (0, 0, 0)


async def stream(
    running: Running, policy: pb.DropPolicy.ValueType, marks: Sequence[int]
) -> AsyncIterator[pb.StreamDetectResponse]:
    """Send one frame after the other, each when the one before is told, so that none is superseded."""
    told = asyncio.Semaphore(1)

    async def requests() -> AsyncIterator[pb.StreamDetectRequest]:
        yield pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=policy, stream_id="camera"))
        for number, mark in enumerate(marks):
            await told.acquire()
            while running.served.standing.state is not State.READY:  # a worker may have been lost to the frame before
                running.engine.changed.clear()
                await running.engine.changed.wait()
            yield pb.StreamDetectRequest(frame=pb.Frame(frame_id=number, image=image(mark)))

    async with asyncio.timeout(20):
        async for response in running.stub.StreamDetect(requests()):
            yield response
            told.release()


@pytest.mark.parametrize("policy", [pb.DROP_POLICY_LOSSLESS, pb.DROP_POLICY_LATEST])
async def test_a_stream_that_rests_holds_no_frame(running: Running, policy: pb.DropPolicy.ValueType) -> None:
    """Sixty such streams once held more memory than all of them may, and nothing was read any more."""
    edge, over = 499, asyncio.Event()
    pixels = bytes([GOOD]) * (3 * edge * edge)
    raw = image_pb2.RawImage(data=pixels, height=edge, width=edge, pixel_format=image_pb2.PIXEL_FORMAT_BGR8)

    async def requests() -> AsyncIterator[pb.StreamDetectRequest]:
        yield pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=policy))
        yield pb.StreamDetectRequest(frame=pb.Frame(frame_id=1, image=image_pb2.Image(raw=raw)))
        await over.wait()

    async with asyncio.timeout(20):
        call = running.stub.StreamDetect(requests())
        told = await call.read()
        assert isinstance(told, pb.StreamDetectResponse)
        assert told.HasField("answer")
        # By its type alone: asking others for their class has some of them warn.
        while any(type(one) is memoryview and len(one) == len(pixels) for one in gc.get_objects()):
            await asyncio.sleep(0.01)
        over.set()


async def test_a_monitor_that_fails_costs_no_answer(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_facts: object) -> None:
        raise BrokenError

    for name in ("answered", "state", "batch", "refused", "dropped", "streams"):
        monkeypatch.setattr(Silent, name, fail)
    response = await running.stub.Detect(pb.DetectRequest(image=image(GOOD)), timeout=15)
    assert response.answer.model_name == "test"
    fates = [fate async for fate in stream(running, pb.DROP_POLICY_LOSSLESS, [GOOD, GOOD])]
    assert [fate.WhichOneof("message") for fate in fates] == ["answer", "answer"]


async def test_a_message_too_large_for_a_worker_is_not_sent_by_half(running: Running) -> None:
    """Only the image that does not fit fails; the worker that would have got it answers the next one."""
    before = set(running.served.pids)
    served, item = running.engine.item(query(GOOD), deadline=math.inf)
    item.options = msgspec.structs.replace(item.options, outputs=item.options.outputs * 60_000)
    served.scheduler.put(item)
    with pytest.raises(Refused) as caught:
        await item.answer
    assert caught.value.reason is Reason.INTERNAL
    response = await running.stub.Detect(pb.DetectRequest(image=image(GOOD)), timeout=15)
    assert response.answer.model_name == "test"
    assert set(running.served.pids) == before


async def test_outputs_repeated_sixty_thousand_times_are_one(running: Running) -> None:
    options = pb.DetectOptions(outputs=[answer_pb2.OUTPUT_KIND_BOXES] * 60_000)
    response = await running.stub.Detect(pb.DetectRequest(image=image(GOOD), options=options), timeout=15)
    assert response.answer.model_name == "test"


async def test_a_stream_that_sends_nothing_is_told_what_is_missing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "CONFIGURE_SECONDS", 0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.StreamDetect(timeout=15).read()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert "not sent within 0.2 seconds" in status.message


async def test_who_no_longer_waits_for_the_end_of_grpc_does_not_keep_it_from_ending() -> None:
    server = RpcServer(Engine(SETTINGS, Silent(), Probe(Silent()), max_seconds=20), 1_000_000, 4)
    await server.start(Tcp("127.0.0.1", 0))
    ended = asyncio.create_task(server.ended())
    await asyncio.sleep(0)  # it waits
    ended.cancel()
    await asyncio.wait({ended})
    await server.stop(0)


async def test_the_end_of_grpc_ends_the_server() -> None:
    """A process that nobody can reach any more is replaced by whoever runs it, if it ends."""
    server = RpcServer(Engine(SETTINGS, Silent(), Probe(Silent()), max_seconds=20), 1_000_000, 4)
    await server.start(Tcp("127.0.0.1", 0))
    ended = asyncio.create_task(server.ended())
    await server._server.stop(0)
    with pytest.raises(RuntimeError, match="ended by itself"):
        await ended
    await server.stop(0)

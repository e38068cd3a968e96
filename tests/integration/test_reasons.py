"""Every reason of the error table over a real connection: those that bad input provokes, and here those that take a
server in trouble: real worker processes with a predictor that misbehaves when its image says so."""

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import timestamp_pb2
from google.rpc import error_details_pb2, status_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.addresses import Tcp
from vedette_server.contract.refusal import Reason
from vedette_server.engine.engine import Engine
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.rpc.errors import TABLE
from vedette_server.rpc.open_streams import REST_SECONDS
from vedette_server.rpc.server import RpcServer
from vedette_server.watch.probe import Probe

from tests.support import bad_requests
from tests.support.scripted import EXHAUST, KILL, MODEL, RAISE, SETTINGS, SLEEP, Silent

if TYPE_CHECKING:  # it is in the stubs alone
    from vedette.v1.detection_service_pb2_grpc import DetectionServiceAsyncStub

OTHER = dataclasses.replace(MODEL, name="other")
SLOW = dataclasses.replace(SETTINGS, workers=1)
BROKEN = dataclasses.replace(SETTINGS, factory="tests.support.scripted:unloadable")


@dataclass
class Running:
    """An engine behind gRPC."""

    engine: Engine
    stub: "DetectionServiceAsyncStub"

    async def detect(self, first: int, model: str = "test") -> pb.DetectResponse:
        raw = image_pb2.RawImage(
            data=bytes([first]) + bytes(299), height=10, width=10, pixel_format=image_pb2.PIXEL_FORMAT_BGR8
        )
        response: pb.DetectResponse = await self.stub.Detect(
            pb.DetectRequest(model_name=model, image=image_pb2.Image(raw=raw)), timeout=60
        )
        return response


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start engines with what their pools are like, and stop them after the test."""
    started: list[tuple[Engine, RpcServer, grpc.aio.Channel]] = []

    async def start(
        settings: PoolSettings = SETTINGS, until: State = State.READY, max_seconds: float = 60.0
    ) -> Running:
        engine = Engine(settings, Silent(), Probe(Silent()), max_seconds=max_seconds)
        server = RpcServer(engine, 1_000_000, 1)
        address = await server.start(Tcp("127.0.0.1", 0))
        for model in (MODEL, OTHER):
            engine.load(model)
        while any(served.standing.state is not until for served in engine.served):
            engine.changed.clear()
            await engine.changed.wait()
        channel = grpc.aio.insecure_channel(address)
        started.append((engine, server, channel))
        return Running(engine, DetectionServiceStub(channel))

    yield start
    for engine, server, channel in started:
        await channel.close()
        await server.stop(0)
        await engine.stop()


Serve = Callable[..., Awaitable[Running]]


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, status_pb2.Status]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    return caught.value.code(), status_pb2.Status.FromString(trailers["grpc-status-details-bin"])


async def poisonous(serve: Serve) -> Awaitable[object]:
    return (await serve()).detect(KILL)


async def exhausting(serve: Serve) -> Awaitable[object]:
    return (await serve()).detect(EXHAUST)


async def a_bug(serve: Serve) -> Awaitable[object]:
    return (await serve()).detect(RAISE)


async def too_late(serve: Serve) -> Awaitable[object]:
    return (await serve(max_seconds=0.1)).detect(SLEEP)


async def no_model_named(serve: Serve) -> Awaitable[object]:
    return (await serve()).detect(0, model="")


async def not_loaded(serve: Serve) -> Awaitable[object]:
    return (await serve(BROKEN, State.UNAVAILABLE)).detect(0)


async def killed_again_and_again(serve: Serve) -> Awaitable[object]:
    """Each time by a signal from outside, so that the image is not to blame."""
    running = await serve()
    call = asyncio.ensure_future(running.detect(SLEEP))
    for _ in range(10):
        served = running.engine.find("test", "")
        while not served.running_pids:
            await asyncio.sleep(0.01)
        (pid,) = served.running_pids
        os.kill(pid, signal.SIGKILL)
        while served.running_pids == [pid]:
            await asyncio.sleep(0.01)
    return call


def config(**fields: object) -> pb.StreamDetectRequest:
    given = {"model_name": "test", "drop_policy": pb.DROP_POLICY_LATEST, **fields}
    return pb.StreamDetectRequest(config=pb.StreamConfig(**given))  # type: ignore[arg-type]


async def stream(serve: Serve, *messages: pb.StreamDetectRequest) -> Awaitable[object]:
    stub = (await serve()).stub

    async def read() -> None:
        async for _response in stub.StreamDetect(iter(messages), timeout=60):
            pass

    return read()


async def unconfigured(serve: Serve) -> Awaitable[object]:
    return await stream(serve, config(drop_policy=0))


async def changed(serve: Serve) -> Awaitable[object]:
    return await stream(serve, config(), config(drop_policy=pb.DROP_POLICY_LOSSLESS))


async def out_of_order(serve: Serve) -> Awaitable[object]:
    frames = [pb.StreamDetectRequest(frame=pb.Frame(frame_id=number)) for number in (2, 2)]
    return await stream(serve, config(), *frames)


async def opened(running: Running) -> "grpc.aio.StreamStreamCall[pb.StreamDetectRequest, pb.StreamDetectResponse]":
    stream = running.stub.StreamDetect(timeout=60)
    await stream.write(config())
    await stream.write(pb.StreamDetectRequest(frame=pb.Frame(frame_id=1)))
    told = await stream.read()
    assert isinstance(told, pb.StreamDetectResponse)
    assert told.error.frame_id == 1, "it is open"
    return stream


def passes(seconds: float, running: Running) -> None:
    running.engine.clock = lambda: time.monotonic() + seconds


async def too_many(serve: Serve) -> Awaitable[object]:
    """The fixture's servers take one stream, and it has not rested for long."""
    running = await serve()
    await opened(running)
    passes(REST_SECONDS - 30, running)
    return anext(aiter(running.stub.StreamDetect(iter([config()]), timeout=60)))


async def rested(serve: Serve) -> Awaitable[object]:
    """Another takes its place."""
    running = await serve()
    resting = await opened(running)
    passes(REST_SECONDS, running)
    await opened(running)
    return resting.read()


async def stopping(serve: Serve) -> Awaitable[object]:
    running = await serve()
    drain = asyncio.create_task(running.engine.drain(60))
    await asyncio.sleep(0)  # the drain has begun
    return asyncio.gather(running.detect(0), drain)


async def overloaded(serve: Serve) -> Awaitable[object]:
    running = await serve(SLOW)
    return asyncio.gather(*(running.detect(SLEEP) for _ in range(SLOW.max_queued + 4)))


TROUBLE: dict[Reason, Callable[[Serve], Awaitable[Awaitable[object]]]] = {
    Reason.IMAGE_POISONOUS: poisonous,
    Reason.INTERNAL: a_bug,
    Reason.DEADLINE_EXCEEDED: too_late,
    Reason.MODEL_NAME_MISSING: no_model_named,
    Reason.MODEL_NOT_READY: not_loaded,
    Reason.SHUTTING_DOWN: stopping,
    Reason.OVERLOADED: overloaded,
    Reason.WORKERS_LOST: killed_again_and_again,
    Reason.WORKER_OUT_OF_MEMORY: exhausting,
    Reason.STREAM_NOT_CONFIGURED: unconfigured,
    Reason.STREAM_CHANGED: changed,
    Reason.FRAME_OUT_OF_ORDER: out_of_order,
    Reason.TOO_MANY_STREAMS: too_many,
    Reason.STREAM_RESTED: rested,
}


@pytest.mark.parametrize("reason", TROUBLE)
async def test_trouble_is_told_precisely(reason: Reason, serve: Serve) -> None:
    row = TABLE[reason]
    code, status = await refusal(await TROUBLE[reason](serve))
    assert code is row.code
    assert status.code == row.code.value[0]
    details = {detail.type_url.rpartition(".")[2]: detail for detail in status.details}
    info = error_details_pb2.ErrorInfo()
    details["ErrorInfo"].Unpack(info)
    assert (info.reason, info.domain) == (reason, "vedette")
    assert status.message.endswith(row.remedy.format_map(info.metadata))
    assert ("RetryInfo" in details) == row.retry
    assert ("BadRequest" in details) == (row.field is not None)
    assert "?" not in status.message
    assert "a secret of the model's" not in str(status)


SECONDS = (2**63 - 1, -(2**63), 253_402_300_800)  # the last is the first second of the year 10000


async def test_a_time_that_is_none_is_its_frames_own_error(serve: Serve) -> None:
    times = [timestamp_pb2.Timestamp(seconds=seconds) for seconds in SECONDS]
    times += [timestamp_pb2.Timestamp(nanos=-1), timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=123_456_789)]
    raw = image_pb2.RawImage(data=bytes(300), height=10, width=10, pixel_format=image_pb2.PIXEL_FORMAT_BGR8)
    frames = [
        pb.StreamDetectRequest(frame=pb.Frame(frame_id=number, capture_time=one, image=image_pb2.Image(raw=raw)))
        for number, one in enumerate(times)
    ]
    lossless = config(drop_policy=pb.DROP_POLICY_LOSSLESS)
    *wrong, right = [told async for told in (await serve()).stub.StreamDetect(iter([lossless, *frames]), timeout=60)]
    for told in wrong:
        info = error_details_pb2.ErrorInfo()
        told.error.status.details[0].Unpack(info)
        assert info.reason == Reason.CAPTURE_TIME_INVALID
    assert len(wrong) == len(times) - 1
    assert right.answer.capture_time == times[-1], "as sent, to the nanosecond"


def test_every_reason_is_provoked_over_a_connection() -> None:
    by_input = {Reason(reason) for _request, _code, reason, _field in bad_requests.CASES.values()}
    elsewhere = {Reason.FEATURE_NOT_SERVED, Reason.SAMPLE_MISSING}  # tests/integration/test_diagnose.py
    elsewhere |= {Reason.REQUEST_UNREADABLE, Reason.REQUEST_TOO_LARGE}  # tests/integration/test_malformed.py
    elsewhere |= {Reason.REQUEST_STALLED, Reason.INTAKE_FULL}  # tests/integration/test_intake.py
    elsewhere |= {Reason.CREDENTIALS_MISSING, Reason.CREDENTIALS_REFUSED, Reason.NOT_PERMITTED}  # test_access.py
    elsewhere |= {Reason.RATE_EXCEEDED, Reason.STREAMS_EXCEEDED}  # the same
    elsewhere |= {Reason.LOAD_REFUSED}  # tests/integration/test_model_control.py
    elsewhere |= {Reason.INPUT_TENSOR_INVALID, Reason.PARAMETER_INVALID}  # tests/integration/test_inference.py
    elsewhere |= {Reason.BODY_INVALID, Reason.BODY_TOO_LARGE}  # tests/integration/test_rest_refusals.py
    elsewhere |= {Reason.BODY_COMPRESSED, Reason.PATH_NOT_FOUND, Reason.ORIGIN_REFUSED}  # the same
    elsewhere |= {reason for reason in Reason if reason.startswith("REGION")}  # tests/integration/test_shared_memory.py
    assert by_input | set(TROUBLE) | {Reason.CAPTURE_TIME_INVALID} | elsewhere == set(Reason)

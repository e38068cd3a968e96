"""The course of ModelStreamInfer: order, pace, limits, ends, and who may stream, with scripted models."""

import asyncio
import dataclasses
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from vedette_server.access.access import AccessSources
from vedette_server.addresses import Tcp
from vedette_server.engine.engine import Engine
from vedette_server.engine.settings import PoolSettings
from vedette_server.repository.repository import ModelVersion
from vedette_server.rpc import inference_stream
from vedette_server.rpc.server import RpcServer

from tests.support import running
from tests.support.guarded import Caller, Models, Shown, Tokens, reason_of
from tests.support.open_inference import (
    Given,
    request,
)
from tests.support.scripted import SETTINGS, SLEEP, Silent, started

_PATIENCE = 60.0


class Counted(Silent):
    """Remembers the most images that a version had at once."""

    most = 0

    def state(
        self,
        model: ModelVersion,  # noqa: ARG002
        *,
        workers: int,  # noqa: ARG002
        wanted: int,  # noqa: ARG002
        queued: int,
        running: int,
        restarts: int,  # noqa: ARG002
    ) -> None:
        self.most = max(self.most, queued + running)


@dataclass
class Serving:
    """An engine behind gRPC, and a stub of Triton's."""

    engine: Engine
    stub: Any
    monitor: Counted


Serve = Callable[..., Awaitable[Serving]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    serving: list[tuple[Engine, RpcServer, grpc.aio.Channel]] = []

    async def start(settings: PoolSettings = SETTINGS) -> Serving:
        monitor = Counted()
        engine = await started(settings, monitor=monitor)
        server = RpcServer(engine, 1_000_000, 1)
        channel = grpc.aio.insecure_channel(await server.start(Tcp("127.0.0.1", 0)))
        serving.append((engine, server, channel))
        return Serving(engine, service_pb2_grpc.GRPCInferenceServiceStub(channel), monitor)

    yield start
    for engine, server, channel in serving:
        await channel.close()
        await server.stop(0)
        await engine.stop()


def told(first: int, name: str = "test", **parameters: Any) -> Any:
    """A request of an image whose first byte tells a scripted model what to do."""
    data = bytes([first]) + bytes(299)
    message = request(Given("IMAGE", "UINT8", (10, 10, 3), data), pixel_format="BGR8", **parameters)
    message.model_name = name
    message.id = f"{first}"
    return message


async def test_answers_come_in_the_order_of_the_requests(serve: Serve) -> None:
    """Two workers: the one with the slow image is overtaken, but not the slow image's answer."""
    stub = (await serve()).stub
    order = [SLEEP, 20, 21, 22, SLEEP, 23]
    got = [one async for one in stub.ModelStreamInfer(iter(map(told, order)), timeout=_PATIENCE)]
    assert [one.infer_response.id for one in got] == [f"{first}" for first in order]
    assert not any(one.error_message for one in got)


async def test_a_stream_is_read_as_fast_as_it_is_answered(serve: Serve) -> None:
    """However many requests come at once, few are in flight, none is refused, and single requests have room."""
    one = await serve(dataclasses.replace(SETTINGS, workers=1, max_queued=2))
    requests = [told(SLEEP), *[told(20)] * 99]  # which come while the first is answered
    got = [response async for response in one.stub.ModelStreamInfer(iter(requests), timeout=_PATIENCE)]
    assert len(got) == 100
    assert not any(response.error_message for response in got)
    assert one.monitor.most == 2


async def test_a_request_s_own_timeout_ends_it_alone(serve: Serve) -> None:
    stub = (await serve(dataclasses.replace(SETTINGS, workers=1))).stub
    requests = [told(SLEEP), told(20, timeout=100_000), told(21)]
    late, in_time = [one async for one in stub.ModelStreamInfer(iter(requests), timeout=_PATIENCE)][1:]
    assert late.error_message.startswith("DEADLINE_EXCEEDED: ")
    assert (in_time.error_message, in_time.infer_response.id) == ("", "21")


async def test_one_stream_may_use_several_models(serve: Serve) -> None:
    one = await serve()
    one.engine.load(dataclasses.replace(one.engine.served[0].model, name="other"))
    names = ["other", "test", "other", "test"]
    requests = [told(20, name) for name in names]
    got = [response async for response in one.stub.ModelStreamInfer(iter(requests), timeout=_PATIENCE)]
    assert [response.infer_response.model_name for response in got] == names


async def test_a_stream_that_sends_nothing_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_stream, "FIRST_SECONDS", 0.2)
    stub = (await serve()).stub
    silent = stub.ModelStreamInfer(timeout=_PATIENCE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await silent.read()
    assert reason_of(caught.value) == "REQUEST_STALLED"


async def test_streams_that_have_sent_nothing_take_nobody_s_place(serve: Serve) -> None:
    """The fixture's servers take one stream."""
    stub = (await serve()).stub
    silent = stub.ModelStreamInfer(timeout=_PATIENCE)
    await silent.wait_for_connection()
    opened = stub.ModelStreamInfer(timeout=_PATIENCE)
    await opened.write(told(20))
    assert (await opened.read()).infer_response.id == "20"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelStreamInfer(iter([told(20)]), timeout=_PATIENCE).read()
    assert reason_of(caught.value) == "TOO_MANY_STREAMS"
    await opened.done_writing()
    assert await opened.read() == grpc.aio.EOF
    await silent.write(told(21))
    assert (await silent.read()).infer_response.id == "21"


async def test_a_server_that_stops_answers_what_it_has_taken_and_ends_the_stream(serve: Serve) -> None:
    one = await serve(dataclasses.replace(SETTINGS, workers=1))
    stream = one.stub.ModelStreamInfer(timeout=_PATIENCE)
    for first in (SLEEP, 20):
        await stream.write(told(first))
    while not one.monitor.most:
        await asyncio.sleep(0.01)
    draining = asyncio.create_task(one.engine.drain(_PATIENCE))
    got: list[Any] = []

    async def read() -> None:
        while (response := await stream.read()) is not grpc.aio.EOF:
            got.append(response)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    assert got[0].infer_response.id == f"{SLEEP}"
    assert not any(response.error_message for response in got)
    assert reason_of(caught.value) == "SHUTTING_DOWN"
    assert await draining


async def test_a_stream_given_up_counts_what_it_leaves_as_failed(serve: Serve) -> None:
    one = await serve(dataclasses.replace(SETTINGS, workers=1))
    stream = one.stub.ModelStreamInfer(timeout=_PATIENCE)
    for first in (SLEEP, SLEEP):
        await stream.write(told(first))
    while one.monitor.most < 2:
        await asyncio.sleep(0.01)
    stream.cancel()

    async def failed() -> int:
        given = await one.stub.ModelStatistics(pb.ModelStatisticsRequest(name="test"), timeout=_PATIENCE)
        count: int = given.model_stats[0].inference_stats.fail.count
        return count

    deadline = time.monotonic() + _PATIENCE
    while await failed() != 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# Who may stream.


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


RULES = """
[[rules]]
who = ["token:gate", "token:ops"]
may = ["stream"]
models = ["cars"]
max_streams = 1
rate = 2
[[rules]]
who = ["token:viewer"]
may = ["detect", "describe"]
"""


class Office:
    """The files of a policy, and streams of its callers."""

    def __init__(self, folder: Path) -> None:
        self.tokens = Tokens(folder / "tokens")
        (folder / "policy.toml").write_text(RULES)
        self.sources = AccessSources(tokens=self.tokens.path, policy=folder / "policy.toml")
        self.shown = {name: self.tokens.add(name) for name in ("gate", "ops", "viewer")}

    def stream(self, stub: Any, who: str, requests: Iterator[Any]) -> Any:
        metadata = (("authorization", f"Bearer {self.shown[who]}"),)
        return stub.ModelStreamInfer(requests, metadata=metadata, timeout=_PATIENCE)


class Requests:
    """Requests that are sent one after the other, until they are over."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._waiting.get, None)

    def send(self, one: Any) -> None:
        self._waiting.put(one)


def test_a_policy_holds_for_each_request_of_a_stream(models: Models, tmp_path: Path) -> None:
    office, requests, more = Office(tmp_path), Requests(), Requests()
    with models.behind(office.sources) as at, grpc.insecure_channel(at.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = office.stream(stub, "gate", iter(requests))
        for name, reason in (("cars", ""), ("faces", "NOT_PERMITTED"), ("cars", ""), ("cars", ""), ("cars", "")):
            requests.send(told(20, name))
            assert next(answers).error_message.partition(":")[0] == reason, "the requests of a stream have no rate"
        with pytest.raises(grpc.RpcError) as caught:
            next(office.stream(stub, "gate", iter([told(20, "cars")])))
        assert reason_of(caught.value) == "STREAMS_EXCEEDED"
        with pytest.raises(grpc.RpcError) as caught:
            next(office.stream(stub, "viewer", iter([told(20, "cars")])))
        assert reason_of(caught.value) == "NOT_PERMITTED"
        others = office.stream(stub, "ops", iter(more))
        more.send(told(20, "cars"))
        assert not next(others).error_message
        office.tokens.revoke("gate")
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert reason_of(caught.value) == "CREDENTIALS_REFUSED"
        more.send(told(21, "cars"))
        assert next(others).infer_response.id == "21", "another's stream goes on"
        for one in (requests, more):
            one.send(None)


def test_both_services_share_the_places_of_streams(models: Models) -> None:
    """There are eight."""
    with models.behind(AccessSources()) as at, grpc.insecure_channel(at.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        all_requests = [Requests() for _ in range(8)]
        streams = [stub.ModelStreamInfer(iter(requests), timeout=_PATIENCE) for requests in all_requests]
        for requests, answers in zip(all_requests, streams, strict=True):
            requests.send(told(20, "cars"))
            assert not next(answers).error_message
        with Caller(at, None, Shown()) as caller:
            assert caller.call("stream", "cars") == "TOO_MANY_STREAMS"
            for requests in all_requests:
                requests.send(None)
            running.wait_for(lambda: caller.call("stream", "cars") == "OK", "a place")

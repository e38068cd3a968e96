"""Calls and streams of one client over several servers, which are the test's own."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceServicer, add_DetectionServiceServicer_to_server
from vedette_client import Answered, AsyncClient, Client, Event, NoConnection, Sendable
from vedette_client.channel import SERVICE

from tests.support import running

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Counting(DetectionServiceServicer):
    """Answers, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.streams = 0

    def ListModels(self, _request: pb.ListModelsRequest, _context: grpc.ServicerContext) -> pb.ListModelsResponse:  # noqa: N802  gRPC's
        self.calls += 1
        return pb.ListModelsResponse()

    def StreamDetect(  # noqa: N802  the same
        self, requests: Iterator[pb.StreamDetectRequest], _context: grpc.ServicerContext
    ) -> Iterator[pb.StreamDetectResponse]:
        self.streams += 1
        for request in requests:
            if request.HasField("frame"):
                yield pb.StreamDetectResponse(answer=pb.FrameAnswer(frame_id=request.frame.frame_id))


@dataclass
class Place:
    """A server and its health."""

    service: Counting = field(default_factory=Counting)
    health: HealthServicer = field(default_factory=HealthServicer)
    server: grpc.Server = field(default_factory=lambda: grpc.server(ThreadPoolExecutor(16)))

    def start(self) -> str:
        add_DetectionServiceServicer_to_server(self.service, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.tell(SERVING)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        return f"127.0.0.1:{port}"

    def tell(self, state: Any) -> None:
        self.health.set(SERVICE, state)


@pytest.fixture
def places() -> Iterator[list[Place]]:
    made = [Place(), Place()]
    yield made
    for place in made:
        place.server.stop(0).wait()


@pytest.fixture
def address(places: list[Place]) -> str:
    return ",".join(place.start() for place in places)


Balancing = Literal["pick_first", "round_robin"]


@contextlib.contextmanager
def caller(address: str, balancing: Balancing, *, awaited: bool) -> Iterator[Callable[[], object]]:
    """A function that makes one call, by either client."""
    if not awaited:
        with Client(address, load_balancing=balancing) as blocking:
            yield blocking.models
        return

    async def made() -> AsyncClient:
        return AsyncClient(address, load_balancing=balancing)

    with asyncio.Runner() as runner:
        client = runner.run(made())
        yield lambda: runner.run(client.models())
        runner.run(client.close())


both = pytest.mark.parametrize("awaited", [False, True], ids=["Client", "AsyncClient"])


@both
def test_servers_take_turns_if_asked_to(places: list[Place], address: str, *, awaited: bool) -> None:
    with caller(address, "round_robin", awaited=awaited) as ask:
        running.wait_for(lambda: ask() is not None and all(place.service.calls for place in places), "both")
        before = [place.service.calls for place in places]
        for _ in range(20):
            ask()
    assert [place.service.calls - had for place, had in zip(places, before, strict=True)] == [10, 10]


@both
def test_without_that_all_calls_go_to_one(places: list[Place], address: str, *, awaited: bool) -> None:
    with caller(address, "pick_first", awaited=awaited) as ask:
        for _ in range(20):
            ask()
    assert sorted(place.service.calls for place in places) == [0, 20]


@both
def test_a_server_whose_models_do_not_answer_is_passed_over(
    places: list[Place], address: str, *, awaited: bool
) -> None:
    places[0].tell(NOT_SERVING)
    with caller(address, "round_robin", awaited=awaited) as ask:
        for _ in range(20):
            ask()
    assert [place.service.calls for place in places] == [0, 20]


@both
def test_if_none_is_healthy_the_error_says_so(places: list[Place], address: str, *, awaited: bool) -> None:
    for place in places:
        place.tell(NOT_SERVING)
    message = f"no server at {address} passes its health check"
    with caller(address, "round_robin", awaited=awaited) as ask, pytest.raises(NoConnection, match=message):
        ask()


@pytest.mark.parametrize("balancing", ["pick_first", "round_robin"])
def test_a_lost_server_fails_no_call(places: list[Place], address: str, balancing: Balancing) -> None:
    with Client(address, load_balancing=balancing) as client:
        running.wait_for(lambda: client.models() is not None and any(place.service.calls for place in places), "calls")
        lost = max(places, key=lambda place: place.service.calls)
        lost.server.stop(0).wait()
        for _ in range(20):
            client.models()
        assert sum(place.service.calls for place in places if place is not lost) >= 20


def test_streams_take_turns_and_move(places: list[Place], address: str) -> None:
    def frames() -> Iterator[Sendable]:
        while True:
            time.sleep(0.05)
            yield b"x"

    def next_answer(events: Iterator[Event]) -> Answered:
        return next(event for event in events if isinstance(event, Answered))

    with contextlib.ExitStack() as stack, Client(address, load_balancing="round_robin") as client:
        running.wait_for(lambda: client.models() is not None and all(place.service.calls for place in places), "both")
        streams = [client.stream(frames(), policy="LATEST") for _ in range(4)]
        for events in streams:
            stack.callback(events.close)  # type: ignore[attr-defined]  # it is a generator
            next_answer(events)
        assert [place.service.streams for place in places] == [2, 2]
        places[0].server.stop(0).wait()
        for events in streams:
            seen = next_answer(events).frame_id
            while next_answer(events).frame_id < seen + 10:
                pass
        assert places[1].service.streams == 4

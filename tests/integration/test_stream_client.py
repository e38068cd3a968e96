"""The client's streams, against a server of the test's own that follows a script."""

import asyncio
import contextlib
import gc
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import (
    Answered,
    AsyncClient,
    Client,
    Dropped,
    Event,
    Failed,
    Frame,
    InvalidRequest,
    LocalError,
    NoConnection,
    Reconfigure,
    Sendable,
    ServerError,
    Unavailable,
    streaming,
)
from vedette_client.channel import SERVICE

from tests.support import running
from tests.support.resetting import resetting

Requests = Iterator[pb.StreamDetectRequest]
Behaviour = Callable[[Requests, grpc.ServicerContext], Iterator[pb.StreamDetectResponse]]


def answered(frame: pb.Frame) -> pb.StreamDetectResponse:
    return pb.StreamDetectResponse(answer=pb.FrameAnswer(frame_id=frame.frame_id))


def answer_all(requests: Requests, _context: grpc.ServicerContext) -> Iterator[pb.StreamDetectResponse]:
    for request in requests:
        if request.HasField("frame"):
            yield answered(request.frame)


class Broken:
    """Answers so many frames of each connection, and then ends it; the last connection is whole."""

    def __init__(self, code: grpc.StatusCode, after: int, times: int, reason: str = "") -> None:
        self._code = code
        self._after = after
        self._times = times
        self._reason = reason
        self.connections: list[list[int | float]] = []  # ids, and thresholds, as they came

    def __call__(self, requests: Requests, context: grpc.ServicerContext) -> Iterator[pb.StreamDetectResponse]:
        seen: list[int | float] = []
        self.connections.append(seen)
        number = len(self.connections)
        count = 0
        for request in requests:
            if request.HasField("config"):
                seen.append(round(request.config.options.threshold, 3))
                continue
            seen.append(request.frame.frame_id)
            if number <= self._times and count == self._after:
                self._end(context)
            yield answered(request.frame)
            count += 1

    def _end(self, context: grpc.ServicerContext) -> None:
        if not self._reason:
            context.abort(self._code, "gone")
        status = status_pb2.Status(code=self._code.value[0], message="no")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self._reason))
        context.abort_with_status(rpc_status.to_status(status))


@contextlib.contextmanager
def served(behaviour: Behaviour, **options: int) -> Iterator[str]:
    """A server that does what it is told; its address."""
    handler = grpc.stream_stream_rpc_method_handler(
        behaviour, pb.StreamDetectRequest.FromString, pb.StreamDetectResponse.SerializeToString
    )
    named = [(f"grpc.{name}", value) for name, value in options.items()]
    server = grpc.server(ThreadPoolExecutor(16), options=named)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"StreamDetect": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def collect(address: str, frames: Any, *, awaited: bool, **options: Any) -> tuple[list[Event], BaseException | None]:
    """Collect the events of a stream and its end, from either client."""
    told: list[Event] = []
    error: BaseException | None = None

    async def run() -> None:
        async with AsyncClient(address) as client:
            async for event in client.stream(frames, **options):
                told.append(event)  # noqa: PERF401  what came before an error counts

    try:
        if awaited:
            asyncio.run(run())
        else:
            with Client(address) as client:
                for event in client.stream(frames, **options):
                    told.append(event)  # noqa: PERF402  the same
    except Exception as raised:  # noqa: BLE001  looked at by the test
        error = raised
    return told, error


both = pytest.mark.parametrize("awaited", [False, True], ids=["Client", "AsyncClient"])
LOSSES = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
]


def ids(events: list[Event]) -> list[int]:
    return [event.frame_id for event in events]


@both
@pytest.mark.parametrize("code", LOSSES)
def test_a_lossless_stream_sends_again_what_a_lost_connection_has_not_answered(
    code: grpc.StatusCode, *, awaited: bool
) -> None:
    """However the connection ends, every frame is answered once, in order."""
    broken = Broken(code, after=3, times=3)
    with served(broken) as address:
        told, error = collect(address, [b"%d" % n for n in range(20)], awaited=awaited, policy="LOSSLESS")
    assert error is None
    assert ids(told) == list(range(20))
    assert all(isinstance(event, Answered) for event in told)
    assert [seen[1] for seen in broken.connections] == [0, 3, 6, 9], "each begins with the oldest that is missing"


@both
@pytest.mark.parametrize("code", LOSSES)
def test_a_live_stream_goes_on_after_any_loss(code: grpc.StatusCode, *, awaited: bool) -> None:
    def frames() -> Iterator[Sendable]:
        for number in range(20):
            yield b"%d" % number
            time.sleep(0.05)

    with served(Broken(code, after=3, times=2)) as address:
        told, error = collect(address, frames(), awaited=awaited, policy="LATEST")
    assert error is None
    assert ids(told) == list(range(20)), "each is told once, in order"
    assert isinstance(told[-1], Answered)
    assert {event.reason for event in told if isinstance(event, Dropped)} == {"CONNECTION_LOST"}


@both
@pytest.mark.parametrize("code", [2, 8], ids=["INTERNAL_ERROR", "CANCEL"])
def test_a_live_stream_goes_on_after_a_reset_without_a_status(code: int, *, awaited: bool) -> None:
    """As proxies reset the streams of a server that is gone; gRPC makes INTERNAL and CANCELLED of the two."""

    def frames() -> Iterator[Sendable]:
        for number in range(20):
            yield b"%d" % number
            time.sleep(0.05)

    with resetting(code, after=3, times=2) as (server, address):
        told, error = collect(address, frames(), awaited=awaited, policy="LATEST")
    assert error is None
    assert server.streams == 3
    assert ids(told) == list(range(20))
    assert sum(isinstance(event, Answered) for event in told) >= 3 + 3 + 1


@both
def test_what_the_server_itself_refuses_is_not_tried_again(*, awaited: bool) -> None:
    for policy in ("LATEST", "LOSSLESS"):
        broken = Broken(grpc.StatusCode.INTERNAL, after=3, times=9, reason="INTERNAL")
        with served(broken) as address:
            _told, error = collect(address, [b"x"] * 9, awaited=awaited, policy=policy)
        assert isinstance(error, ServerError)
        assert (error.reason, len(broken.connections)) == ("INTERNAL", 1)


def test_a_request_that_nobody_could_read_is_no_lost_connection() -> None:
    lost = ServerError("stream removed", grpc.StatusCode.UNKNOWN)
    assert streaming._is_loss(lost)
    assert not streaming._is_loss(InvalidRequest("could not read the request", grpc.StatusCode.UNKNOWN))


@both
def test_an_error_names_the_frames_that_are_missing(*, awaited: bool) -> None:
    broken = Broken(grpc.StatusCode.UNAVAILABLE, after=4, times=99)
    given: list[int] = []

    def frames() -> Iterator[Sendable]:
        for number in range(100, 200):
            given.append(number)
            yield Frame(b"x", frame_id=number)

    with served(broken) as address:
        told, error = collect(address, frames(), awaited=awaited, policy="LOSSLESS", resume_seconds=0)
    assert isinstance(error, NoConnection)
    assert ids(told) == [100, 101, 102, 103]
    assert error.unanswered[0] == 104
    missing = list(error.unanswered)
    assert ids(told) + missing == given[: len(told) + len(missing)], "nothing that was taken is left unnamed"
    assert "not answered: frame" in str(error)


@both
def test_a_server_that_never_comes_back_ends_a_lossless_stream_in_time(*, awaited: bool) -> None:
    broken = Broken(grpc.StatusCode.UNAVAILABLE, after=0, times=99)
    with served(broken) as address:
        started = time.monotonic()
        told, error = collect(address, [b"x"] * 3, awaited=awaited, policy="LOSSLESS", resume_seconds=1)
    assert told == []
    assert isinstance(error, NoConnection)
    assert 1 <= time.monotonic() - started < 10
    assert error.unanswered[0] == 0


@both
def test_options_that_changed_hold_for_what_is_sent_again(*, awaited: bool) -> None:
    broken = Broken(grpc.StatusCode.UNAVAILABLE, after=1, times=2)
    frames = [b"0", Reconfigure({"threshold": 0.25}), b"1", Reconfigure({"threshold": 0.75}), b"2", b"3"]
    with served(broken) as address:
        told, error = collect(address, frames, awaited=awaited, policy="LOSSLESS", threshold=0.125)
    assert error is None
    assert ids(told) == [0, 1, 2, 3]
    assert broken.connections[-1] == [0.75, 2, 3]
    assert broken.connections[1][:4] in ([0.25, 1, 0.75, 2], [0.25, 1])


@both
def test_a_stream_that_ends_well_without_its_frames_has_not_ended_well(*, awaited: bool) -> None:
    def forgetful(requests: Requests, _context: grpc.ServicerContext) -> Iterator[pb.StreamDetectResponse]:
        next(requests)
        yield answered(next(requests).frame)

    with served(forgetful) as address:
        told, error = collect(address, [b"x"] * 3, awaited=awaited, policy="LOSSLESS", resume_seconds=0)
    assert ids(told) == [0]
    assert isinstance(error, NoConnection)
    assert error.unanswered == (1, 2)[: len(error.unanswered)] != ()


@both
@pytest.mark.parametrize("policy", ["LATEST", "LOSSLESS"])
def test_a_frame_that_cannot_be_sent_fails_alone_and_in_its_turn(policy: str, tmp_path: Path, *, awaited: bool) -> None:
    missing = tmp_path / "missing.jpg"
    with served(answer_all) as address:
        told, error = collect(address, [missing, b"1", 7, missing, b"4", missing], awaited=awaited, policy=policy)
    assert error is None
    assert ids(told) == [0, 1, 2, 3, 4, 5]
    assert [type(event) for event in told] == [Failed, Answered, Failed, Failed, Answered, Failed]
    assert all(isinstance(event.error, LocalError) for event in told if isinstance(event, Failed))
    assert all(event.error.message for event in told if isinstance(event, Failed))


def test_a_frame_that_cannot_be_sent_is_told_though_nothing_else_comes() -> None:
    on = threading.Event()

    def frames() -> Iterator[Sendable]:
        yield Path("no/such/file")
        on.wait(running.PATIENCE)

    with served(answer_all) as address, Client(address) as client:
        events = client.stream(frames(), policy="LATEST")
        assert isinstance(next(events), Failed)
        on.set()
        assert list(events) == []


@both
@pytest.mark.parametrize("policy", ["LATEST", "LOSSLESS"])
def test_a_frame_that_is_too_large_for_grpc_itself_fails_alone(policy: str, *, awaited: bool) -> None:
    def frames() -> Iterator[Sendable]:
        for number in range(8):
            yield bytes(200_000 if number in (2, 5) else 1_000)
            time.sleep(0.05)

    with served(answer_all, max_receive_message_length=100_000) as address:
        told, error = collect(address, frames(), awaited=awaited, policy=policy)
    assert error is None
    assert ids(told) == list(range(8))
    failed = [event for event in told if isinstance(event, Failed)]
    assert ids(failed) == [2, 5]  # type: ignore[arg-type]  # list is invariant
    assert all(isinstance(event.error, InvalidRequest) and "100000" in event.error.message for event in failed)
    if policy == "LOSSLESS":
        assert sum(isinstance(event, Answered) for event in told) == 6


@both
def test_what_the_frames_raise_is_raised_after_the_answers_so_far(*, awaited: bool) -> None:
    def frames() -> Iterator[Sendable]:
        yield from (b"0", b"1")
        raise LocalError("the camera has fallen down")

    with served(answer_all) as address:
        told, error = collect(address, frames(), awaited=awaited, policy="LOSSLESS")
    assert ids(told) == [0, 1]
    assert isinstance(error, LocalError)
    assert "fallen down" in str(error)


@both
@pytest.mark.parametrize("policy", ["LATEST", "LOSSLESS"])
def test_a_stream_to_nobody_fails_at_once(policy: str, *, awaited: bool) -> None:
    started = time.monotonic()
    told, error = collect(f"127.0.0.1:{running.free_port()}", [b"x"] * 3, awaited=awaited, policy=policy)
    assert told == []
    assert isinstance(error, NoConnection)
    assert "no server answers" in str(error)
    assert time.monotonic() - started < 10


def test_the_caller_may_use_its_buffer_again() -> None:
    """The client resends the original bytes, not what is in the buffer by then."""
    seen: list[list[bytes]] = []
    buffer = bytearray(8)

    def behaviour(requests: Requests, context: grpc.ServicerContext) -> Iterator[pb.StreamDetectResponse]:
        seen.append([])
        for request in requests:
            if request.HasField("frame"):
                seen[-1].append(request.frame.image.encoded.data)
                if len(seen) == 1 and len(seen[0]) == 4:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                if len(seen) > 1:
                    yield answered(request.frame)

    def frames() -> Iterator[Sendable]:
        for number in range(8):
            buffer[:] = b"%08d" % number
            yield buffer

    with served(behaviour) as address, Client(address) as client:
        told = list(client.stream(frames(), policy="LOSSLESS"))
    assert ids(told) == list(range(8))
    assert seen[-1] == [b"%08d" % number for number in range(8)]


def test_no_more_is_kept_than_is_under_way() -> None:
    taken = 0
    on = threading.Event()

    def slow(requests: Requests, context: grpc.ServicerContext) -> Iterator[pb.StreamDetectResponse]:
        on.wait(running.PATIENCE)
        yield from answer_all(requests, context)

    def frames() -> Iterator[Sendable]:
        nonlocal taken
        for _ in range(1_000):
            taken += 1
            yield b"x"

    with served(slow) as address, Client(address) as client:
        events = client.stream(frames(), policy="LOSSLESS")
        threading.Timer(1.0, on.set).start()
        assert next(events).frame_id == 0
        assert taken < 200
        assert len(list(events)) == 999


def silent(requests: Requests, context: grpc.ServicerContext) -> Iterator[pb.StreamDetectResponse]:
    """Takes everything, and says nothing more after the first."""
    next(requests)
    yield answered(next(requests).frame)
    while context.is_active():
        time.sleep(0.05)


@both
def test_a_stream_on_which_nothing_is_heard_is_not_waited_for(*, awaited: bool) -> None:
    with served(silent) as address:
        started = time.monotonic()
        options = {"policy": "LOSSLESS", "stall_seconds": 1, "resume_seconds": 0}
        told, error = collect(address, [b"x"] * 3, awaited=awaited, **options)
    assert ids(told) == [0]
    assert isinstance(error, NoConnection)
    assert "stall_seconds" in str(error)
    assert error.unanswered == (1, 2)
    assert time.monotonic() - started < 10


def test_a_caller_that_takes_its_time_is_no_stall() -> None:
    with served(answer_all) as address, Client(address) as client:
        events = client.stream([b"x"] * 6, policy="LOSSLESS", stall_seconds=0.3, resume_seconds=0)
        for _ in range(6):
            next(events)
            time.sleep(0.5)


def test_a_camera_that_takes_its_time_is_no_stall() -> None:
    def frames() -> Iterator[Sendable]:
        for _ in range(3):
            time.sleep(0.6)
            yield b"x"

    with served(answer_all) as address, Client(address) as client:
        told = list(client.stream(frames(), policy="LOSSLESS", stall_seconds=0.3, resume_seconds=0))
    assert ids(told) == [0, 1, 2]


async def test_other_tasks_run_while_a_blocking_iterable_takes_its_time() -> None:
    """And answers come as frames go, not at the end."""
    lags: list[float] = []
    gaps: list[float] = []

    def frames() -> Iterator[Sendable]:
        for _ in range(10):
            time.sleep(0.1)
            made.append(time.monotonic())
            yield b"x"

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - before)

    made: list[float] = []
    ticking = asyncio.create_task(tick())
    with served(answer_all) as address:
        async with AsyncClient(address) as client:
            async for event in client.stream(frames(), policy="LOSSLESS"):
                gaps.append(time.monotonic() - made[event.frame_id])  # noqa: PERF401  when it comes
    ticking.cancel()
    assert len(gaps) == 10
    assert sorted(gaps)[5] < 0.1, "half of them before the next frame was made"
    assert max(lags) < 0.1


async def test_a_blocking_iterable_is_read_no_faster_than_it_is_answered() -> None:
    taken = 0

    def frames() -> Iterator[Sendable]:
        nonlocal taken
        for _ in range(2_000):
            taken += 1
            yield bytes(10_000)

    with served(answer_all) as address:
        async with AsyncClient(address) as client:
            events = client.stream(frames(), policy="LOSSLESS")
            await anext(events)
            await asyncio.sleep(0.5)
            assert taken < 1_000
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator


def frame_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vedette-")]


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
async def test_a_stream_that_is_cancelled_leaves_nothing_behind(kind: str) -> None:
    closed = threading.Event()

    def blocking() -> Iterator[Sendable]:
        try:
            while True:
                time.sleep(0.02)
                yield b"x"
        finally:
            closed.set()

    async def asynchronous() -> AsyncIterator[Sendable]:
        try:
            while True:
                await asyncio.sleep(0.02)
                yield b"x"
        finally:
            closed.set()

    told: list[Event] = []

    async def consume(client: AsyncClient) -> None:
        given: Any = blocking() if kind == "blocking" else asynchronous()
        async for event in client.stream(given, policy="LATEST"):
            told.append(event)  # noqa: PERF401  counted while it runs

    with warnings.catch_warnings(record=True) as caught, served(answer_all) as address:
        warnings.simplefilter("always")
        async with AsyncClient(address) as client:
            task = asyncio.create_task(consume(client))
            while len(told) < 3:
                await asyncio.sleep(0.01)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 1
            gc.collect()
            assert closed.wait(5)
            assert frame_threads() == []
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:  # gRPC's own, which end a little after their call
                await asyncio.sleep(0.01)
    assert [str(one.message) for one in caught] == []


def test_a_stream_that_is_left_closes_its_generator_and_ends_its_threads() -> None:
    closed = threading.Event()

    def frames() -> Iterator[Sendable]:
        try:
            while True:
                time.sleep(0.01)
                yield b"x"
        finally:
            closed.set()

    with served(answer_all) as address, Client(address) as client:
        events = client.stream(frames(), policy="LOSSLESS")
        next(events)
        events.close()  # type: ignore[attr-defined]  # it is a generator
        assert closed.is_set()
        running.wait_for(lambda: not frame_threads(), "its threads to end")


def test_a_client_that_is_closed_ends_its_streams_and_connects_no_more() -> None:
    broken = Broken(grpc.StatusCode.UNAVAILABLE, after=99, times=0)

    def frames() -> Iterator[Sendable]:
        while True:
            time.sleep(0.01)
            yield b"x"

    with served(broken) as address:
        client = Client(address)
        events = client.stream(frames(), policy="LATEST")
        next(events)
        client.close()
        with pytest.raises(LocalError, match="closed"):
            list(events)
    assert len(broken.connections) == 1


def test_a_server_that_stops_is_come_back_to() -> None:
    broken = Broken(grpc.StatusCode.UNAVAILABLE, after=2, times=1, reason="SHUTTING_DOWN")
    with served(broken) as address, Client(address) as client:
        assert ids(list(client.stream([b"x"] * 5, policy="LOSSLESS"))) == [0, 1, 2, 3, 4]
        broken.connections.clear()
        with pytest.raises(Unavailable, match="SHUTTING_DOWN"):
            list(client.stream([b"x"] * 5, policy="LOSSLESS", resume_seconds=0))


@pytest.mark.parametrize(("name", "value"), [("stall_seconds", 0), ("stall_seconds", "1"), ("resume_seconds", -1)])
def test_a_wait_that_is_none_is_refused(name: str, value: object) -> None:
    with Client() as client, pytest.raises(LocalError, match=name):
        client.stream([], policy="LOSSLESS", **{name: value})  # type: ignore[arg-type]  # that is the point

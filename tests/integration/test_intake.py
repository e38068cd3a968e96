"""Unfinished requests cost little, and end: a slice of `make hostile`, and its parts alone."""

import asyncio
import contextlib
import functools
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vedette_server.contract.refusal import Reason
from vedette_server.pool import memory
from vedette_server.rpc import intake, unread
from vedette_server.rpc.intake import Intake

from tests.bench import attacks, load
from tests.support import raw_http2, running

ECHO = "/test.Echo/"
REFUSED: list[Reason] = []  # what an intake has told of


@pytest.fixture(scope="module")
def server() -> Iterator[running.Server]:
    with load.server() as started:
        yield started


# At a part of their size where the whole fills the machine, which others may use.
SLICE: dict[str, Callable[[running.Server], object]] = attacks.ATTACKS | {
    "calls a byte short": functools.partial(attacks.a_byte_short, calls=40),
    "streams whose answers are unread": functools.partial(attacks.unread_streams, streams=20),
    "compressed calls that inflate": functools.partial(attacks.inflating, calls=100),
    "calls that send nothing": functools.partial(attacks.silent_calls, calls=2_000),
    "answers that nobody takes": functools.partial(attacks.unread_answers, calls=2_000),
}


@pytest.mark.parametrize("name", SLICE)
def test_an_attack_costs_bounded_memory_and_nobody_elses_answer(name: str, server: running.Server) -> None:
    with attacks.honest(server) as seen:
        SLICE[name](server)
    assert not seen.failed
    assert seen.peak < attacks.ceiling(name)
    attacks.given_back(server, attacks.CEILING)
    assert len(server.worker_pids()) == load.WORKERS
    assert running.http(server, "/readyz")[0] == 200


def told(reason: Reason) -> None:
    REFUSED.append(reason)


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    REFUSED.clear()


@contextlib.asynccontextmanager
async def echoing(taken: Intake) -> AsyncIterator[str]:
    """A server whose methods, of all four kinds, give back what they are given; its address."""

    async def single(request: bytes, _context: Any) -> bytes:
        return request

    async def several(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for _ in range(2):
            yield request

    async def written(request: bytes, context: Any) -> None:
        await context.write(request)

    async def joined(requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return b"".join([one async for one in requests])

    async def each(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield one

    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Single": grpc.unary_unary_rpc_method_handler(single),
        "Several": grpc.unary_stream_rpc_method_handler(several),
        "Written": grpc.unary_stream_rpc_method_handler(written),
        "Joined": grpc.stream_unary_rpc_method_handler(joined),
        "Each": grpc.stream_stream_rpc_method_handler(each),
    }
    server = grpc.aio.server(interceptors=(taken,))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    watching = asyncio.create_task(taken.watch())
    try:
        yield f"127.0.0.1:{port}"
    finally:
        watching.cancel()
        await server.stop(0)


async def test_methods_of_all_kinds_are_given_what_was_sent() -> None:
    async with echoing(Intake(lambda: 0, told)) as address, grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary(ECHO + "Single", bytes, bytes)(b"one") == b"one"
        assert [one async for one in channel.unary_stream(ECHO + "Several", bytes, bytes)(b"one")] == [b"one", b"one"]
        assert [one async for one in channel.unary_stream(ECHO + "Written", bytes, bytes)(b"one")] == [b"one"]
        assert await channel.stream_unary(ECHO + "Joined", bytes, bytes)(iter([b"one", b"two"])) == b"onetwo"
        assert [one async for one in channel.stream_stream(ECHO + "Each", bytes, bytes)(iter([b"one", b"two"]))] == [
            b"one",
            b"two",
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ECHO + "None", bytes, bytes)(b"one")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not REFUSED


def heard(connection: raw_http2.Connection) -> bool:
    """Take what the server says; always true, as the first half of a condition."""
    connection.listen(0.1)
    return True


def ended(address: str, sent: bytes) -> dict[str, str]:
    """The trailers of a call that sends this and then nothing."""
    with raw_http2.connection(address) as connection:
        call = connection.call(ECHO + "Single")
        connection.send(call, sent)
        running.wait_for(lambda: heard(connection) and call in connection.ended, "the call to be ended")
        return connection.ended[call]


async def test_a_message_that_does_not_arrive_is_given_up() -> None:
    async with echoing(Intake(lambda: 0, told, arrive_seconds=0.3)) as address:
        for sent in (b"", raw_http2.message(b"x" * 99, 100)):
            trailers = await asyncio.to_thread(ended, address, sent)
            assert trailers["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
            assert "had not arrived completely after 0.3 seconds" in trailers["grpc-message"]
    assert REFUSED == [Reason.REQUEST_STALLED] * 2


async def test_a_call_of_no_message_is_refused() -> None:
    async with echoing(Intake(lambda: 0, told)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(ECHO + "Single", bytes, bytes)(iter(()))
        status = rpc_status.from_call(caught.value)
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert info.reason == "REQUEST_UNREADABLE"
    assert REFUSED == [Reason.REQUEST_UNREADABLE]


async def test_above_the_ceiling_what_has_been_awaited_longest_is_given_up_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "used", lambda: 0)
    taken = Intake(lambda: 0, told)
    async with echoing(taken) as address:
        first = asyncio.create_task(asyncio.to_thread(ended, address, raw_http2.message(b"x", 100)))
        while len(taken._awaited) < 1:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(asyncio.to_thread(ended, address, raw_http2.message(b"x", 100)))
        while len(taken._awaited) < 2:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(memory, "used", lambda: intake.CEILING + 1 if len(taken._awaited) > 1 else 0)
        assert (await first)["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        assert not second.done()
        async with grpc.aio.insecure_channel(address) as channel:
            assert await channel.unary_unary(ECHO + "Single", bytes, bytes)(b"one") == b"one", "others are read again"
        monkeypatch.setattr(memory, "used", lambda: intake.CEILING + 1 if taken._awaited else 0)
        assert (await second)["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert REFUSED == [Reason.INTAKE_FULL] * 2


async def test_calls_that_are_given_up_by_their_callers_leave_nothing_behind() -> None:
    taken = Intake(lambda: 0, told)
    async with echoing(taken) as address, grpc.aio.insecure_channel(address) as channel:
        for number in range(200):
            call = channel.unary_unary(ECHO + "Single", bytes, bytes)(bytes(100_000))
            await asyncio.sleep(number % 20 / 4_000)
            call.cancel()
        assert await channel.unary_unary(ECHO + "Single", bytes, bytes)(b"one") == b"one"
        async with asyncio.timeout(10):
            while taken._unread._answers or taken._awaited or taken._turns._begun or taken._turns._waiting:
                await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_connections_leaves_no_descriptor_behind() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()[:2]) as caller,
        tempfile.TemporaryFile(),
    ):
        accepted, (host, port) = listening.accept()
        with accepted:
            before = descriptors()
            assert unread._shut({f"ipv4:{host}:{port}"}) == 1
            assert descriptors() == before
            caller.settimeout(10)
            assert caller.recv(1) == b""


async def test_a_stream_that_is_given_up_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used", lambda: 0)
    taken = Intake(lambda: 0, told)
    async with echoing(taken) as address, grpc.aio.insecure_channel(address) as channel:
        over = asyncio.Event()

        async def messages() -> AsyncIterator[bytes]:
            yield b"one"
            await over.wait()

        answers = channel.stream_stream(ECHO + "Each", bytes, bytes)(messages())
        assert await answers.read() == b"one"
        monkeypatch.setattr(memory, "used", lambda: intake.CEILING + 1 if taken._awaited else 0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        over.set()
    assert REFUSED == [Reason.INTAKE_FULL]


@pytest.mark.parametrize("method", ["Single", "Several"])
async def test_above_the_ceiling_answers_that_nobody_takes_are_given_up(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(memory, "used", lambda: 0)
    taken = Intake(lambda: 0, told)
    async with echoing(taken) as address, grpc.aio.insecure_channel(address) as channel:
        # Two megabytes: more than HTTP/2 lets through, and a socket holds, unread.
        with raw_http2.connection(address) as deaf:
            rest = {deaf.call(ECHO + method): memoryview(raw_http2.message(bytes(2_000_000)))}
            await asyncio.to_thread(raw_http2.push, deaf, rest, lambda: False, 10)
            while not taken._unread._answers:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(memory, "used", lambda: intake.CEILING + 1 if taken._unread._answers else 0)
            while taken._unread._answers:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(running.wait_for, lambda: heard(deaf) and deaf.closed, "it to be closed")
        assert await channel.unary_unary(ECHO + "Single", bytes, bytes)(b"one") == b"one", "others are served again"
    assert REFUSED == [Reason.INTAKE_FULL]

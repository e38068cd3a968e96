"""Attacks on a real server, and what an honest caller sees meanwhile: `make hostile` prints it, a test holds a slice.

Each attack is a caller that means harm and keeps to the protocol as far as it must. Measured are the gateway's peak
memory, the honest caller's times against those before, and how soon the memory is given back.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import select
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np
from vedette.v1 import answer_pb2, image_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.access import tokens

from tests.bench import load
from tests.support import raw_http2, rest, running

MIB = 2**20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_A_CONNECTION = 250  # calls at once, of those that the server allows
_LARGEST = 33_500_000  # bytes of a message that is still served
CEILING = 640 * MIB  # bytes of the gateway, beside these
_QUEUED = 512 * MIB  # bytes of images that may wait, by the server's defaults
_BEGUN = 20 * 9 * MIB  # bytes of the first frames of streams that begin at once: read before any waits


_HONEST, _HOSTILE = tokens.make("honest"), tokens.make("hostile")  # a line of the file, and the token


def resident(server: running.Server) -> int:
    """The gateway's own bytes of memory: what it shares with its workers is not counted."""
    fields = Path(f"/proc/{server.process.pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata that show a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


@contextlib.contextmanager
def asking_server() -> Iterator[running.Server]:
    """A server that asks who calls, and knows an honest caller and a hostile one."""
    with tempfile.NamedTemporaryFile("w", suffix=".tokens") as file:
        file.write(f"{_HONEST[0]}\n{_HOSTILE[0]}\n")
        file.flush()
        with load.server("--tokens", file.name, token=_HONEST[1]) as server:
            yield server


@dataclass
class Honest:
    """The experience of an honest caller, which sends one picture after the other."""

    seconds: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    peak: int = 0  # the gateway's bytes

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[-1]


def _call(address: str, token: str | None, least: int, pause: float, told: Connection) -> None:
    """Call the server until told to end, and at least so many times; in a process whose time nobody else takes."""
    seen, request, metadata = Honest(), load.request(load.picture()), authorization(token)
    with grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        stub = DetectionServiceStub(channel)
        stub.Detect(request, timeout=running.PATIENCE, metadata=metadata)
        told.send(None)
        while not told.poll() or len(seen.seconds) < least:
            started = time.monotonic()
            try:
                stub.Detect(request, timeout=running.PATIENCE, metadata=metadata)
            except grpc.RpcError as error:
                seen.failed[f"{error.code().name}: {error.details()}"] += 1
            seen.seconds.append(time.monotonic() - started)
            time.sleep(pause)
    told.send(seen)


@contextlib.contextmanager
def honest(server: running.Server, least: int = 20, pause: float = 0.02) -> Iterator[Honest]:
    """Call the server as long as the block runs, and at least so many times; watch its memory."""
    seen, over = Honest(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.peak = max(seen.peak, resident(server))
            time.sleep(0.01)

    spawned = multiprocessing.get_context("spawn")
    told, telling = spawned.Pipe()
    caller = spawned.Process(target=_call, args=(server.address, server.token, least, pause, telling), daemon=True)
    caller.start()
    telling.close()
    told.recv()
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        told.send(None)
        ended: Honest = told.recv()
        seen.seconds, seen.failed = ended.seconds, ended.failed
        over.set()
        watching.join()
        caller.join()


def a_byte_short(server: running.Server, calls: int = 80) -> Counter[str]:
    """Calls that announce the largest message and never send its last byte; returns how they ended."""
    body = memoryview(raw_http2.message(bytes(_LARGEST - 1), _LARGEST))
    ended: Counter[str] = Counter()

    def hold(count: int) -> None:
        with raw_http2.connection(server.address) as held:
            rest = {held.call(): body for _ in range(count)}
            raw_http2.push(held, rest, lambda: len(held.ended) == count, patience=15)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and len(held.ended) < count:
                held.listen(0.1)
            ended.update(trailers.get("grpc-status", "reset") for trailers in held.ended.values())

    threads = [threading.Thread(target=hold, args=(10,)) for _ in range(calls // 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


async def _answers(call: grpc.aio.StreamStreamCall[pb.StreamDetectRequest, pb.StreamDetectResponse]) -> None:
    async for _response in call:
        pass


def unread_streams(
    server: running.Server, streams: int = 60, frames: int = 64, token: str | None = None, *, read: bool = False
) -> None:
    """LOSSLESS streams of raw frames of 9.4 MB, as many as may be in flight, whose answers nobody reads.

    `read` has them read after all.
    """
    edge = 1771
    pixels = np.zeros((edge, edge, 3), np.uint8).tobytes()
    raw = image_pb2.RawImage(data=pixels, height=edge, width=edge, pixel_format=image_pb2.PIXEL_FORMAT_BGR8)
    config = pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS, max_in_flight=64)

    async def send(number: int) -> None:
        async with grpc.aio.insecure_channel(server.address, options=[("vedette.test.number", number)]) as channel:
            call = DetectionServiceStub(channel).StreamDetect(metadata=authorization(token))
            await call.write(pb.StreamDetectRequest(config=config))
            reading = asyncio.create_task(_answers(call) if read else asyncio.sleep(0))
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError), contextlib.ExitStack() as stack:
                stack.callback(reading.cancel)
                for frame_id in range(1, frames + 1):
                    frame = pb.Frame(frame_id=frame_id, image=image_pb2.Image(raw=raw))
                    await call.write(pb.StreamDetectRequest(frame=frame))

    async def run() -> None:
        _, sending = await asyncio.wait([asyncio.create_task(send(number)) for number in range(streams)], timeout=20)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    asyncio.run(run())


def known_streams(server: running.Server) -> None:
    """The same streams, of a caller who shows who it is: they share its turns."""
    unread_streams(server, token=_HOSTILE[1])


def read_streams(server: running.Server) -> None:
    """No attack, to compare with: as many streams as there are workers, of another caller, who reads the answers."""
    unread_streams(server, load.WORKERS, token=_HOSTILE[1], read=True)


def silent_calls(server: running.Server, calls: int = 10_000) -> None:
    """Calls that begin and send nothing."""
    with contextlib.ExitStack() as held:
        for _ in range(calls // _A_CONNECTION):
            silent = held.enter_context(raw_http2.connection(server.address))
            for _ in range(_A_CONNECTION):
                silent.call()
        time.sleep(5)


def unread_answers(server: running.Server, calls: int = 8_000) -> None:
    """Small calls whose answers nobody takes."""
    with contextlib.ExitStack() as held:
        for _ in range(calls // _A_CONNECTION):
            deaf = held.enter_context(raw_http2.connection(server.address))
            for _ in range(_A_CONNECTION):
                deaf.send(deaf.call("/vedette.v1.DetectionService/ListModels"), raw_http2.message(b""))
        time.sleep(5)


def inflating(server: running.Server, calls: int = 400) -> Counter[str]:
    """Compressed calls of 32 KB that would inflate to 33 MB each; returns how they ended."""
    request = load.request(bytes(_LARGEST))
    ended: Counter[str] = Counter()
    with grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        stub = DetectionServiceStub(channel)
        for _ in range(calls):
            with contextlib.suppress(grpc.RpcError):
                stub.Detect(request, timeout=60)
                ended["OK"] += 1
    return ended


def tiny_fields(server: running.Server, calls: int = 30) -> None:
    """Messages of millions of tiny fields that no method has, and of as many as a message may have bytes for."""
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary(raw_http2.DETECT, bytes, bytes)
        for number in range(calls):
            body = b"\xf8\x3f\x01" * (10_000_000 if number % 10 == 0 else 80_000)
            with contextlib.suppress(grpc.RpcError):
                call(body, timeout=60)


def long_lists(server: running.Server, calls: int = 20) -> None:
    """Requests whose lists are longer than any model has outputs or classes."""
    with grpc.insecure_channel(server.address) as channel:
        stub = DetectionServiceStub(channel)
        request = load.request(load.picture())
        request.options.outputs.extend([answer_pb2.OUTPUT_KIND_BOXES] * 60_000)
        for _ in range(calls):
            with contextlib.suppress(grpc.RpcError):
                stub.Detect(request, timeout=60)


def idle_streams(server: running.Server, calls: int = 64) -> None:
    """Streams that are opened and never configured, as many as may be open, while another is opened and answered."""
    with contextlib.ExitStack() as held:
        for _ in range(4):
            one = held.enter_context(raw_http2.connection(server.address))
            for _ in range(calls // 4):
                one.call(raw_http2.STREAM)
        frame = pb.Frame(frame_id=1, image=load.request(load.picture()).image)
        sent = [pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS))]
        sent.append(pb.StreamDetectRequest(frame=frame))
        with grpc.insecure_channel(server.address) as channel:
            (told,) = DetectionServiceStub(channel).StreamDetect(iter(sent), timeout=running.PATIENCE)
        assert told.HasField("answer"), told


def idle_connections(server: running.Server, connections: int = 1_000) -> None:
    """Connections on which nothing is ever said."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * connections + 200)), hard))
    host, _, port = server.address.rpartition(":")
    with contextlib.ExitStack() as held:
        for _ in range(connections):
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_connection((host, int(port)), timeout=0.2))
        time.sleep(3)


def _push(sent: dict[socket.socket, memoryview], seconds: float) -> None:
    """Send as much of each as the server reads within that time."""
    deadline = time.monotonic() + seconds
    for one in sent:
        one.setblocking(False)  # noqa: FBT003  the standard library's own
    while sent and time.monotonic() < deadline:
        _, ready, _ = select.select([], sent, [], 0.1)
        for one in ready:
            try:
                sent[one] = sent[one][one.send(sent[one][:MIB]) :]
            except OSError:  # closed by the server
                del sent[one]
                continue
            if not sent[one]:
                del sent[one]


def bodies_a_byte_short(server: running.Server, connections: int = 100) -> None:
    """Bodies over HTTP of the largest size whose last byte is never sent."""
    head = rest.head(rest.INFER, _LARGEST, **{rest.LENGTH: 100})
    body = memoryview(head + bytes(_LARGEST - 1))
    with contextlib.ExitStack() as held:
        _push({held.enter_context(rest.connect(server.http)): body for _ in range(connections)}, 15)


def pipelined_bodies(server: running.Server, connections: int = 50) -> None:
    """Requests over HTTP that wait, with dozens of bodies behind each on its connection."""
    jpeg = load.picture()
    picture = json.dumps({"inputs": [rest.listed("ENCODED", "UINT8", [len(jpeg)], list(jpeg))]}).encode()
    later = rest.head(rest.INFER, 500_000, **{rest.LENGTH: 10}) + bytes(500_000)
    whole = memoryview(rest.head(rest.INFER, len(picture)) + picture + 31 * later)
    with contextlib.ExitStack() as held:
        _push({held.enter_context(rest.connect(server.http)): whole for _ in range(connections)}, 10)


ATTACKS: dict[str, Callable[[running.Server], object]] = {
    "calls a byte short": a_byte_short,
    "streams whose answers are unread": unread_streams,
    "the same streams, of one known caller": known_streams,
    "calls that send nothing": silent_calls,
    "answers that nobody takes": unread_answers,
    "compressed calls that inflate": inflating,
    "millions of tiny fields": tiny_fields,
    "lists of 60,000": long_lists,
    "streams without a configuration": idle_streams,
    "idle connections": idle_connections,
    "bodies a byte short": bodies_a_byte_short,
    "pipelined bodies": pipelined_bodies,
}

COMPARED: dict[str, Callable[[running.Server], object]] = {"streams whose answers are read": read_streams}


def ceiling(attack: str) -> int:
    """The bytes of memory that the gateway may have under an attack."""
    return CEILING + (_QUEUED + _BEGUN if "streams" in attack else 0)


def given_back(server: running.Server, least: int) -> float:
    """Seconds until the gateway's memory is below so many bytes."""
    started = time.monotonic()
    running.wait_for(lambda: resident(server) < least, f"memory below {least / MIB:.0f} MiB")
    return time.monotonic() - started


def main() -> None:
    """Print what each attack does to a server of two workers; the exit status says whether all is well."""
    wrong = 0
    print(f"{'attack':36}{'peak MiB':>10}{'after MiB':>10}{'p95 before s':>14}{'meanwhile s':>13}{'failed':>8}")
    for name, attack in (COMPARED | ATTACKS).items():
        with asking_server() if attack in (known_streams, read_streams) else load.server() as server:
            with honest(server) as before:
                time.sleep(3)
            with honest(server) as seen:
                attack(server)
            with honest(server) as after:
                time.sleep(1)
            failed = seen.failed.total() + after.failed.total()
            wrong += failed + (seen.peak > ceiling(name))
            print(
                f"{name:36}{seen.peak / MIB:>10.0f}{resident(server) / MIB:>10.0f}{before.p95:>14.3f}{seen.p95:>13.3f}"
                f"{failed:>8}",
                *seen.failed,
                flush=True,
            )
    print(f"{len(ATTACKS)} attacks, {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

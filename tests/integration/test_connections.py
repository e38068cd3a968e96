"""Connections as they are: peers that vanish, servers that restart, clients that ping, sockets in a file."""

import asyncio
import itertools
import os
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vedette_client import Answered, AsyncClient, Client, Dropped, Event, Frame, NoConnection, Sendable
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.rpc.server import Keepalive

from tests.support import running
from tests.support.relay import Relay
from tests.support.running import sample


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [jpeg(picture.pixels) for picture in scenes.Clip(seed=3_000_001, frames=20)]


def paced(pictures: list[bytes], count: int, at: int, event: Any) -> Iterator[Sendable]:
    """A camera of some frames a second; something happens at one of them."""
    for number, picture in zip(range(count), itertools.cycle(pictures), strict=False):
        if number == at:
            event()
        yield Frame(picture, frame_id=number)
        time.sleep(0.1)


# Either finds out by itself: the connection by its pings, the stream by what it does not hear.
WATCHES: list[tuple[float | None, float | None]] = [(1.0, None), (None, 2.0)]


@pytest.mark.parametrize(("keepalive", "stall"), WATCHES, ids=["keepalive", "stall"])
@pytest.mark.parametrize("policy", ["LATEST", "LOSSLESS"])
def test_a_peer_that_vanishes_without_a_word_is_noticed(
    bundled: running.Server, pictures: list[bytes], policy: Any, keepalive: float | None, stall: float | None
) -> None:
    """The connection falls silent, as one does whose other end has lost its power: no FIN comes, and no RST."""
    with Relay(bundled.address) as relay, Client(relay.address, keepalive_seconds=keepalive) as client:
        frames = paced(pictures, 25, 8, relay.silence)
        told = list(client.stream(frames, policy=policy, stall_seconds=stall))
    assert [event.frame_id for event in told] == list(range(25)), "every frame is told of once, in order"
    lost = [event for event in told if isinstance(event, Dropped) and event.reason == "CONNECTION_LOST"]
    assert bool(lost) == (policy == "LATEST")
    if policy == "LOSSLESS":
        assert all(isinstance(event, Answered) for event in told)
    assert relay.connections >= 2


@pytest.mark.parametrize(("keepalive", "stall"), WATCHES, ids=["keepalive", "stall"])
async def test_the_asynchronous_client_notices_too(
    bundled: running.Server, pictures: list[bytes], keepalive: float | None, stall: float | None
) -> None:
    with Relay(bundled.address) as relay:
        async with AsyncClient(relay.address, keepalive_seconds=keepalive) as client:
            frames = paced(pictures, 25, 8, relay.silence)
            told = [event async for event in client.stream(frames, policy="LOSSLESS", stall_seconds=stall)]
    assert [event.frame_id for event in told] == list(range(25))
    assert all(isinstance(event, Answered) for event in told)


@pytest.mark.parametrize("policy", ["LATEST", "LOSSLESS"])
def test_a_connection_that_is_reset_is_made_again(bundled: running.Server, pictures: list[bytes], policy: Any) -> None:
    with Relay(bundled.address) as relay, Client(relay.address) as client:
        told = list(client.stream(paced(pictures, 25, 8, relay.reset), policy=policy))
    assert [event.frame_id for event in told] == list(range(25))
    assert isinstance(told[-1], Answered)
    if policy == "LOSSLESS":
        assert all(isinstance(event, Answered) for event in told)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_file_outlives_its_server(pictures: list[bytes], number: signal.Signals) -> None:
    """It is killed, or stopped, and started again at its address: every frame is answered once, in order."""
    port = running.free_port()
    flags = ("--listen", f"127.0.0.1:{port}", "--threads", "1")
    frames = pictures * 3
    with Client(f"127.0.0.1:{port}") as client:
        with running.server(*flags) as first:
            events = client.stream(frames, policy="LOSSLESS", resume_seconds=running.PATIENCE)
            told: list[Event] = list(itertools.islice(events, 10))
            first.process.send_signal(number)
            first.process.wait()
        with running.server(*flags):
            told += events
    assert [event.frame_id for event in told] == list(range(len(frames)))
    assert all(isinstance(event, Answered) for event in told)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_does_not_come_back_leaves_the_names_of_what_is_missing(
    pictures: list[bytes], number: signal.Signals
) -> None:
    given: list[int] = []

    def frames() -> Iterator[Sendable]:
        for picture in itertools.cycle(pictures):
            given.append(len(given))
            yield picture

    told: list[Event] = []
    with running.server("--threads", "1") as server, Client(server.address) as client:
        events = client.stream(frames(), policy="LOSSLESS", resume_seconds=1)
        told += itertools.islice(events, 5)
        server.process.send_signal(number)
        with pytest.raises(NoConnection) as caught:
            told.extend(events)
    missing = caught.value.unanswered
    assert [event.frame_id for event in told] + list(missing) == given
    assert missing


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def goaway(address: str, pings: int, every: float) -> bytes | None:
    """Ping as a client does, in HTTP/2's own bytes; what a GOAWAY says, if one comes."""
    host, _, port = address.rpartition(":")
    seen = b""
    with socket.create_connection((host, int(port))) as sock:
        sock.settimeout(0.2)
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
        for _ in range(pings):
            deadline = time.monotonic() + every
            try:
                sock.sendall(_frame(6, 0, 0, b"\0" * 8))
            except OSError:
                break
            while time.monotonic() < deadline:
                try:
                    data = sock.recv(65_536)
                except TimeoutError:
                    continue
                except OSError:
                    break
                seen += data
                if not data:
                    break
    position = seen.find(b"too_many_pings")
    return None if position < 0 else seen[position:]


def test_pings_of_a_client_are_permitted_and_floods_are_not(bundled: running.Server) -> None:
    """Five seconds apart: closer than any client's ten. gRPC's own default sends one away at the fourth."""
    with ThreadPoolExecutor(2) as pool:
        sane = pool.submit(goaway, bundled.address, 5, 5.2)
        flood = pool.submit(goaway, bundled.address, 20, 0.1)
        assert flood.result() is not None
        assert sane.result() is None


async def test_what_is_permitted_is_what_grpc_is_told() -> None:
    """The same at a faster setting, on a server with nothing but these options."""
    verdicts = {}
    for permitted in (0.3, 60.0):
        server = grpc.aio.server(options=Keepalive(permitted=permitted).options())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        verdicts[permitted] = await asyncio.to_thread(goaway, f"127.0.0.1:{port}", 6, 0.4)
        await server.stop(None)
    assert verdicts[0.3] is None
    assert verdicts[60.0] is not None


async def test_a_client_that_vanishes_frees_its_stream() -> None:
    """Its calls are cancelled once the server's own pings are not answered."""
    cancelled = asyncio.Event()

    async def behaviour(_requests: Any, context: Any) -> None:
        await context.write(b"")
        try:
            await asyncio.sleep(running.PATIENCE)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    server = grpc.aio.server(options=Keepalive(every=0.5, patience=0.5).options())
    handler = grpc.stream_stream_rpc_method_handler(behaviour, bytes, bytes)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with Relay(f"127.0.0.1:{port}") as relay:
        async with grpc.aio.insecure_channel(relay.address) as client:
            call = client.stream_stream("/a/b", bytes, bytes)()
            await call.read()
            await asyncio.sleep(1.5)
            assert not cancelled.is_set(), "one that answers is kept, though it says nothing else"
            relay.silence()
            await asyncio.wait_for(cancelled.wait(), 10)
            call.cancel()
    await server.stop(None)


def test_an_idle_camera_keeps_its_stream(bundled: running.Server, pictures: list[bytes]) -> None:
    """Though its client pings as often as it may, and nothing else is said."""

    def frames() -> Iterator[Sendable]:
        yield pictures[0]
        time.sleep(12)
        yield pictures[1]

    with Client(bundled.address, keepalive_seconds=5.5) as client:
        told = list(client.stream(frames(), policy="LATEST"))
    assert [type(event) for event in told] == [Answered, Answered]


class TestUnixSockets:
    """gRPC at a file: for those who share a machine and no network."""

    def test_it_serves_and_its_health_is_told(self, tmp_path: Path, pictures: list[bytes]) -> None:
        path = tmp_path / "vedette.sock"
        with running.server("--listen", f"unix:{path}", "--threads", "1") as server:
            assert server.address == f"unix:{path}"
            mode = path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o660
            with Client(server.address) as client:
                assert client.healthy()
                assert client.detect(pictures[0]).detections
                assert len(list(client.stream(pictures[:3], policy="LOSSLESS"))) == 3
            with grpc.insecure_channel(f"unix:{path}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                answer = health.Check(health_pb2.HealthCheckRequest(service="vedette.v1.DetectionService"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            ran = subprocess.run([running.BIN / "vedette", "health", "--server", f"unix://{path}"], check=False)
            assert ran.returncode == 0
            assert running.http(server, "/readyz")[0] == 200
            assert server.stop() == 0
        assert not path.exists(), "what it has made it takes away"

    def test_what_a_killed_server_has_left_is_taken_away(self, tmp_path: Path) -> None:
        path = tmp_path / "vedette.sock"
        flags = ("--listen", f"unix:{path}", "--threads", "1")
        with running.server(*flags, serving=False) as server:
            server.process.kill()
            server.process.wait()
        assert path.exists()
        with running.server(*flags, serving=False) as server, Client(server.address) as client:
            client.healthy()

    def test_a_relative_path_is_one_from_where_it_was_started(self, tmp_path: Path) -> None:
        flags = ("--listen", f"unix:{os.path.relpath(tmp_path / 'v.sock')}", "--threads", "1")
        with running.server(*flags, serving=False) as server, Client(server.address) as client:
            assert (tmp_path / "v.sock").exists()
            client.healthy()

    def test_the_place_of_another_server_is_not_taken(self, tmp_path: Path) -> None:
        path = tmp_path / "vedette.sock"
        with running.server("--listen", f"unix:{path}", "--threads", "1", serving=False) as server:
            assert _refused(f"unix:{path}") == f"cannot listen on unix:{path}: another server listens on it"
            with Client(server.address) as client:
                client.healthy()

    def test_what_is_no_socket_is_let_be(self, tmp_path: Path) -> None:
        path = tmp_path / "weights"
        path.write_text("precious")
        assert _refused(f"unix:{path}").endswith("the file is not a socket, and is left alone")
        assert path.read_text() == "precious"

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        assert _refused(f"unix:{tmp_path}/no/v.sock").endswith(f"the folder {tmp_path}/no does not exist")


def _refused(listen: str) -> str:
    """The one line of a server that cannot start."""
    command = [str(running.BIN / "vedette-server"), "serve", "--http", "127.0.0.1:0", "--listen", listen]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VEDETTE_")}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert ran.returncode in (1, 2)
    lines = [line for line in ran.stderr.splitlines() if line.startswith("vedette-server: ")]
    assert len(lines) == 1, ran.stderr
    return str(lines[0]).removeprefix("vedette-server: ")


@pytest.mark.parametrize("flag", ["--listen", "--http"])
def test_a_port_that_is_taken_is_named(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--http" if flag == "--listen" else "--listen"
        command = [str(running.BIN / "vedette-server"), "serve", flag, address, other, "127.0.0.1:0"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert f"cannot listen on {address}" in ran.stderr


def test_a_server_starts_beside_a_service_of_its_name(bundled: running.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Field case 09, with all that Kubernetes adds."""
    assert sample(bundled, "vedette_streams_open") == 0
    address, port = "10.0.0.1", "8001"
    for name, value in {
        "SERVICE_HOST": address,
        "SERVICE_PORT": port,
        "SERVICE_PORT_GRPC": port,
        "PORT": f"tcp://{address}:{port}",
        "PORT_8001_TCP": f"tcp://{address}:{port}",
        "PORT_8001_TCP_PROTO": "tcp",
        "PORT_8001_TCP_PORT": port,
        "PORT_8001_TCP_ADDR": address,
    }.items():
        monkeypatch.setenv(f"VEDETTE_{name}", value)
        monkeypatch.setenv(f"VEDETTE_GPU_{name}", value)
    ran = subprocess.run([running.BIN / "vedette-server", "doctor"], capture_output=True, text=True, check=False)
    assert "unknown environment variables" not in ran.stdout + ran.stderr
    assert "✔ model repository" in ran.stdout

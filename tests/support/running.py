"""Real servers for tests: started as users start them, on free ports, ended by the signals that users send."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_client import Client, Tls
from vedette_server.pool import forks

BIN = Path(sys.executable).parent
DEVICE = os.environ.get("TEST_DEVICE", "cpu")  # where the models of tests run, as torch names it
PATIENCE = 120.0  # seconds that a condition may take on a slow machine before a test gives up


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition` gives something true; returns that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def http(server: "Server", path: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    request = urllib.request.Request(server.http + path, headers=headers)  # noqa: S310  our own server
    context = ssl.create_default_context(cafile=server.tls.ca) if server.tls else None
    if context and server.tls and server.tls.cert:
        context.load_cert_chain(server.tls.cert, server.tls.key)
    try:
        with urllib.request.urlopen(request, context=context) as response:  # noqa: S310  the same
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_port() -> int:
    """A port that is free now, for a server that must come back to it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def sample(server: "Server", series: str) -> float:
    """The value of a series, or the sum over all with the name of a metric; 0 for none."""
    lines = http(server, "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((series + " ", series + "{")))


def channel(server: "Server") -> grpc.Channel:
    """A connection to a server as other clients than ours have it."""
    if server.tls is None:
        return grpc.insecure_channel(server.address)
    assert server.tls.ca
    trusted = grpc.ssl_channel_credentials(Path(server.tls.ca).read_bytes())
    return grpc.secure_channel(server.address.removeprefix("grpcs://"), trusted)


def shown(server: "Server") -> tuple[tuple[str, str], ...]:
    """The credentials of such a client."""
    return (("authorization", f"Bearer {server.token}"),) if server.token else ()


def detect_unchecked(server: "Server", request: pb.DetectRequest) -> None:
    """Send what our own client refuses before it is sent, as another would; the server's refusal is passed over."""
    with channel(server) as opened, contextlib.suppress(grpc.RpcError):
        DetectionServiceStub(opened).Detect(request, timeout=PATIENCE, metadata=shown(server))


def shared_memories(pid: int) -> int:
    """Count the images' shared memories that a process holds."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as the one that lists them is
            links.append(str(link.readlink()))
    return sum("memfd:vedette" in link for link in links)


@dataclass
class Server:
    """A running `vedette-server serve`."""

    process: subprocess.Popen[bytes]
    log_path: Path
    tls: Tls | None = None  # how it is called
    token: str | None = None
    address: str = field(init=False)
    http: str = field(init=False)

    def __post_init__(self) -> None:
        listening = wait_for(
            lambda: self.events("listening") or self.process.poll() is not None, "the server to listen"
        )
        assert listening is not True, self.log_path.read_text()
        self.address, self.http = listening[0]["grpc"], listening[0]["http"]

    def logged(self, name: str) -> list[dict[str, Any]]:
        """Wait until the log tells of an event; it is written by a thread of its own, after what it tells of."""
        found: list[dict[str, Any]] = wait_for(lambda: self.events(name), f"{name} in the log")
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log_path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_until_serving(self) -> None:
        with Client(self.address, tls=self.tls, token=self.token) as client:
            wait_for(client.healthy, f"SERVING; log:\n{self.log_path.read_text()}")

    def children(self) -> list[int]:
        """The processes that are its own: the fork server, and the workers, which it has adopted."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def worker_pids(self) -> list[int]:
        return [*filter(self.is_worker, self.children())]

    def is_worker(self, pid: int) -> bool:
        """True if a process is a worker, and still exists."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False
        return f"Name:\t{forks.NAME}\n" in status and "State:\tZ" not in status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def lives(pid: int) -> bool:
    """True if a process has not ended; its new parent may not have reaped it."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def check_invariants(log_path: Path) -> None:
    """Fail where a server has found its ledger of admitted items broken."""
    broken = [line for line in log_path.read_text().splitlines() if "invariant_broken" in line]
    assert not broken, broken


@contextlib.contextmanager
def server(
    *flags: str,
    serving: bool = True,
    inside: Sequence[str] = (),
    tls: Tls | None = None,
    token: str | None = None,
) -> Iterator[Server]:
    """Start a server, wait until it serves, and end it after the test if the test did not.

    `inside` is a command that runs it within other bounds, such as `unshare`.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        command = [str(BIN / "vedette-server"), "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VEDETTE_")}
        environment |= {"VEDETTE_CHECK_INVARIANTS": "true", "VEDETTE_DEVICE": DEVICE}
        process = subprocess.Popen([*inside, *command, "--log-format", "json", *flags], stderr=log, env=environment)
        try:
            running = Server(process, Path(log.name), tls, token)
            if serving:
                running.wait_until_serving()
            yield running
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            check_invariants(Path(log.name))

"""Certificates replaced under load: `python -m tests.bench.rotations` does it 100 times and prints the figures.

Calls come on connections that last and on ones made anew for each, by gRPC and by HTTP; none of them is tried again.
The key is replaced before its certificate, so that for a moment the two do not belong together, and every fourth time
a half-written certificate stands there first. Between two rotations every caller is answered at least once.
"""

import socket
import ssl
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import Answered, Client, Frame, images, wire
from vedette_client.channel import SERVICE
from vedette_client.images import Beside

from tests.bench.load import OPTIONS, picture
from tests.support import running
from tests.support.authority import Authority, Pair
from tests.support.running import PATIENCE

_PAUSE = (
    0.05  # seconds between two connections of a caller, and two frames: who calls shares the processor with the model
)
_ALONE = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))


@dataclass
class Rotated:
    """The figures of the run."""

    rotations: int = 0
    answered: Counter[str] = field(default_factory=Counter)  # each caller counts its own
    failed: list[str] = field(default_factory=list)
    stale: int = 0  # handshakes after a rotation that showed another certificate than the newest
    seconds: float = 0.0

    def __str__(self) -> str:
        calls = ", ".join(f"{count} {kind}" for kind, count in sorted(self.answered.items()))
        return (
            f"{self.rotations} rotations in {self.seconds:.0f} s; answered: {calls}; "
            f"failed: {len(self.failed)} {self.failed[:3]}; stale handshakes: {self.stale}"
        )


@dataclass(frozen=True)
class Target:
    """A server, and what it is asked."""

    address: str
    http: str
    image: Frame
    model: str = ""


class Load:
    """Callers that call until they are told to stop."""

    def __init__(self, target: Target, authority: Authority, seen: Rotated) -> None:
        self._target = target
        self._authority = authority
        self._seen = seen
        self._done = threading.Event()
        self.kinds: dict[str, Callable[[], None]] = {
            "on a lasting connection": self._lasting,
            "on a connection of their own": self._anew,
            "frames of a stream": self._stream,
            "by HTTP": self._scrapes,
        }

    def run(self, kind: str) -> None:
        """Call in one way; what fails is kept, and ends it."""
        try:
            self.kinds[kind]()
        except Exception as error:  # noqa: BLE001  whatever it is, it is what is counted
            self._seen.failed.append(f"{kind}: {error!r}"[:500])

    def stop(self) -> None:
        self._done.set()

    def _channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self._authority.path.read_bytes())
        return grpc.secure_channel(self._target.address.removeprefix("grpcs://"), credentials, _ALONE)

    def _answered(self, kind: str) -> None:
        self._seen.answered[kind] += 1

    def _lasting(self) -> None:
        declared, data = images.message(self._target.image.image, Beside(self._target.image.pixel_format))
        request = wire.Outgoing(pb.DetectRequest(model_name=self._target.model, image=declared), data)
        with self._channel() as channel:
            detect = channel.unary_unary(f"/{SERVICE}/Detect", wire.serialize, pb.DetectResponse.FromString)
            while not self._done.wait(_PAUSE):
                detect(request, timeout=PATIENCE)
                self._answered("on a lasting connection")

    def _anew(self) -> None:
        while not self._done.wait(_PAUSE):
            with self._channel() as channel:
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            self._answered("on a connection of their own")

    def _stream(self) -> None:
        def frames() -> Iterator[Frame]:
            while not self._done.wait(_PAUSE):
                yield self._target.image

        with Client(self._target.address, tls=self._authority.tls()) as client:
            for event in client.stream(frames(), policy="LOSSLESS", resume_seconds=0, model=self._target.model):
                if not isinstance(event, Answered):
                    raise TypeError(event)
                self._answered("frames of a stream")

    def _scrapes(self) -> None:
        while not self._done.wait(_PAUSE):
            url = f"{self._target.http}/metrics"
            with urllib.request.urlopen(url, context=self._authority.context()) as response:  # noqa: S310  our own server
                response.read()
            self._answered("by HTTP")


def rotate(target: Target, authority: Authority, pair: Pair, times: int) -> Rotated:
    """Call a server without a pause, and replace its certificates meanwhile."""
    seen, started = Rotated(), time.monotonic()
    load = Load(target, authority, seen)
    with ThreadPoolExecutor(len(load.kinds)) as threads:
        callers = [threads.submit(load.run, kind) for kind in load.kinds]
        try:
            for number in range(times):
                _until_all_were_answered(load, seen)
                if number % 4 == 0:
                    pair.cert.write_bytes(pair.cert.read_bytes()[:300])
                    _until_all_were_answered(load, seen)
                authority.server()
                seen.rotations += 1
                seen.stale += sum(shown != newest(pair) for shown in _shown(target, authority))
            _until_all_were_answered(load, seen)
        finally:
            load.stop()
        for caller in callers:
            caller.result()
    seen.seconds = time.monotonic() - started
    return seen


def _until_all_were_answered(load: Load, seen: Rotated) -> None:
    before = Counter(seen.answered)
    running.wait_for(
        lambda: seen.failed or all(seen.answered[kind] > before[kind] for kind in load.kinds), "every caller"
    )


def newest(pair: Pair) -> bytes:
    """The certificate that a file begins with."""
    pem = pair.cert.read_text()
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)])


def _shown(target: Target, authority: Authority) -> Iterator[bytes]:
    for url in (target.address, target.http):
        host, _, port = url.partition("://")[2].rpartition(":")
        context = authority.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            yield tls.getpeercert(binary_form=True) or b""


def main(times: int) -> None:
    """Rotate those of a server of the bundled model."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        pair = authority.server()
        flags = ("--threads", "1", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
        with running.server(*flags, tls=authority.tls()) as server:
            print(rotate(Target(server.address, server.http, Frame(picture())), authority, pair, times))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)

"""Calls as no client library makes them: HTTP/2 frame by frame."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

DETECT = "/vedette.v1.DetectionService/Detect"
STREAM = "/vedette.v1.DetectionService/StreamDetect"
_CHUNK = 16_384  # bytes; HTTP/2's smallest limit of a frame


def _named(headers: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Headers by name; they are text, because the connection is told an encoding."""
    return dict(headers)


class Connection:
    """One connection, and calls on it whose every byte is the test's."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.ended: dict[int, dict[str, str]] = {}  # by call: its trailers
        self.closed = False
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(self.http.data_to_send())

    def call(self, path: str = DETECT, **more: str) -> int:
        """Open a call; returns its number."""
        number = self.http.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        headers |= {"te": "trailers", "content-type": "application/grpc", **more}
        self.http.send_headers(number, list(headers.items()))
        self._flush()
        return number

    def send(self, call: int, data: bytes) -> int:
        """Send as much of the data as the server lets through now; returns how much that was."""
        sent = 0
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while sent < len(data):
                room = min(self.http.local_flow_control_window(call), _CHUNK, len(data) - sent)
                if room <= 0:
                    break
                self.http.send_data(call, data[sent : sent + room])
                sent += room
        self._flush()
        return sent

    def listen(self, seconds: float) -> None:
        """Take what the server says within so many seconds; the answers' bytes are never acknowledged."""
        if self.closed or not select.select([self.socket], [], [], seconds)[0]:
            return
        try:
            received = self.socket.recv(1 << 20)
            events = self.http.receive_data(received)
        except (OSError, h2.exceptions.ProtocolError):
            received, events = b"", []
        self.closed = not received
        for event in events:
            match event:
                case h2.events.TrailersReceived(stream_id=int(number), headers=headers):
                    self.ended[number] = _named(headers)
                case h2.events.ResponseReceived(stream_id=int(number), headers=headers) if "grpc-status" in _named(
                    headers
                ):
                    self.ended[number] = _named(headers)
                case h2.events.StreamReset(stream_id=int(number)):
                    self.ended.setdefault(number, {"reset": "yes"})
                case h2.events.ConnectionTerminated():
                    self.closed = True
        self._flush()

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def connection(address: str) -> Iterator[Connection]:
    made = Connection(address)
    try:
        yield made
    finally:
        made.close()


def message(payload: bytes, announced: int | None = None) -> bytes:
    """A message as gRPC frames it; `announced` is the length that its prefix claims."""
    return b"\0" + (len(payload) if announced is None else announced).to_bytes(4, "big") + payload


def push(held: Connection, calls: dict[int, memoryview], until: Callable[[], bool], patience: float) -> None:
    """Send each call its data as the server lets it through, until nothing is left or the condition holds."""
    deadline = time.monotonic() + patience
    while any(calls.values()) and not held.closed and not until() and time.monotonic() < deadline:
        moved = 0
        for number, rest in calls.items():
            if rest and number not in held.ended:
                sent = held.send(number, bytes(rest[: 1 << 18]))
                calls[number] = rest[sent:]
                moved += sent
        held.listen(0.0 if moved else 0.05)

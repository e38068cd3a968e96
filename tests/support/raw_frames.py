"""Connections whose every frame is the test's, right or wrong: HTTP/2 as no library would let one speak it."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
_HEAD = 9  # bytes of a frame before its payload
_TABLE_SIZE = 1  # number of a setting
Header = tuple[bytes, bytes]


def frame(kind: int, payload: bytes = b"", *, call: int = 0, flags: int = 0, length: int | None = None) -> bytes:
    """One frame; `length` is what it claims."""
    told = len(payload) if length is None else length
    return told.to_bytes(3, "big") + bytes([kind % 256, flags % 256]) + struct.pack(">I", call % 2**32) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A frame of settings."""
    return frame(SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in pairs))


class Connection:
    """One connection, with what the server has said on it so far."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.settimeout(0)
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._received = b""
        self._replies = b""  # that must not stand within what is being sent
        self._blocks: dict[int, bytes] = {}  # headers that are not whole yet
        self.ended: dict[int, str] = {}  # by call, how: its status, or "reset"
        self.closed = False
        self.goodbye = ""  # why the server ends the connection, in its words
        self._next = 1

    def call(self) -> int:
        """The number of the next call."""
        self._next += 2
        return self._next - 2

    def headers(self, call: int, fields: Iterable[Header], flags: int = END_HEADERS) -> bytes:
        """The frame that opens a call."""
        return frame(HEADERS, self._encoder.encode([*fields], huffman=False), call=call, flags=flags)

    def send(self, data: bytes, patience: float = 10.0) -> None:
        """Send all of it, hearing what the server says meanwhile, unless the server has closed."""
        deadline, left = time.monotonic() + patience, memoryview(data)
        while left and not self.closed and time.monotonic() < deadline:
            readable, writable, _ = select.select([self._socket], [self._socket], [], 0.5)
            if readable:
                self._hear()
            if writable and not self.closed:
                try:
                    left = left[self._socket.send(left[: 1 << 16]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self.closed = True
        self._reply()

    def finish(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def listen(self, until: Callable[[], bool], patience: float) -> bool:
        """Hear the server until a condition holds, or it has closed; returns whether that came in time."""
        deadline = time.monotonic() + patience
        while not until() and not self.closed:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if select.select([self._socket], [], [], min(left, 1.0))[0]:
                self._hear()
                self._reply()
        return True

    def _hear(self) -> None:
        try:
            got = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        self.closed = not got
        self._received += got
        while len(self._received) >= _HEAD:
            end = _HEAD + int.from_bytes(self._received[:3], "big")
            if len(self._received) < end:
                return
            head, payload = self._received[:_HEAD], self._received[_HEAD:end]
            self._received = self._received[end:]
            self._take(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)

    def _take(self, kind: int, flags: int, call: int, payload: bytes) -> None:
        if kind in (HEADERS, CONTINUATION):
            self._take_headers(call, flags, payload)
        elif kind == RESET:
            self.ended.setdefault(call, "reset")
        elif kind == GOAWAY:
            self.goodbye = payload[8:].decode("ascii", "replace")
        elif kind == SETTINGS and not flags & ACK:
            self._replies += frame(SETTINGS, flags=ACK)
        elif kind == PING and not flags & ACK:
            self._replies += frame(PING, payload, flags=ACK)
        elif kind == DATA and payload:
            room = struct.pack(">I", len(payload))
            self._replies += frame(WINDOW, room) + frame(WINDOW, room, call=call)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.setdefault(call, "ended")

    def _take_headers(self, call: int, flags: int, payload: bytes) -> None:
        self._blocks[call] = self._blocks.get(call, b"") + payload
        if flags & END_HEADERS:
            fields = dict(self._decoder.decode(self._blocks.pop(call), raw=True))
            if b"grpc-status" in fields:
                self.ended[call] = bytes(fields[b"grpc-status"]).decode("ascii", "replace")

    def _reply(self) -> None:
        """Say what the protocol wants to be answered, if there is room for it just now."""
        with contextlib.suppress(OSError):
            self._replies = self._replies[self._socket.send(self._replies) :] if self._replies else b""

    def close(self) -> None:
        self._socket.close()

"""The channel between the gateway and one worker: a Unix stream socket with framed messages.

A frame is a 4-byte big-endian length and a message in MessagePack. Descriptors of new shared memory ride on the frame
of the batch that uses it (SCM_RIGHTS).
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from vedette_server.pool.messages import FromWorker, ToWorker

T = TypeVar("T")
_LENGTH = struct.Struct("!I")
# Bytes per message to a worker. The kernel's default buffer holds two of them, so that a worker that keeps reading
# never receives half a message.
_MOST_SENT = 64 * 1024
_MOST_DESCRIPTORS = 64  # per message; a batch has fewer images


class ChannelClosedError(ConnectionError):
    """The other end is gone."""


class ChannelBlockedError(ChannelClosedError):
    """The other end is alive but has stopped reading; it may have received half a message."""


class MessageTooLargeError(ValueError):
    """The message exceeds the limit and is not sent."""


def _write_array(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    raise NotImplementedError(type(value))


def _read_array(_type: type, value: Any) -> Any:  # noqa: ANN401  msgspec's hook takes and returns anything
    dtype, shape, data = value
    return np.frombuffer(data, dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_write_array)


def _frame(message: ToWorker | FromWorker) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class GatewayEnd:
    """The gateway's end of the channel: asynchronous."""

    _decoder = msgspec.msgpack.Decoder(FromWorker, dec_hook=_read_array)

    def __init__(self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sock = sock  # a duplicate for sending descriptors, which asyncio's transports cannot
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> "GatewayEnd":
        """Take over a connected socket."""
        duplicate = sock.dup()
        try:
            reader, writer = await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            duplicate.close()
            sock.close()
            raise
        return cls(duplicate, reader, writer)

    def send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> None:
        """Send one message, with descriptors.

        Raises `MessageTooLargeError`, `ChannelClosedError` if the worker is gone, and `ChannelBlockedError`.
        """
        frame = _frame(message)
        if len(frame) > _MOST_SENT:
            msg = f"{len(frame)} bytes for a worker exceed the limit of {_MOST_SENT} per message"
            raise MessageTooLargeError(msg)
        try:
            sent = socket.send_fds(self._sock, [frame], descriptors)
        except BlockingIOError as error:  # a worker has few jobs at a time, so it has stopped reading
            raise ChannelBlockedError from error
        except OSError as error:
            raise ChannelClosedError from error
        if sent != len(frame):
            raise ChannelBlockedError

    async def receive(self) -> FromWorker:
        """Receive one message. Raises `ChannelClosedError` once the worker is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: FromWorker = self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ChannelClosedError from error
        return message

    def close(self) -> None:
        """Close this end."""
        self._sock.close()
        self._writer.close()


class WorkerEnd:
    """The worker's end of the channel: blocking. One thread receives; any may send."""

    _decoder = msgspec.msgpack.Decoder(ToWorker, dec_hook=_read_array)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Send one message."""
        frame = _frame(message)
        with self._sending:
            self._sock.sendall(frame)

    def receive(self) -> tuple[ToWorker, list[int]]:
        """Receive one message and its descriptors.

        Raises `ChannelClosedError` once the gateway is gone.
        """
        header, fds, _flags, _address = socket.recv_fds(self._sock, _LENGTH.size, _MOST_DESCRIPTORS)
        header += self._exactly(_LENGTH.size - len(header))
        (length,) = _LENGTH.unpack(header)
        message = self._decoder.decode(self._exactly(length))
        return message, fds

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            part = self._sock.recv(count - len(received))
            if not part:
                raise ChannelClosedError
            received += part
        return bytes(received)

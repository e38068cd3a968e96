"""The channel between the gateway and one worker: a Unix stream socket with framed messages and shared memory.

A frame is a 4-byte big-endian length and a message in MessagePack. An image is an anonymous memory file whose
descriptor rides on its job's frame (SCM_RIGHTS): it has no name, so no crash, not even `kill -9` of everything, can
leave it behind, and the kernel frees it when its last holder closes it or ends.
"""

import asyncio
import mmap
import os
import socket
import struct
from typing import Any, TypeVar

import msgspec
import numpy as np

from vedette_server.contract.image import Buffer
from vedette_server.pool.messages import FromWorker, ToWorker

T = TypeVar("T")
_LENGTH = struct.Struct("!I")


class ChannelClosedError(ConnectionError):
    """The other end is gone."""


def _write_array(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    raise NotImplementedError(type(value))


def _read_array(_type: type, value: Any) -> Any:  # noqa: ANN401  msgspec's hook takes and gives anything
    dtype, shape, data = value
    return np.frombuffer(data, dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_write_array)


def _frame(message: ToWorker | FromWorker) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class SharedImage:
    """An image in anonymous shared memory, written once. `close` it when no worker needs it any more."""

    def __init__(self, data: Buffer) -> None:
        self.size = len(data)
        self.fd = os.memfd_create("vedette-image")
        written = 0
        view = memoryview(data)
        while written < self.size:
            written += os.write(self.fd, view[written:])

    def close(self) -> None:
        """Give this process's share of the memory up."""
        os.close(self.fd)


class GatewayEnd:
    """The gateway's end: asynchronous."""

    _decoder = msgspec.msgpack.Decoder(FromWorker, dec_hook=_read_array)

    def __init__(self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sock = sock  # a duplicate, for sending descriptors: asyncio's transports cannot
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> "GatewayEnd":
        """Take a connected socket over."""
        duplicate = sock.dup()
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(duplicate, reader, writer)

    def send(self, message: ToWorker, image: SharedImage | None = None) -> None:
        """Send one message, with an image's memory if one is given.

        Raises `ChannelClosedError` if the worker is gone, or no longer reads what it is sent.
        """
        frame = _frame(message)
        try:
            sent = socket.send_fds(self._sock, [frame], [image.fd] if image else [])
        except OSError as error:  # a full buffer too: a worker has one job at a time, so it has stopped reading
            raise ChannelClosedError from error
        if sent != len(frame):
            raise ChannelClosedError

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
    """The worker's end: blocking."""

    _decoder = msgspec.msgpack.Decoder(ToWorker, dec_hook=_read_array)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: FromWorker) -> None:
        """Send one message."""
        self._sock.sendall(_frame(message))

    def receive(self) -> tuple[ToWorker, memoryview]:
        """Receive one message and the image that came with it (empty if none did).

        Raises `ChannelClosedError` once the gateway is gone.
        """
        header, fds, _flags, _address = socket.recv_fds(self._sock, _LENGTH.size, 1)
        header += self._exactly(_LENGTH.size - len(header))
        (length,) = _LENGTH.unpack(header)
        message = self._decoder.decode(self._exactly(length))
        return message, _map(fds[0]) if fds else memoryview(b"")

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            part = self._sock.recv(count - len(received))
            if not part:
                raise ChannelClosedError
            received += part
        return bytes(received)


def _map(fd: int) -> memoryview:
    """Map an image's memory, read-only; it is released with the last view of it."""
    try:
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    finally:
        os.close(fd)

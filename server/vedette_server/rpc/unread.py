"""Answers that callers do not read. When memory runs short, the connections of the oldest ones are closed.

gRPC buffers an answer until its caller reads it, however long that takes, and its asyncio server offers no way to end
such a call. So the connection is shut down below gRPC, which then frees everything that it holds for it. Callers on a
Unix socket have no address to tell their connections apart; those are left alone.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import structlog

log = structlog.get_logger()

_GRACE_SECONDS = 1.0  # granted to every answer, whatever the memory

Context = grpc.aio.ServicerContext[Any, Any]


class Unread:
    """The answers that are still buffered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: dict[object, tuple[float, str]] = {}  # since when, and for which peer

    def _add(self, peer: str) -> object:
        answer = object()
        self._answers[answer] = self._clock(), unquote(peer)
        return answer

    def until_done(self, context: Context) -> None:
        """Track the only answer of a call until the call has ended."""
        answer = self._add(context.peer())

        def done(_context: object) -> None:
            del self._answers[answer]

        context.add_done_callback(done)  # type: ignore[arg-type]  # its types have the callback of a client's call

    @contextlib.contextmanager
    def writing(self, peer: str) -> Iterator[None]:
        """Track an answer while the block, which writes it, runs."""
        answer = self._add(peer)
        try:
            yield
        finally:
            del self._answers[answer]

    def give_up(self) -> int:
        """Close the connections of the older half of the answers; return the number of these answers."""
        late = self._clock() - _GRACE_SECONDS
        old = sorted((since, peer) for since, peer in self._answers.values() if since < late and peer.startswith("ipv"))
        given_up = old[: -(-len(old) // 2)]
        if given_up:
            closed = _shut({peer for _, peer in given_up})
            log.warning("answers_unread", answers=len(given_up), connections=closed)
        return len(given_up)


def _shut(peers: set[str]) -> int:
    """Shut down this process's connections to these peers; return their number."""
    closed = 0
    # Copied, so that gRPC may close its own meanwhile. Only sockets, as nothing would close the copy of anything else.
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir() if path.is_socket()]:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if _peer(one) in peers:
                one.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _peer(connection: socket.socket) -> str | None:
    """Return the peer as gRPC names it. Raises `OSError` if there is none."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port, *_ = connection.getpeername()
    host = host.removeprefix("::ffff:")  # an IPv4 address on a socket of both kinds
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

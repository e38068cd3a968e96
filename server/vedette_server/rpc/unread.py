"""Answers that callers do not take. When memory runs short, the connections of the oldest are closed.

gRPC keeps an answer until its caller takes it, however long that is, and its asyncio server has no way to end such a
call. So the connection is shut down below it, and gRPC frees all that it holds for it. Of Unix sockets, whose callers
have no address, connections cannot be told apart: those are left alone.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import structlog

log = structlog.get_logger()

_GRACE_SECONDS = 1.0  # that an answer may take whatever the memory

Context = grpc.aio.ServicerContext[Any, Any]


class Unread:
    """The answers that gRPC has not yet passed on."""

    def __init__(self) -> None:
        self._answers: dict[object, tuple[float, str]] = {}  # since when, and to whom

    def _add(self, context: Context) -> object:
        answer = object()
        self._answers[answer] = time.monotonic(), unquote(context.peer())
        return answer

    def until_done(self, context: Context) -> None:
        """Count the only answer of a call until the call has ended."""
        answer = self._add(context)

        def done(_context: object) -> None:
            del self._answers[answer]

        context.add_done_callback(done)  # type: ignore[arg-type]  # its types have the callback of a client's call

    @contextlib.contextmanager
    def writing(self, context: Context) -> Iterator[None]:
        """Count an answer of a stream as long as the block runs."""
        answer = self._add(context)
        try:
            yield
        finally:
            del self._answers[answer]

    def give_up(self) -> int:
        """Close the connections of half of the answers, the oldest; returns how many answers those are."""
        late = time.monotonic() - _GRACE_SECONDS
        old = sorted((since, peer) for since, peer in self._answers.values() if since < late and peer.startswith("ipv"))
        given_up = old[: -(-len(old) // 2)]
        if given_up:
            closed = _shut({peer for _, peer in given_up})
            log.warning("answers_unread", answers=len(given_up), connections=closed)
        return len(given_up)


def _shut(peers: set[str]) -> int:
    """Shut this process's connections to these peers down; returns how many there were."""
    closed = 0
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:  # the listing's own is gone
            if _peer(one) in peers:
                one.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _peer(connection: socket.socket) -> str | None:
    """The other end, as gRPC names it. Raises `OSError` where there is none."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port, *_ = connection.getpeername()
    host = host.removeprefix("::ffff:")  # an IPv4 address on a socket of both kinds
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

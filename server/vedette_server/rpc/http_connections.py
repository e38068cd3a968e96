"""The connections of the HTTP port: a limited number, each with one request in progress.

Above the limit, the oldest ones without an answer in progress are closed. While a request is in progress, those behind
it wait in the kernel: the HTTP library would read and keep dozens of them on each connection, with their bodies.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from aiohttp import web

from vedette_server.rpc import http_calls
from vedette_server.rpc.http_calls import Handler

MOST = 128


class Connections:
    """Tracks which connections have a request and an answer in progress."""

    def __init__(self, writing: Callable[[str], contextlib.AbstractContextManager[None]]) -> None:
        """`writing` tracks a response to a peer while the block writes it."""
        self._writing = writing
        self._held: dict[object, _Held] = {}  # by the connection's own protocol
        self._answered: set[object] = set()  # protocols of those with an answer in progress

    def give_way(self, server: web.Server) -> None:
        """Close the oldest connections above the limit that wait for nothing, or do not read what they waited for."""
        is_open = {one: one.transport for one in server.connections if one.transport and not one.transport.is_closing()}

        def waits(one: web.RequestHandler) -> bool:
            return one in self._answered and not is_open[one].get_write_buffer_size()

        for one in sorted(is_open, key=waits)[: max(len(is_open) - MOST, 0)]:
            is_open[one].abort()

    def handling(self, handler: Handler) -> Handler:
        """Return a handler that also writes its response, and until then holds what comes next on the connection."""

        async def handle(request: web.Request) -> web.Response:
            with self._holding(request):
                response = await handler(request)
                with contextlib.suppress(ConnectionError), self._writing(http_calls.peer(request)):
                    await response.prepare(request)
                    await response.write_eof()
                return response

        return handle

    @contextlib.contextmanager
    def answering(self, request: web.Request) -> Iterator[None]:
        """Count the connection as one that waits for its answer."""
        self._answered.add(request.protocol)
        try:
            yield
        finally:
            self._answered.discard(request.protocol)

    @contextlib.contextmanager
    def receiving(self, request: web.Request) -> Iterator[None]:
        """Receive while the block reads the request's body."""
        held = self._held.get(request.protocol)
        if held is None:  # the caller has gone
            yield
            return
        held.end()
        try:
            yield
        finally:
            held.begin()

    @contextlib.contextmanager
    def _holding(self, request: web.Request) -> Iterator[None]:
        protocol, transport = request.protocol, request.transport
        if transport is None:  # the same
            yield
            return
        held = self._held[protocol] = _Held(protocol, transport)
        held.begin()
        try:
            yield
        finally:
            del self._held[protocol]
            held.end()


class Port(Protocol):
    """Further paths of the HTTP port."""

    def routes(self, connections: Connections) -> Iterable[tuple[str, str, Handler]]:
        """Return the HTTP method, the path and the handler of each."""

    def writing(self, peer: str) -> contextlib.AbstractContextManager[None]:
        """Track a response to a peer while the block writes it."""


class _Held(asyncio.Protocol):
    """Stands in for a connection's protocol, which must receive nothing meanwhile."""

    def __init__(self, protocol: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._early = b""  # one piece, as reading pauses after it
        # All else goes on to it.
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self._early += data
        self._transport.pause_reading()

    def begin(self) -> None:
        """Stand in."""
        self._transport.set_protocol(self)

    def end(self) -> None:
        """Hand over what was received meanwhile, and receive again."""
        self._transport.set_protocol(self._protocol)
        if self._early:
            early, self._early = self._early, b""
            self._transport.resume_reading()
            self._protocol.data_received(early)

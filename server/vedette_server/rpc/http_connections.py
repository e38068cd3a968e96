"""The connections of the HTTP port: a limited number, each with one request in progress.

Above the limit, the oldest ones without a response in progress are closed. While a response is in progress, pipelined
requests wait in the kernel: the HTTP library would read and keep dozens of them, with their bodies.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from vedette_server.rpc import http_calls

MOST = 128


class Connections:
    """Tracks which connections have a response in progress."""

    def __init__(self, writing: Callable[[str], contextlib.AbstractContextManager[None]]) -> None:
        """`writing` tracks a response to a peer while it is written."""
        self._writing = writing
        self._answered: set[object] = set()  # protocols of connections with a response in progress

    def give_way(self, server: web.Server) -> None:
        """Close the oldest connections above the limit that wait for nothing, or do not read what they waited for."""
        is_open = {one: one.transport for one in server.connections if one.transport and not one.transport.is_closing()}

        def waits(one: web.RequestHandler) -> bool:
            return one in self._answered and not is_open[one].get_write_buffer_size()

        for one in sorted(is_open, key=waits)[: max(len(is_open) - MOST, 0)]:
            is_open[one].abort()

    async def answer(self, request: web.Request, answering: Awaitable[web.Response]) -> web.Response:
        """Compute a response and write it, while the connection's next request waits."""
        with self._alone(request):
            response = await answering
            with contextlib.suppress(ConnectionError), self._writing(http_calls.peer(request)):
                await response.prepare(request)
                await response.write_eof()
            return response

    @contextlib.contextmanager
    def _alone(self, request: web.Request) -> Iterator[None]:
        protocol, transport = request.protocol, request.transport
        if transport is None:  # the caller has gone
            yield
            return
        waiting = _Waiting(protocol, transport)
        self._answered.add(protocol)
        transport.set_protocol(waiting)
        try:
            yield
        finally:
            self._answered.discard(protocol)
            transport.set_protocol(protocol)
            waiting.resume()


class _Waiting(asyncio.Protocol):
    """Stands in for a connection's protocol, which must receive nothing yet."""

    def __init__(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._early = b""  # one piece at most
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self._early += data
        self._transport.pause_reading()

    def resume(self) -> None:
        """Hand over what was received early, and receive again."""
        if self._early:
            self._transport.resume_reading()
            self._protocol.data_received(self._early)

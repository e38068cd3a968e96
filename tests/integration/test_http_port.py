"""The HTTP port is not taken by connections that ask for nothing."""

import contextlib
import socket
from urllib.parse import urlsplit

from vedette_server.rpc import http_connections

from tests.support import running


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)  # noqa: FBT003  the standard library's own
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_connections_that_ask_for_nothing_give_way(bundled: running.Server) -> None:
    url = urlsplit(bundled.http)
    with contextlib.ExitStack() as stack:
        idle = []
        for number in range(3 * http_connections.MOST):
            idle.append(stack.enter_context(socket.create_connection((url.hostname, url.port))))
            idle[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n" if number % 2 else b"")  # and no end of it
        assert running.http(bundled, "/livez") == (200, "alive\n")
        closed = running.wait_for(lambda: {*filter(is_closed, idle)}, "some to be closed")
        running.wait_for(lambda: len({*filter(is_closed, idle)}) > 1.9 * http_connections.MOST, "all but the limit")
        assert closed <= set(idle[: 2 * http_connections.MOST + 1]), "the oldest"
        assert not is_closed(idle[-1]), "and not for having asked for nothing so long"

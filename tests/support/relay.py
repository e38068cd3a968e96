"""A TCP relay between a client and a server, on loopback: it can fall silent without closing anything, or break off.

To fall silent is what a dead host, a NAT that has forgotten and a cable that was pulled look like: no FIN, no RST.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self


class Relay:
    """Listens at `address` and passes on to `target`; a context manager."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._pairs: list[tuple[socket.socket, socket.socket, threading.Event]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        self._listener.close()
        for near, far, _passing in self._pairs:
            near.close()
            far.close()

    def silence(self) -> None:
        """Pass nothing more on the connections there are; new ones work."""
        for _near, _far, passing in self._pairs:
            passing.clear()

    def reset(self) -> None:
        """Break the connections there are off, with a RST."""
        for ends in self._pairs:
            for end in ends[:2]:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                passing = threading.Event()
                passing.set()
                self._pairs.append((near, far, passing))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pass, args=(source, sink, passing), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, passing: threading.Event) -> None:
    with contextlib.suppress(OSError):
        for data in _received(source):
            if not passing.is_set():
                passing.wait()  # for ever: what comes is taken, acknowledged by nobody
            sink.sendall(data)
        if passing.is_set():
            sink.shutdown(socket.SHUT_WR)


def _received(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(65_536):
        yield data

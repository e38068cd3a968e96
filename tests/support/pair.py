"""Two servers that serve the same, for what stands before them: a proxy, or the client's own balancing."""

import contextlib
import signal
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support import running


@dataclass
class Pair:
    """Two places, in each of which a server can be ended and replaced."""

    ports: list[int] = field(default_factory=lambda: [running.free_port(), running.free_port()])
    _servers: list[running.Server | None] = field(default_factory=lambda: [None, None])
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        self.complete()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def address(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def complete(self) -> None:
        """Start a server in every place without one."""
        for place, port in enumerate(self.ports):
            if self._servers[place] is None:
                starting = running.server("--threads", "1", "--listen", f"127.0.0.1:{port}")
                self._servers[place] = self._open.enter_context(starting)

    def end(self, place: int, number: signal.Signals) -> None:
        """End a server, and wait for that."""
        server, self._servers[place] = self._servers[place], None
        assert server
        server.stop(number)

    def counted(self, series: str) -> list[float]:
        """Read a series of each."""
        return [running.sample(server, series) if server else 0.0 for server in self._servers]

    def busiest(self) -> int:
        """The place with the most streams."""
        streams = self.counted("vedette_streams_open")
        return streams.index(max(streams))

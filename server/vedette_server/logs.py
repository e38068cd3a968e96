"""Structured logging to stderr, as JSON lines or for humans.

A separate thread writes the lines, so that no request waits for a standard error that nobody reads, that is closed or
on a full disk. Lines that cannot be written are dropped, and counted in the next line that can. Each kind of line has a
limit per second, so that a flood of one kind neither fills the disk nor hides the others.
"""

import atexit
import logging
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_MOST_LINES = 1_000  # waiting to be written
_FLUSH_SECONDS = 1.0  # for waiting lines when the process ends
MOST_OF_A_KIND = 200  # lines per second


class Kinds:
    """Counter of lines by kind, an event or a library's logger. A structlog processor."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0.0  # start of the second being counted
        self._lines: Counter[str] = Counter()  # in that second
        self._untold: Counter[str] = Counter()  # suppressed lines not reported yet
        self._counting = threading.Lock()
        self.suppressed = 0  # lines in total

    def admit(self, kind: str) -> int | None:
        """Count a line; return the number suppressed since the last of its kind, or None to suppress it too."""
        with self._counting:
            if self._clock() >= self._second + 1:
                self._second = self._clock()
                self._lines.clear()
            self._lines[kind] += 1
            if self._lines[kind] > MOST_OF_A_KIND:
                self._untold[kind] += 1
                self.suppressed += 1
                return None
            return self._untold.pop(kind, 0)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:  # noqa: ANN401  structlog's signature
        """Pass an event on, with the number of suppressed ones. Raises `DropEvent`."""
        untold = self.admit(str(event.get("event")))
        if untold is None:
            raise structlog.DropEvent
        if untold:
            event["suppressed"] = untold
        return event


class LineWriter(logging.Handler):
    """Writer of lines to a descriptor that may block or fail. A structlog logger and a logging handler.

    It bypasses Python's own buffers, whose locks a blocked thread would hold when the process ends.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.kinds = Kinds()
        self._lines: queue.Queue[str] = queue.Queue(_MOST_LINES)
        self._dropping = threading.Lock()
        self._untold = 0  # dropped lines not reported yet
        self.dropped = 0  # lines in total
        threading.Thread(target=self._write, name="log", daemon=True).start()
        self._written = threading.Event()  # set while nothing is waiting
        self._written.set()
        atexit.register(self._written.wait, _FLUSH_SECONDS)

    def msg(self, line: str) -> None:
        """Queue a line without blocking."""
        self._written.clear()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._drop(1, untold=1)

    log = debug = info = warn = warning = error = critical = exception = fatal = msg

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a library's log record."""
        untold = self.kinds.admit(record.name)
        if untold is not None:
            self.msg(self.format(record) + (f" ({untold} lines suppressed before)" if untold else ""))

    def _drop(self, lines: int, untold: int) -> None:
        with self._dropping:
            self.dropped += lines
            self._untold += untold

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with self._dropping:
                dropped, self._untold = self._untold, 0
            text = f"{line}\n{dropped} log lines were dropped\n" if dropped else f"{line}\n"
            try:
                self._write_all(text.encode(errors="backslashreplace"))
            except OSError:  # a full disk or a closed pipe
                self._drop(1, untold=dropped + 1)
            if self._lines.empty():
                self._written.set()

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


_writers: list[LineWriter] = []  # at most one, once logging is configured


def dropped() -> int:
    """Return the number of lines that could not be written so far."""
    return sum(writer.dropped for writer in _writers)


def suppressed() -> int:
    """Return the number of lines suppressed by the limit per kind so far."""
    return sum(writer.kinds.suppressed for writer in _writers)


def configure(log_format: Literal["console", "json"], log_level: Level = "info") -> None:
    """Configure the process's logging, once. Libraries log from `warning` on, unless the level is `debug`."""
    level = _LEVELS[log_level]
    writer = LineWriter(sys.stderr.fileno())
    shared: list[Processor] = [
        writer.kinds,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        shared += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        colours, plain = (
            sys.stderr.isatty(),
            structlog.dev.plain_traceback,
        )  # others print local variables: images
        shared.append(structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, exception_formatter=plain))
    _writers.append(writer)
    logging.basicConfig(handlers=[writer], level=level if log_level == "debug" else max(level, logging.WARNING))
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_name: writer,
        cache_logger_on_first_use=True,
    )

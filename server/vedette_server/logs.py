"""The log: structured, on stderr, as JSON lines or for people.

Lines are written by a thread of their own: a standard error that nobody reads, that is closed or on a full disk,
holds up no request. What cannot be written is dropped, and counted in the next line that can. Of each kind of line
there are so many a second: the flood of one neither fills the disk nor drowns the others.
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
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

_MOST_LINES = 1_000  # that wait to be written
_FLUSH_SECONDS = 1.0  # for what waits when the process ends
MOST_OF_A_KIND = 200  # lines a second


class Kinds:
    """Counts lines by their kind: an event, or the library that speaks. A structlog processor."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0.0  # when the one began that is counted
        self._lines: Counter[str] = Counter()  # in that second
        self._untold: Counter[str] = Counter()  # lines that were suppressed, of which no line says so
        self._counting = threading.Lock()
        self.suppressed = 0  # lines, ever

    def admit(self, kind: str) -> int | None:
        """Whether a line may be written: how many of its kind were suppressed since the last, or None if it is, too."""
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
        """Let an event pass, with the number of those that did not. Raises `DropEvent`."""
        untold = self.admit(str(event.get("event")))
        if untold is None:
            raise structlog.DropEvent
        if untold:
            event["suppressed"] = untold
        return event


class LineWriter(logging.Handler):
    """Writes lines to a descriptor that may block or fail. A structlog logger and a logging handler.

    It writes past Python's own buffers, whose locks a thread that blocks would hold when the process ends.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.kinds = Kinds()
        self._lines: queue.Queue[str] = queue.Queue(_MOST_LINES)
        self._dropping = threading.Lock()
        self._untold = 0  # lines that were dropped, of which no line says so
        self.dropped = 0  # lines, ever
        threading.Thread(target=self._write, name="log", daemon=True).start()
        self._written = threading.Event()  # set while nothing waits
        self._written.set()
        atexit.register(self._written.wait, _FLUSH_SECONDS)

    def msg(self, line: str) -> None:
        """Take a line; never waits."""
        self._written.clear()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._drop(1, untold=1)

    log = debug = info = warn = warning = error = critical = exception = fatal = msg

    def emit(self, record: logging.LogRecord) -> None:
        """Take what libraries log."""
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
            except OSError:  # a full disk; a pipe that was closed
                self._drop(1, untold=dropped + 1)
            if self._lines.empty():
                self._written.set()

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


_writers: list[LineWriter] = []  # one, once the log is set up


def dropped() -> int:
    """How many lines could not be written so far."""
    return sum(writer.dropped for writer in _writers)


def suppressed() -> int:
    """How many lines were not written because there were too many of their kind."""
    return sum(writer.kinds.suppressed for writer in _writers)


def configure(log_format: Literal["console", "json"]) -> None:
    """Set the process's log up, once."""
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
        colours, plain = sys.stderr.isatty(), structlog.dev.plain_traceback  # others print local variables: images
        shared.append(structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, exception_formatter=plain))
    _writers.append(writer)
    logging.basicConfig(handlers=[writer], level=logging.WARNING)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_name: writer,
        cache_logger_on_first_use=True,
    )

"""The log: structured, on stderr, as JSON lines or for people.

Lines are written by a thread of their own: a standard error that nobody reads, that is closed or on a full disk,
holds up no request. What cannot be written is dropped, and counted in the next line that can.
"""

import atexit
import logging
import os
import queue
import sys
import threading
from typing import Literal

import structlog
from structlog.typing import Processor

_MOST_LINES = 1_000  # that wait to be written
_FLUSH_SECONDS = 1.0  # for what waits when the process ends


class LineWriter(logging.Handler):
    """Writes lines to a descriptor that may block or fail. A structlog logger and a logging handler.

    It writes past Python's own buffers, whose locks a thread that blocks would hold when the process ends.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
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
        self.msg(self.format(record))

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


def configure(log_format: Literal["console", "json"]) -> None:
    """Set the process's log up, once."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        shared += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        colours, plain = sys.stderr.isatty(), structlog.dev.plain_traceback  # others print local variables: images
        shared.append(structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, exception_formatter=plain))
    writer = LineWriter(sys.stderr.fileno())
    _writers.append(writer)
    logging.basicConfig(handlers=[writer], level=logging.WARNING)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_name: writer,
        cache_logger_on_first_use=True,
    )

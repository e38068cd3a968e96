"""The end of a command: one line for an error, with its exit code, and never a traceback.

Exit codes: 0 success; 1 local failure; 2 usage; 130 Ctrl-C; 143 SIGTERM; 129 SIGHUP; 141 the reader is gone. Commands
that call a server have more of their own.
"""

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from vedette_commands import text

FAILURE, USAGE = 1, 2
_BY_SIGNAL = 128
_DEBUG = "VEDETTE_TRACEBACK"


class Ended(KeyboardInterrupt):
    """A signal ends the command; the message, if any, says what was completed."""

    def __init__(self, message: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.message = message
        self.number = number

    @classmethod
    def by(cls, signalled: KeyboardInterrupt, message: str) -> "Ended":
        """Return the same end with a message."""
        return cls(message, signalled.number if isinstance(signalled, Ended) else signal.SIGINT)


class FailedError(Exception):
    """An error that ends a command with one line; `status` is its exit code."""

    def __init__(self, message: object, status: int = FAILURE) -> None:
        super().__init__(str(message))
        self.status = status


class _NobodyReadsError(Exception):
    """The reader of standard output is gone."""


class _Orderly(click.Command):
    """Command with orderly errors and exit codes."""

    def status(self, error: Exception) -> int | None:
        """Return the exit code for an expected error, whose text is the message; None for other errors."""
        return error.status if isinstance(error, FailedError) else None

    def say(self, message: object) -> None:
        """Print one line to stderr."""
        with contextlib.suppress(OSError):  # nobody is reading
            click.echo(f"{self.name}: {text.line(message)}", err=True)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401  click's signature
        """Parse the command line, and show the help if requested."""
        with self._ended():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's signature
        """Run a command."""
        with self._ended():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        """Report signals before click does in its own words."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise FailedError(self._words(error), self._number(error)) from error
        except BrokenPipeError as error:
            raise _NobodyReadsError from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  click's signature
        **extra: Any,  # noqa: ANN401  click's signature
    ) -> Any:  # noqa: ANN401  click's signature
        """Run the program, and exit the process."""
        del prog_name
        if not standalone_mode:
            return super().main(args, self.name, complete_var, standalone_mode=False, **extra)
        with _ending_by_signals():
            _prepare_streams()
            status = self._status(args, complete_var, extra)
        sys.exit(status)

    def _status(self, args: Sequence[str] | None, complete_var: str | None, extra: dict[str, Any]) -> int:
        try:
            status = self._run(args, complete_var, extra)
        except (BrokenPipeError, _NobodyReadsError):
            _forget(sys.stdout, sys.stderr)
            status = _BY_SIGNAL + signal.SIGPIPE
        except KeyboardInterrupt as error:
            self.say(self._words(error))
            status = self._number(error)
        except Exception as error:  # noqa: BLE001  nothing may end in a traceback
            status = self._failed(error)
        _flush_or_forget()
        return status

    def _run(self, args: Sequence[str] | None, complete_var: str | None, extra: dict[str, Any]) -> int:
        try:
            status = super().main(args, self.name, complete_var, standalone_mode=False, **extra)
        except SystemExit as ended:  # a command with its own exit code
            status = ended.code
        sys.stdout.flush()
        return status if isinstance(status, int) else 0

    def _failed(self, error: Exception) -> int:
        match error:
            case NoArgsIsHelpError():
                error.show()
                return error.exit_code
            case click.exceptions.Abort():  # click's form of Ctrl-C
                self.say("interrupted")
                return _BY_SIGNAL + signal.SIGINT
            case click.UsageError():
                path = error.ctx.command_path if error.ctx else self.name
                self.say(f"{error.format_message()} (see '{path} --help')")
                return error.exit_code
            case click.ClickException():
                self.say(error.format_message())
                return error.exit_code
        if (status := self.status(error)) is not None:
            self.say(error)
            return status
        self.say(self._unforeseen(error))
        return FAILURE

    @staticmethod
    def _unforeseen(error: Exception) -> str:
        match error:
            case OSError(filename=str() | bytes() as path, strerror=str(why)):
                return f"{os.fsdecode(path)}: {why}"
            case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO | errno.EBADF, strerror=why):
                return f"cannot write: {why}"
            case OSError():
                return str(error)
            case MemoryError():
                return "out of memory"
        if os.environ.get(_DEBUG):
            traceback.print_exception(error)
        return f"unexpected: {type(error).__name__}: {error} (a bug; {_DEBUG}=1 shows where)"

    @staticmethod
    def _words(error: KeyboardInterrupt) -> str:
        stopped = "terminated" if isinstance(error, Ended) and error.number != signal.SIGINT else "interrupted"
        return f"{stopped}: {error}" if str(error) else stopped

    @staticmethod
    def _number(error: KeyboardInterrupt) -> int:
        return _BY_SIGNAL + (error.number if isinstance(error, Ended) else signal.SIGINT)


class Program(_Orderly, click.Group):
    """A group of commands with orderly errors and exit codes."""


def fail(message: object, status: int = FAILURE) -> NoReturn:
    """End the command with one line."""
    raise FailedError(message, status)


@contextlib.contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command like Ctrl-C, so that nothing half-written remains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: types.FrameType | None) -> NoReturn:
        raise Ended(number=number)

    def put(number: signal.Signals, handler: Any) -> Any:  # noqa: ANN401  the signal module's own
        if signal.getsignal(number) is not signal.SIG_IGN:  # unless ignored, as under nohup and for background jobs
            return signal.signal(number, handler)
        return signal.SIG_IGN

    before = {number: put(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = put(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            put(number, handler)


def _prepare_streams() -> None:
    """Make every character printable, and keep files opened later from taking the place of a closed stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  until the process ends
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _flush_or_forget() -> None:
    """Flush the streams, so that Python has nothing to complain about at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _forget(stream)


def _forget(*streams: Any) -> None:  # noqa: ANN401  any substitute for a stream
    """Redirect what streams still hold to nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(null, stream.fileno())
    os.close(null)


def is_full(error: BaseException | None) -> bool:
    """Return whether an error concerns the file system rather than a single file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

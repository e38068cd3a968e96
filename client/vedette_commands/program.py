"""How a command ends: a line for what has gone wrong, and the exit code that belongs to it; never a traceback.

Exit codes: 0 success; 1 local failure; 2 usage; 130 Ctrl-C; 143 SIGTERM; 129 SIGHUP; 141 nobody reads on. Commands that
call a server have more of their own.
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
    """A signal ends the command; the message, where there is one, says what is there so far."""

    def __init__(self, message: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.message = message
        self.number = number

    @classmethod
    def by(cls, signalled: KeyboardInterrupt, message: str) -> "Ended":
        """The same end, with what is to be said about it."""
        return cls(message, signalled.number if isinstance(signalled, Ended) else signal.SIGINT)


class FailedError(Exception):
    """What ends a command with one line; `status` is its exit code."""

    def __init__(self, message: object, status: int = FAILURE) -> None:
        super().__init__(str(message))
        self.status = status


class _NobodyReadsError(Exception):
    """Whoever read what is printed has gone."""


class _Orderly(click.Command):
    """What ends in good order."""

    def status(self, error: Exception) -> int | None:
        """The exit code for an error of the program's own, which its text explains; None: it is no such error."""
        return error.status if isinstance(error, FailedError) else None

    def say(self, message: object) -> None:
        """One line to whoever called."""
        with contextlib.suppress(OSError):  # nobody is there to be told
            click.echo(f"{self.name}: {text.line(message)}", err=True)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401  click's own signature
        """Read the command line, and show the help if it is asked for."""
        with self._ended():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's own signature
        """Run a command."""
        with self._ended():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        """Tell of what ends a command by signals before click does, which has its own words for that."""
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
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  click's own signature
        **extra: Any,  # noqa: ANN401  click's own signature
    ) -> Any:  # noqa: ANN401  click's own signature
        """Run the program, and end the process."""
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
        except SystemExit as ended:  # a command that knows how it ends
            status = ended.code
        sys.stdout.flush()
        return status if isinstance(status, int) else 0

    def _failed(self, error: Exception) -> int:
        match error:
            case NoArgsIsHelpError():
                error.show()
                return error.exit_code
            case click.exceptions.Abort():  # how click tells of Ctrl-C
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
                return "there is too little memory for it"
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
    """Several commands that end in good order."""


def fail(message: object, status: int = FAILURE) -> NoReturn:
    """End the command with one line."""
    raise FailedError(message, status)


@contextlib.contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end a command as Ctrl-C does, so that nothing half-written is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: types.FrameType | None) -> NoReturn:
        raise Ended(number=number)

    def put(number: signal.Signals, handler: Any) -> Any:  # noqa: ANN401  as signal has it
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it, and shells for what runs beside them
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
    """Have no letter fail to be printed, and no file that is opened later take the place of a closed stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  until the process ends
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _flush_or_forget() -> None:
    """Leave nothing to be flushed when Python ends, which would complain in its own words."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _forget(stream)


def _forget(*streams: Any) -> None:  # noqa: ANN401  whatever stands for a stream
    """Have what a stream still holds go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(null, stream.fileno())
    os.close(null)


def is_full(error: BaseException | None) -> bool:
    """Whether an error is of the place where files are written, and not of one file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

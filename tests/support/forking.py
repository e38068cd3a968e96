"""The server's commands that run models, each in a process of its own, without the seconds in which it imports torch.

One process imports all that they need, and becomes a command, in a fork, for each line that it reads. The commands as
users start them are `commands` and `running.BIN`.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_PARENT = """
import json, os, sys
from vedette_commands.start import server
import vedette_server.check
import vedette_server.cli
import vedette_server.importer
for line in sys.stdin:
    arguments, *files = json.loads(line)
    if not (child := os.fork()):
        for number, path in enumerate((os.devnull, *files)):
            os.dup2(os.open(path, os.O_RDWR), number)
        sys.argv = ["vedette-server", *arguments]
        server()
    print(child, flush=True)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # a process still, so that a late signal meets no other
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Parent:
    """The process that commands are forked from, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PARENT], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def begin(self, *arguments: str, out: str = os.devnull, err: str = os.devnull) -> int:
        """Start a command; returns its process. `out` and `err` are files to write into."""
        return int(self._exchange(json.dumps([arguments, out, err])))

    def end(self) -> int:
        """Wait for the command to end; returns its exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(int(self._exchange("")))

    def _exchange(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        with self._process:  # which closes its pipe, and waits for its end
            pass


@functools.cache
def parent() -> Parent:
    """Start it, once for all tests of this process."""
    started = Parent()
    atexit.register(started.close)
    return started


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    words = [*map(str, arguments)]
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        parent().begin(*words, out=out.name, err=err.name)
        status = parent().end()
        return subprocess.CompletedProcess(words, status, out.read().decode(), err.read().decode())

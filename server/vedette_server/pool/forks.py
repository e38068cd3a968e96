"""The fork server's process: imports what predictors need, runs no threads, and forks workers.

Started as `python -m vedette_server.pool.forks DESCRIPTOR MODULE [BYTES]`: its end of a Unix socket, the module to
import, and each worker's limit of private memory. It sends READY once the import is done. From then on it answers each
byte, which carries the descriptor of a worker's end of a channel, with the worker's process id. It ends when the socket
closes.
"""

import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from vedette_server.pool import bare, memory, worker

READY, FORK = b"r", b"f"
PID = struct.Struct("!i")
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # OpenBLAS starts its threads at import; NumPy has little to multiply here
    # Otherwise, code that checks for a GPU at import initialises CUDA, which makes forking impossible.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
NAME = "vedette-worker"  # shown by `ps` and `top`, since workers inherit this process's command line


def _fork(channel: int, control: socket.socket, limits: Sequence[int]) -> int:
    """Fork a worker and return its process id; 0 if no process could be created.

    The double fork makes the worker an orphan, and thus a child of the gateway, which adopts orphans. Only the gateway
    learns how the worker ends, and the worker outlives this process.
    """
    reading, writing = os.pipe()
    try:
        between = os.fork()
    except OSError:
        between = -1
    if between == 0:
        _be(lambda: _between(channel, (reading, writing, control.fileno()), limits))
    os.close(writing)
    if between > 0:
        os.waitpid(between, 0)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read(PID.size)
    (pid,) = PID.unpack(said) if said else (0,)
    return int(pid)


def _between(channel: int, others: tuple[int, int, int], limits: Sequence[int]) -> None:
    """Fork the worker, send its process id, and end."""
    os.setsid()
    if (pid := os.fork()) != 0:
        os.write(others[1], PID.pack(pid))
        return
    for descriptor in others:
        os.close(descriptor)
    _be(lambda: _work(channel, limits))


def _work(channel: int, limits: Sequence[int]) -> None:
    Path("/proc/self/comm").write_text(NAME)
    for most in limits:
        memory.limit(most)
    # The end of the process closes the socket. If it closed earlier, the reading thread would end the process instead.
    worker.serve(socket.socket(fileno=channel))


def _be(role: Callable[[], None]) -> NoReturn:
    """Run a forked process's role and exit: it must never return into the loop of `main`."""
    worker.until_closed(role)
    os._exit(0)


def main() -> None:
    """Import, then fork until the gateway is gone. SIGQUIT dumps the stacks, in workers too.

    The gateway handles the terminal's Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    memory.keep_freed()
    bare.settle()
    gc.disable()  # searching what is being imported for garbage takes a tenth of the time
    with contextlib.suppress(Exception):  # the error is reported when a predictor is loaded
        importlib.import_module(sys.argv[2])
    gc.collect()
    gc.freeze()  # so that the workers' collectors do not touch, and thereby copy, shared pages
    gc.enable()
    limits = [int(most) for most in sys.argv[3:]]
    with socket.socket(fileno=int(sys.argv[1])) as control:
        control.sendall(READY)
        while True:
            asked, descriptors, _flags, _address = socket.recv_fds(control, len(FORK), 1)
            if not asked:
                return
            for channel in descriptors:
                control.sendall(PID.pack(_fork(channel, control, limits)))
                os.close(channel)


if __name__ == "__main__":
    main()

"""The fork server's own process: it has imported what predictors need, runs no thread, and forks workers.

Started as `python -m vedette_server.pool.forks DESCRIPTOR MODULE [BYTES]`: its end of a Unix socket, the module to
import, and what each worker may use of its own memory. It says READY once, when it is. Then each byte that comes, with
the descriptor of a worker's end of a channel, is answered by the worker's process id. It ends with the socket.
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
    "OPENBLAS_NUM_THREADS": "1",  # OpenBLAS starts its threads as it is imported; NumPy has little to multiply
    # What asks, as it is imported, whether there is a GPU would else begin to use it; then no fork can.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
NAME = "vedette-worker"  # as `ps` and `top` show workers: their command line is this process's


def _fork(channel: int, control: socket.socket, limits: Sequence[int]) -> int:
    """Fork a worker, and return its process id; 0: there is no process to be had.

    Forked twice, it is an orphan at once, and so a child of the gateway, which adopts orphans: the gateway alone is
    told how it ends, and it outlives this process.
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
    """Fork the worker, say which process it is, and end."""
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
    # The process's end closes it. Closed before, the thread that reads from it would end the process, in its own way.
    worker.serve(socket.socket(fileno=channel))


def _be(role: Callable[[], None]) -> NoReturn:
    """Play a forked process's part, and end with it: nothing may come back into the loop of `main`."""
    worker.until_closed(role)
    os._exit(0)


def main() -> None:
    """Import, then fork until the gateway is gone. SIGQUIT shows the stacks, the workers' too.

    The terminal's Ctrl-C is the gateway's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    memory.keep_freed()
    bare.settle()
    with contextlib.suppress(Exception):  # it is told when a predictor is to be loaded
        importlib.import_module(sys.argv[2])
    gc.collect()
    gc.freeze()  # so that the workers' collectors do not touch, and thereby copy, what is shared
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

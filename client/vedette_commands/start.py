"""Entry points of the commands. Their imports take a second, in which Ctrl-C must be as quiet as later."""

import atexit
import gc
import os
import signal

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # otherwise gRPC prints each failed handshake, outside the log


def client() -> None:
    """Run `vedette`."""
    _begin()
    from vedette_client.cli import main  # slow

    main()


def server() -> None:
    """Run `vedette-server`."""
    _begin()
    from vedette_server.cli import main  # slow

    main()


def _begin() -> None:
    """Let Ctrl-C end the process silently during imports; `Program` later reports it in a line.

    At exit, Python searches everything that was imported for garbage, which takes half a second with torch: frozen, it
    is left to the end of the process.
    """
    atexit.register(gc.freeze)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise the parent process has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

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

    gc.enable()
    main()


def server() -> None:
    """Run `vedette-server`."""
    _begin()
    from vedette_server.cli import main  # slow

    gc.enable()
    main()


def _begin() -> None:
    """Let Ctrl-C end the process silently during imports; `Program` later reports it in a line.

    Python searches for garbage what is being imported, and at exit everything that was, which takes half a second with
    torch. Neither is done: what is frozen is left to the end of the process.
    """
    gc.disable()
    atexit.register(gc.freeze)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise the parent process has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

"""Entry points of the commands. Their imports take a second, in which Ctrl-C must be as quiet as later."""

import os
import signal

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # otherwise gRPC prints each failed handshake, outside the log


def client() -> None:
    """Run `vedette`."""
    _quiet_until_imported()
    from vedette_client.cli import main  # slow

    main()


def server() -> None:
    """Run `vedette-server`."""
    _quiet_until_imported()
    from vedette_server.cli import main  # slow

    main()


def _quiet_until_imported() -> None:
    """Let Ctrl-C end the process silently during imports; `Program` later reports it in a line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise the parent process has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

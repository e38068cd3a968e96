"""Where the commands start: what they need takes a second to import, in which Ctrl-C is as quiet as afterwards."""

import os
import signal

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC prints each handshake that fails, past the log


def client() -> None:
    """`vedette`."""
    _quiet_until_imported()
    from vedette_client.cli import main  # what takes the second

    main()


def server() -> None:
    """`vedette-server`."""
    _quiet_until_imported()
    from vedette_server.cli import main  # what takes the second

    main()


def _quiet_until_imported() -> None:
    """Let Ctrl-C end the process as it ends one that is not Python's; `Program` has it told in a line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started it has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

"""Files written by the client's commands; see `vedette_commands.outputs`."""

from vedette_commands import outputs
from vedette_commands.outputs import Part

from vedette_client.errors import LocalError

__all__ = ["ClientOutputs", "Part"]


class ClientOutputs(outputs.Outputs):
    """The files that one run of a command reads and writes. Raises `LocalError`."""

    failure = LocalError

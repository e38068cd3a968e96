"""PyAV, an optional dependency, or what to do without it."""

from vedette_client.errors import LocalError

try:
    import av
    from av.codec.context import ThreadType
    from av.filter import Graph
    from av.sidedata.sidedata import Type as SideData
except ImportError as error:
    msg = "PyAV is not installed: python -m pip install 'vedette[video]'"
    raise LocalError(msg) from error

__all__ = ["Graph", "SideData", "ThreadType", "av", "cause", "reason"]


def reason(error: Exception) -> str:
    """What an error of PyAV's or the system's says, without its number and the address that it repeats."""
    if isinstance(error, av.error.ExitError):
        return "nothing has come in time"
    if isinstance(error, OSError | av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error)


def cause(error: LocalError) -> str:
    """What lies behind an error of ours, without the name of what it is about."""
    return reason(error.__cause__) if isinstance(error.__cause__, Exception) else str(error)

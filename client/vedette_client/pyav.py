"""PyAV, an optional dependency, or an error that says how to install it."""

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
    """Return the text of an error from PyAV or the system, without its number and the repeated URL."""
    if isinstance(error, av.error.ExitError):
        return "no data arrived in time"
    if isinstance(error, OSError | av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error)


def cause(error: LocalError) -> str:
    """Return the cause of one of our errors, without the name of the source."""
    return reason(error.__cause__) if isinstance(error.__cause__, Exception) else str(error)

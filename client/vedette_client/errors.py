"""The exceptions of calls to a server.

VedetteError
├── LocalError            nothing was sent: an unreadable file, an array without its pixel format, a closed client
└── ServerError           the call failed, with gRPC code, reason and metadata
    ├── InvalidRequest    the request is invalid; sending it again does not help
    ├── NotFound          there is no such model or version
    ├── NotServed         the server does not support the call
    ├── Unauthenticated   the caller is not authenticated
    ├── NotPermitted      the caller is not allowed to do that
    ├── Overloaded        too much is in flight; try again after `retry_after` seconds
    ├── DeadlineExceeded  no answer in time
    ├── Unavailable       the model does not answer at the moment, or
    │   └── NoConnection  the server was not reached, or its connection was lost
    └── InternalError     a bug in the server
"""

import contextlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_MOST_RANGES = 10  # of frame ids, in a message


class VedetteError(Exception):
    """Base of all exceptions of this package."""


class LocalError(VedetteError):
    """Nothing was sent."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason  # the server's reason for refusing the same, if it has one

    def __str__(self) -> str:
        """The reason, if any, and the message."""
        return f"{self.reason}: {self.message}" if self.reason else self.message


@dataclass(frozen=True)
class FieldViolation:
    """A fault in one field of the request."""

    field: str
    description: str


@dataclass(eq=False)  # exceptions compare by identity
class ServerError(VedetteError):
    """A call failed."""

    message: str
    code: grpc.StatusCode
    _: KW_ONLY
    reason: str = ""  # UPPER_SNAKE, from the server's list; empty if the call never reached it
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None  # seconds
    unanswered: tuple[int, ...] = ()  # frames of an aborted stream that were taken, but not reported

    def __str__(self) -> str:
        """The reason, if any, the message, and the missing frames."""
        text = f"{self.reason}: {self.message}" if self.reason else self.message
        return f"{text}; not answered: {_frames(self.unanswered)}" if self.unanswered else text


def _frames(ids: tuple[int, ...]) -> str:
    """Format ids as ranges, up to the first few."""
    ranges: list[list[int]] = []
    for one in ids:
        if ranges and one == ranges[-1][1] + 1:
            ranges[-1][1] = one
        else:
            ranges.append([one, one])
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in ranges[:_MOST_RANGES]]
    more = [f"{len(ranges) - _MOST_RANGES} more"] if len(ranges) > _MOST_RANGES else []
    return f"frame{'s' if len(ids) > 1 else ''} {', '.join(shown + more)}"


class InvalidRequest(ServerError):  # noqa: N818  named after outcomes, as in the API
    """The request is invalid; sending it again does not help."""


class NotFound(ServerError):  # noqa: N818
    """There is no such model or version."""


class NotServed(ServerError):  # noqa: N818
    """The server does not support the call."""


class Unauthenticated(ServerError):  # noqa: N818
    """The caller is not authenticated: the token is missing or not accepted."""


class NotPermitted(ServerError):  # noqa: N818
    """The caller is not allowed to do that."""


class Overloaded(ServerError):  # noqa: N818
    """Too much is in flight; try again after `retry_after` seconds."""


class DeadlineExceeded(ServerError):  # noqa: N818
    """No answer in time."""


class Unavailable(ServerError):  # noqa: N818
    """There is no connection, or the model does not answer at the moment."""


class NoConnection(Unavailable):
    """The server was not reached, or the connection was lost: the call says nothing about the server."""


class InternalError(ServerError):
    """A bug in the server; the message contains the id under which it is logged."""


_CLASSES: dict[grpc.StatusCode, type[ServerError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.INTERNAL: InternalError,
}


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# gRPC's own errors for calls that never reached our service, or whose response did not come from it: part of their
# text, and our message.
_OWN: tuple[tuple[grpc.StatusCode, str, type[ServerError], str], ...] = (
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "larger than max",
        InvalidRequest,
        "the request is larger than {address} accepts: send the image as the bytes of a JPEG, or scale it down",
    ),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "",
        Overloaded,
        "an intermediary on the way to {address} refuses more for now",
    ),
    (
        grpc.StatusCode.UNKNOWN,
        "DecodeError",
        InvalidRequest,
        "{address} could not read the request: it is from another version, or an intermediary has changed it",
    ),
    (
        grpc.StatusCode.INTERNAL,
        "deserializing response",
        InternalError,
        "the answer from {address} cannot be read: it is from another version, or an intermediary has changed it",
    ),
    (
        grpc.StatusCode.INTERNAL,
        "serializing request",
        InternalError,
        "the request cannot be written: a bug in the client",
    ),
    (
        grpc.StatusCode.UNIMPLEMENTED,
        "",
        NotServed,
        "the server at {address} does not know this call: it is not a Vedette server, or an older one",
    ),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "", DeadlineExceeded, "no answer from {address} within the client's timeout"),
)

_NOT_PROVEN = "CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "Peer name "


def from_rpc(error: grpc.RpcError, address: object) -> ServerError:
    """Convert gRPC's error, with everything that the server sent."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)  # noqa: S101  true for every RpcError of a call
    code: grpc.StatusCode = error.code()
    if (status := _status(error)) is not None:
        return from_status(status)
    said = error.details() or code.name
    if code is grpc.StatusCode.UNAVAILABLE:
        return NoConnection(_unreached(said, address), code)
    for of, words, kind, message in _OWN:
        if code is of and words in said:
            return kind(f"{message.format(address=address)} ({said})", code)
    return _CLASSES.get(code, ServerError)(said, code)


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    """Return our server's status; None for others, which may put anything there."""
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError):
        return None


def _unreached(said: str, address: object) -> str:
    if "WRONG_VERSION_NUMBER" in said:
        return f"the server at {address} does not speak TLS ({said})"
    if any(words in said for words in _NOT_PROVEN):
        return (
            f"the server at {address} cannot be verified: its certificate has expired, is for another "
            f"name, or is from an authority that is not trusted here ({said})"
        )
    if "http1.x" in said:  # gRPC's guess, from the letters HTTP in place of a frame
        return f"the server at {address} speaks HTTP, not gRPC, whose port is usually 8001"
    if "backend unhealthy" in said:  # only round_robin looks
        return f"no server at {address} passes its health check ({said})"
    if "connect" in said or "resol" in said:
        return f"no server answers at {address} ({said})"
    return f"the connection to {address} was lost ({said})"


def from_status(status: status_pb2.Status) -> ServerError:
    """Convert a server's status for a call, or for one frame of a stream."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    failure = _CLASSES.get(code, ServerError)(status.message or code.name, code)
    for detail in status.details:
        with contextlib.suppress(DecodeError):
            _read_detail(failure, detail)
    return failure


def _read_detail(failure: ServerError, detail: any_pb2.Any) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        failure.reason, failure.metadata = info.reason, dict(info.metadata)
    elif detail.Unpack(bad):
        failure.violations = tuple(FieldViolation(item.field, item.description) for item in bad.field_violations)
    elif detail.Unpack(retry):
        failure.retry_after = retry.retry_delay.ToTimedelta().total_seconds()

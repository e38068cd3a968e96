"""What can go wrong when a server is called.

VedetteError
├── LocalError            nothing was sent: an unreadable file, an array without its pixel format, a closed client
└── ServerError           the call failed, with gRPC code, reason and metadata
    ├── InvalidRequest    what was sent is wrong; sending it again will not help
    ├── NotFound          there is no such model or version
    ├── NotServed         the server cannot do that
    ├── Unauthenticated   the server does not know who calls
    ├── NotPermitted      whoever calls may not do that
    ├── Overloaded        too much is under way; try again after `retry_after` seconds
    ├── DeadlineExceeded  no answer in time
    ├── Unavailable       the model does not answer now, or
    │   └── NoConnection  the server was not reached, or its connection was lost
    └── InternalError     a bug in the server
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_MOST_RANGES = 10  # of the ids of frames, in a message


class VedetteError(Exception):
    """Everything this package raises."""


class LocalError(VedetteError):
    """Nothing was sent."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason  # the server's own, where it would refuse the same for it

    def __str__(self) -> str:
        """The reason, if there is one, and the message."""
        return f"{self.reason}: {self.message}" if self.reason else self.message


@dataclass(frozen=True)
class FieldViolation:
    """What is wrong with one field of the request."""

    field: str
    description: str


@dataclass(eq=False)  # as every exception, itself and no other
class ServerError(VedetteError):
    """A call failed."""

    message: str
    code: grpc.StatusCode
    reason: str = ""  # UPPER_SNAKE, from the server's list; empty when it never got that far
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None  # seconds
    unanswered: tuple[int, ...] = ()  # of a stream that ends so: the frames that were taken and not told of

    def __str__(self) -> str:
        """The reason, if there is one, the message, and the frames that are missing."""
        text = f"{self.reason}: {self.message}" if self.reason else self.message
        return f"{text}; not answered: {_frames(self.unanswered)}" if self.unanswered else text


def _frames(ids: tuple[int, ...]) -> str:
    """Ids as ranges, the first few of them."""
    ranges: list[list[int]] = []
    for one in ids:
        if ranges and one == ranges[-1][1] + 1:
            ranges[-1][1] = one
        else:
            ranges.append([one, one])
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in ranges[:_MOST_RANGES]]
    more = [f"{len(ranges) - _MOST_RANGES} more"] if len(ranges) > _MOST_RANGES else []
    return f"frame{'s' if len(ids) > 1 else ''} {', '.join(shown + more)}"


class InvalidRequest(ServerError):  # noqa: N818  names of outcomes, as the API has them
    """What was sent is wrong; sending it again will not help."""


class NotFound(ServerError):  # noqa: N818
    """There is no such model or version."""


class NotServed(ServerError):  # noqa: N818
    """The server cannot do that."""


class Unauthenticated(ServerError):  # noqa: N818
    """The server does not know who calls: no token, or one that it does not take."""


class NotPermitted(ServerError):  # noqa: N818
    """Whoever calls may not do that."""


class Overloaded(ServerError):  # noqa: N818
    """Too much is under way; try again after `retry_after` seconds."""


class DeadlineExceeded(ServerError):  # noqa: N818
    """No answer in time."""


class Unavailable(ServerError):  # noqa: N818
    """No connection, or the model does not answer now."""


class NoConnection(Unavailable):
    """The server was not reached, or the connection to it was lost: this call has told nothing of the server."""


class InternalError(ServerError):
    """A bug in the server; the message carries the id under which it is logged."""


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

# What gRPC itself says of a call that never reached our service, or whose answer never came from there: a part of its
# words, and ours.
_OWN: tuple[tuple[grpc.StatusCode, str, type[ServerError], str], ...] = (
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "larger than max",
        InvalidRequest,
        "the request is larger than {address} takes: send the image as the bytes of a JPEG, or scale it down",
    ),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "", Overloaded, "something on the way to {address} refuses more for now"),
    (
        grpc.StatusCode.UNKNOWN,
        "DecodeError",
        InvalidRequest,
        "{address} could not read the request: it is of another version, or something on the way has changed it",
    ),
    (
        grpc.StatusCode.INTERNAL,
        "deserializing response",
        InternalError,
        "the answer of {address} cannot be read: it is of another version, or something on the way has changed it",
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
        "what answers at {address} does not know this call: it is no Vedette server, or an older one",
    ),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "", DeadlineExceeded, "no answer of {address} within the client's timeout"),
)

_NOT_PROVEN = "CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "Peer name "


def from_rpc(error: grpc.RpcError, address: object) -> ServerError:
    """Make our error of gRPC's, with everything that the server said."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)  # noqa: S101  every RpcError of a call is one
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
    """What our server said; None for what others have, who may write there what they like."""
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError):
        return None


def _unreached(said: str, address: object) -> str:
    if "WRONG_VERSION_NUMBER" in said:
        return f"what listens at {address} does not speak TLS ({said})"
    if any(words in said for words in _NOT_PROVEN):
        return (
            f"what listens at {address} does not prove to be that server: its certificate has expired, is for another "
            f"name, or of an authority that is not trusted here ({said})"
        )
    if "http1.x" in said:  # gRPC's guess, by the letters HTTP where a frame should be
        return f"what listens at {address} speaks HTTP, not gRPC, whose port is usually 8001"
    if "connect" in said or "resol" in said:
        return f"no server answers at {address} ({said})"
    return f"the connection to {address} was lost ({said})"


def from_status(status: status_pb2.Status) -> ServerError:
    """Make our error of what a server says about a call, or about one frame of a stream."""
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

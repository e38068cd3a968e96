"""What can go wrong when a server is called.

VedetteError
├── LocalError            nothing was sent: a file that cannot be read, an array without its pixel format
└── ServerError           the call failed, with gRPC code, reason and metadata
    ├── InvalidRequest    what was sent is wrong; sending it again will not help
    ├── NotFound          there is no such model or version
    ├── NotServed         the server cannot do that
    ├── Overloaded        too much is under way; try again after `retry_after` seconds
    ├── DeadlineExceeded  no answer in time
    ├── Unavailable       no connection, or the model does not answer now
    └── InternalError     a bug in the server
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class VedetteError(Exception):
    """Everything this package raises."""


class LocalError(VedetteError):
    """Nothing was sent."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason  # the server's own, where it would refuse the same for it

    def __str__(self) -> str:
        """The reason, if there is one, and the message."""
        return f"{self.reason}: {self.args[0]}" if self.reason else str(self.args[0])


@dataclass(frozen=True)
class FieldViolation:
    """What is wrong with one field of the request."""

    field: str
    description: str


@dataclass
class ServerError(VedetteError):
    """A call failed."""

    message: str
    code: grpc.StatusCode
    reason: str = ""  # UPPER_SNAKE, from the server's list; empty when it never got that far
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None  # seconds

    def __str__(self) -> str:
        """The reason, if there is one, and the message."""
        return f"{self.reason}: {self.message}" if self.reason else self.message


class InvalidRequest(ServerError):  # noqa: N818  names of outcomes, as the API has them
    """What was sent is wrong; sending it again will not help."""


class NotFound(ServerError):  # noqa: N818
    """There is no such model or version."""


class NotServed(ServerError):  # noqa: N818
    """The server cannot do that."""


class Overloaded(ServerError):  # noqa: N818
    """Too much is under way; try again after `retry_after` seconds."""


class DeadlineExceeded(ServerError):  # noqa: N818
    """No answer in time."""


class Unavailable(ServerError):  # noqa: N818
    """No connection, or the model does not answer now."""


class InternalError(ServerError):
    """A bug in the server; the message carries the id under which it is logged."""


_CLASSES: dict[grpc.StatusCode, type[ServerError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.INTERNAL: InternalError,
}


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc(error: grpc.RpcError, address: str) -> ServerError:
    """Make our error of gRPC's, with everything that the server said."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)  # noqa: S101  every RpcError of a call is one
    code: grpc.StatusCode = error.code()
    status = rpc_status.from_call(error)
    if status is None:
        failure = _CLASSES.get(code, ServerError)(error.details() or code.name, code)
        if code is grpc.StatusCode.UNAVAILABLE:
            failure.message = f"no server answers at {address} ({failure.message})"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own: the message is over the server's limit
            return InvalidRequest(f"the request is larger than the server takes ({failure.message})", code)
        return failure
    return from_status(status)


def from_status(status: status_pb2.Status) -> ServerError:
    """Make our error of what a server says about a call, or about one frame of a stream."""
    code = _CODES[status.code]
    failure = _CLASSES.get(code, ServerError)(status.message or code.name, code)
    for detail in status.details:
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

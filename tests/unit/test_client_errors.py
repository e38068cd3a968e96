"""The client's errors for failures: our server's, gRPC's own, and those of others on the way."""

import pickle
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc.aio import AioRpcError, Metadata
from vedette_client import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    LocalError,
    NoConnection,
    NotFound,
    NotPermitted,
    NotServed,
    Overloaded,
    ServerError,
    VedetteError,
    errors,
)
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc.errors import status

DETAILS = "grpc-status-details-bin"
Code = grpc.StatusCode


def failed(code: grpc.StatusCode, said: str, trailing: bytes | None = None) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*([(DETAILS, trailing)] if trailing is not None else [])), said)


OWN: dict[str, tuple[grpc.StatusCode, str, type[ServerError], str]] = {
    "too large": (
        Code.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (36578337 vs. 33619968)",
        InvalidRequest,
        "larger than there accepts.*36578337 vs. 33619968",
    ),
    "a proxy's limit": (Code.RESOURCE_EXHAUSTED, "rate limited", Overloaded, "on the way to there.*rate limited"),
    "not read": (Code.UNKNOWN, "Unexpected <class '...DecodeError'>: ", InvalidRequest, "could not read the request"),
    "not read by us": (Code.INTERNAL, "Exception deserializing response!", InternalError, "cannot be read"),
    "not written": (Code.INTERNAL, "Exception serializing request!", InternalError, "cannot be written"),
    "another server": (Code.UNIMPLEMENTED, "Method not found!", NotServed, "not a Vedette server"),
    "nobody": (Code.UNAVAILABLE, "failed to connect to all addresses", NoConnection, "no server answers at there"),
    "too late": (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, "timeout"),
    "not allowed": (Code.PERMISSION_DENIED, "RBAC: access denied", NotPermitted, "^RBAC: access denied$"),
    "nothing said": (Code.ABORTED, "", ServerError, "^ABORTED$"),
}


@pytest.mark.parametrize("name", OWN)
def test_what_grpc_says_itself_is_told_in_our_words(name: str) -> None:
    code, said, kind, message = OWN[name]
    found = errors.from_rpc(failed(code, said), "there")
    assert (type(found), found.code, found.reason) == (kind, code, "")
    with pytest.raises(kind, match=message):
        raise found


@pytest.mark.parametrize("reason", Reason)
def test_what_the_server_says_is_told_whole(reason: Reason) -> None:
    told = status(Refused(reason), "an-id")
    code = errors._CODES[told.code]
    found = errors.from_rpc(failed(code, told.message, told.SerializeToString()), "there")
    assert (found.reason, found.code, found.message) == (reason, code, told.message)
    assert bool(found.violations) == (code is Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("trailing", [b"\xff\xff nonsense", status_pb2.Status(code=5).SerializeToString(), b""])
def test_a_status_of_somebody_else_is_passed_over(trailing: bytes) -> None:
    found = errors.from_rpc(failed(Code.PERMISSION_DENIED, "no", trailing), "there")
    assert (type(found), found.code) == (NotPermitted, Code.PERMISSION_DENIED)


def test_a_status_of_a_newer_server_is_read_as_far_as_it_can_be() -> None:
    told = status(Refused(Reason.MODEL_NOT_FOUND), "an-id")
    told.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    found = errors.from_status(told)
    assert isinstance(found, NotFound)
    assert found.reason == "MODEL_NOT_FOUND"
    assert errors.from_status(status_pb2.Status(code=99, message="new")).code is Code.UNKNOWN


@pytest.mark.parametrize("error", [
    LocalError("no"),
    LocalError("no", "IMAGE_TOO_LARGE"),
    NotFound("no", Code.NOT_FOUND, reason="MODEL_NOT_FOUND", metadata={"a": "b"}, retry_after=1.5),
])  # fmt: skip
def test_an_error_goes_to_another_process_and_into_a_set(error: Any) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert len({error, error}) == 1


def test_there_is_one_tree() -> None:
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BaseException)]
    ours = [one for one in found if one.__module__ == errors.__name__]
    assert all(issubclass(one, VedetteError) for one in ours)
    assert errors.__doc__
    assert all(f"{one.__name__} " in errors.__doc__ or one is VedetteError for one in ours), "it is drawn above them"

"""The one table of errors is complete and well-formed."""

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from vedette_server.contract.loading import CHECKS, Check
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc.errors import TABLE, status
from vedette_server.rpc.errors_page import page


def test_every_reason_has_a_row() -> None:
    assert set(TABLE) == set(Reason)
    assert set(CHECKS) == set(Check)


@pytest.mark.parametrize("reason", Reason)
def test_a_row_is_told_in_full(reason: Reason) -> None:
    row = TABLE[reason]
    names = re.findall(r"{(\w+)", row.message + row.remedy)
    told = status(Refused(reason, **dict.fromkeys(names, "7")), "an-id")
    assert told.code == row.code.value[0]
    assert told.message.endswith((".", ")"))
    assert "{" not in told.message
    kinds = [detail.type_url.rpartition(".")[2] for detail in told.details]
    assert kinds.count("ErrorInfo") == 1
    assert ("BadRequest" in kinds) == (row.code is grpc.StatusCode.INVALID_ARGUMENT)
    assert ("RetryInfo" in kinds) == (row.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED))


def test_the_page_for_users_is_the_table() -> None:
    assert Path("deploy/docs/errors.md").read_text() == page(), "run `make docs`"
    assert all(f"## {name}\n" in page() for name in (*Reason, *Check))


def test_a_bug_shows_an_id_and_nothing_else() -> None:
    told = status(Refused(Reason.INTERNAL), "an-id")
    info = error_details_pb2.ErrorInfo()
    told.details[0].Unpack(info)
    assert dict(info.metadata) == {"request_id": "an-id"}
    assert "an-id" in told.message

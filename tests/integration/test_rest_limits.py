"""Limits of what callers over HTTP hold up: bodies that do not arrive, callers that go, requests that come early."""

import contextlib
import gc
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from vedette_server.access.access import AccessSources
from vedette_server.pool import memory
from vedette_server.rpc import intake

from tests.support import rest, running
from tests.support.authority import Authority
from tests.support.guarded import Guarded, Models
from tests.support.rest import asked, listed
from tests.support.scripted import SLEEP

INFER = "/v2/models/cars/infer"


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


@pytest.fixture
def at(models: Models) -> Iterator[Guarded]:
    with models.behind(AccessSources()) as at:
        yield at


def picture(first: int = 0, **parameters: Any) -> bytes:
    """A request of an image that begins so."""
    image = listed("IMAGE", "UINT8", [10, 10, 3], [first] + [0] * 299, pixel_format="BGR8")
    return asked(image, parameters=parameters)


def response(connection: socket.socket) -> rest.Reply:
    told = http.client.HTTPResponse(connection)
    told.begin()
    return rest.Reply(told.status, told.read(), dict(told.headers))


def counts(at: Guarded) -> dict[str, int]:
    (stats,) = rest.call(at.http, "/v2/models/cars/stats").json["model_stats"]
    return {name: one["count"] for name, one in stats["inference_stats"].items()}


def post(body: bytes) -> bytes:
    return rest.head(INFER, len(body)) + body


def test_a_body_that_does_not_arrive_is_given_up(at: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at.rpc._intake, "_arrive_seconds", 0.3)
    for sent in (b"", b"x" * 99):
        with rest.connect(at.http) as connection:
            connection.sendall(rest.head(INFER, 100) + sent)
            reply = response(connection)
        assert (reply.status, reply.reason) == (504, "REQUEST_STALLED")
        assert "had not arrived completely after 0.3 seconds" in reply.json["error"]


def test_above_the_ceiling_bodies_that_are_arriving_are_given_up(at: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = at.rpc._intake
    with rest.connect(at.http) as connection:
        connection.sendall(rest.head(INFER, 100) + b"x")
        running.wait_for(lambda: taken._awaited, "the body to be awaited")
        with monkeypatch.context() as full:
            full.setattr(memory, "used", lambda: taken._own + intake.CEILING + 1)
            reply = response(connection)
    assert (reply.status, reply.reason) == (429, "INTAKE_FULL")
    assert reply.headers["Retry-After"] == "1"
    assert rest.call(at.http, INFER, picture()).status == 200, "others are read again"


def test_a_timeout_is_the_deadline(at: Guarded) -> None:
    reply = rest.call(at.http, INFER, picture(SLEEP, timeout=100_000))
    assert (reply.status, reply.reason) == (504, "DEADLINE_EXCEEDED")


def test_a_caller_that_goes_takes_its_request_along(at: Guarded, models: Models) -> None:
    before = counts(at)
    with contextlib.ExitStack() as callers:
        for _ in range(3):
            callers.enter_context(rest.connect(at.http)).sendall(post(picture(SLEEP)))
        running.wait_for(lambda: models.engine.held_bytes == 3 * 300, "the requests to be read")
    running.wait_for(lambda: counts(at)["fail"] == before["fail"] + 3, "their end")
    assert counts(at)["success"] == before["success"]


def test_half_a_body_is_let_go_of_at_once_when_its_caller_goes(at: Guarded) -> None:
    """Without waiting for a collection of garbage, which would have others refused meanwhile."""
    half = rest.head(INFER, 2_400_000, **{rest.LENGTH: 100}) + bytes(2_300_000)
    taken, callers = at.rpc._intake, 8
    gc.collect()
    gc.disable()
    try:
        before = memory.used()
        with contextlib.ExitStack() as held:
            for _ in range(callers):
                held.enter_context(rest.connect(at.http)).sendall(half)
            running.wait_for(lambda: memory.used() - before > callers * 2_000_000, "the halves")
        running.wait_for(lambda: not taken._awaited, "their end")
        running.wait_for(lambda: memory.used() - before < callers * 1_000_000, "their memory")
    finally:
        gc.enable()


@pytest.mark.parametrize("encrypted", [False, True])
def test_requests_on_one_connection_are_answered_in_their_order(
    encrypted: bool,  # noqa: FBT001
    models: Models,
    tmp_path: Path,
) -> None:
    """Even those that are sent before the first is answered."""
    large = json.dumps({**json.loads(picture()), "unknown": 50_000 * " "}).encode()
    bodies = [picture(SLEEP), *[large] * 40, b"[]"]
    authority = Authority(tmp_path / "ours")
    pair = authority.server()
    sources = AccessSources(tls_cert=pair.cert, tls_key=pair.key) if encrypted else AccessSources()
    with models.behind(sources) as at, contextlib.ExitStack() as stack:
        connection = stack.enter_context(rest.connect(at.http))
        if encrypted:
            context = ssl.create_default_context(cafile=authority.path)
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname="127.0.0.1"))
        replies = stack.enter_context(connection.makefile("rb"))
        sending = threading.Thread(target=connection.sendall, args=(b"".join(map(post, bodies)),))
        sending.start()
        statuses = [status_of(replies) for _ in bodies]
        sending.join()
    assert statuses == [200] * 41 + [400]


def status_of(replies: BinaryIO) -> int:
    """Read the next reply."""
    status, length = int(replies.readline().split()[1]), 0
    while line := replies.readline().strip():
        name, _, value = line.partition(b": ")
        length = int(value) if name == b"Content-Length" else length
    assert json.loads(replies.read(length))
    return status

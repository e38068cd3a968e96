"""The log is never in the way: a standard error that blocks, that is closed or full holds up no request."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vedette_client import Client
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture

from tests import running

QUESTIONS = 600  # each refused, and logged in a line of some 300 bytes: more than a pipe holds


@contextlib.contextmanager
def serving(stderr: int) -> Iterator[str]:
    """A server with that standard error; its address."""
    port = running.free_port()
    address = f"127.0.0.1:{port}"
    command = [running.BIN / "vedette-server", "serve", "--listen", address, "--http", "127.0.0.1:0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=stderr)
    try:
        with Client(address) as client:
            running.wait_for(lambda: healthy(client), "the server to serve")
        yield address
    finally:
        process.terminate()
        assert process.wait(30) == 0


def healthy(client: Client) -> bool:
    try:
        return client.healthy()
    except Exception:  # noqa: BLE001  it is not up yet
        return False


@pytest.fixture(params=["unread", "closed", "full"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "full":
        with Path("/dev/full").open("wb") as full, serving(full.fileno()) as address:
            yield address
        return
    reading, writing = os.pipe()
    if request.param == "closed":
        os.close(reading)
    with serving(writing) as address:
        yield address
    os.close(writing)
    if request.param == "unread":
        os.close(reading)


def test_requests_are_answered_whatever_becomes_of_the_log(address: str, scene: Picture) -> None:
    with Client(address) as client:
        for number in range(QUESTIONS):
            with contextlib.suppress(Exception):
                client.model(f"no such model, {number}")
        assert client.detect(jpeg(scene.pixels)).width > 0

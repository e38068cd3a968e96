"""The log is never in the way: a standard error that blocks, that is closed or full holds up no request."""

import contextlib
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from vedette_client import Client
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture

from tests.support import running

QUESTIONS = 600  # each refused, and logged in a line of some 300 bytes: more than a pipe holds


@contextlib.contextmanager
def serving(stderr: int) -> Iterator[tuple[str, str]]:
    """A server with that standard error; its addresses."""
    address, http = (f"127.0.0.1:{running.free_port()}" for _ in range(2))
    command = [str(running.BIN / "vedette-server"), "serve", "--listen", address, "--http", http, "--threads", "1"]
    process = subprocess.Popen(command, stderr=stderr)
    try:
        with Client(address) as client:
            running.wait_for(lambda: healthy(client), "the server to serve")
        yield address, http
    finally:
        process.terminate()
        assert process.wait(30) == 0


def healthy(client: Client) -> bool:
    try:
        return client.healthy()
    except Exception:  # noqa: BLE001  it is not up yet
        return False


@pytest.fixture(params=["unread", "closed", "full"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, bool]]:
    """Its addresses, and whether lines are lost that no queue can hold."""
    if request.param == "full":
        with Path("/dev/full").open("wb") as full, serving(full.fileno()) as addresses:
            yield (*addresses, True)
        return
    reading, writing = os.pipe()
    if request.param == "closed":
        os.close(reading)
    with serving(writing) as addresses:
        yield (*addresses, request.param == "closed")
    os.close(writing)
    if request.param == "unread":
        os.close(reading)


def test_requests_are_answered_whatever_becomes_of_the_log(server: tuple[str, str, bool], scene: Picture) -> None:
    address, http, lossy = server
    with Client(address) as client:
        for number in range(QUESTIONS):
            with contextlib.suppress(Exception):
                client.model(f"no such model, {number}")
        assert client.detect(jpeg(scene.pixels)).width > 0
    if lossy:
        running.wait_for(lambda: lost(http) >= QUESTIONS, "the lost lines to be counted")


def lost(http: str) -> float:
    with urllib.request.urlopen(f"http://{http}/metrics") as response:
        lines = response.read().decode().splitlines()
    families = ("vedette_log_lines_dropped_total ", "vedette_log_lines_suppressed_total ")
    return sum(float(line.split()[-1]) for line in lines if line.startswith(families))


def test_the_flag_sets_the_level() -> None:
    with running.server("--log-level", "debug", "--threads", "1") as server:
        assert "DEBUG:asyncio:" in server.log_path.read_text()

"""The scenarios of `make load`, shortened: what must be true of them at any length."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from vedette_server.pool.jobs import DEPTH

from tests.bench import load
from tests.support import running


@pytest.fixture(scope="module")
def server() -> Iterator[running.Server]:
    with load.server() as started:
        yield started


def test_killed_workers_lose_nothing(server: running.Server) -> None:
    seen = asyncio.run(load.kill(server, requests=120, kills=3))
    assert seen.kills == 3
    assert not seen.failed
    assert seen.answered == 120
    assert len(seen.ids) == 120
    assert set(seen.ids.values()) == {1}, "none twice"


def test_live_streams_account_for_every_frame_and_share_the_pool(server: running.Server) -> None:
    seen = asyncio.run(load.live(server, streams=4, overload=4.0, seconds=8.0))
    assert seen.sent == seen.answered + seen.dropped
    assert not seen.failed
    assert min(seen.shares) > 0.6
    assert min(seen.sent.values()) > 2 * max(seen.answered.values()), "it was an overload"


def test_callers_beyond_capacity_are_refused_at_once(server: running.Server) -> None:
    seen = asyncio.run(load.overload(server, factor=2.0, deadline=1.0, seconds=6.0))
    assert not seen.other
    assert len(seen.refused) > 0.2 * seen.sent
    assert seen.quickly_refused > 0.5, "most of them without waiting"
    assert seen.in_time > 0


def test_callers_that_go_away_leave_nothing(server: running.Server) -> None:
    seen = asyncio.run(load.cancel(server, clients=40))
    assert (seen.queued, seen.running) == (0, 0)
    assert seen.files <= DEPTH * load.WORKERS


def test_swapped_versions_fail_no_request(tmp_path: Path) -> None:
    seen = asyncio.run(load.swap(tmp_path / "repository", swaps=2))
    assert not seen.failed
    assert set(seen.answered) == set(seen.streamed) == {"1", "2", "3"}

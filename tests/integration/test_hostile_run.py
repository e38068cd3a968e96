"""A slice of `make hostile`: generated requests in one process, mutated pictures in children, frames to a server."""

import asyncio
import signal
from collections.abc import Iterator

import pytest
import structlog

from tests.bench import children, pictures, raw, requests
from tests.support import running

REQUESTS, PICTURES, CALLS = 3_000, 500, 400


@pytest.fixture
def alone() -> Iterator[None]:
    """Restore whatever the program changes in its process."""
    log, alarm = structlog.get_config(), signal.getsignal(signal.SIGALRM)
    yield
    structlog.configure(**log)
    signal.signal(signal.SIGALRM, alarm)


@pytest.mark.usefixtures("alone")
def test_every_generated_request_is_answered_or_refused_by_name() -> None:
    tally = asyncio.run(requests.run(REQUESTS, seed=2))
    assert not tally.wrong
    assert tally.of(requests.ANSWERED) > REQUESTS / 10
    assert len({outcome for _, outcome in tally.outcomes}) > 15


def test_every_mutated_picture_is_decoded_or_refused_by_name() -> None:
    tally = pictures.run(PICTURES, seed=2)
    assert not tally.wrong
    assert sum(tally.outcomes.values()) == PICTURES
    assert tally.of(pictures.DECODED) > PICTURES / 20
    assert len({outcome for _, outcome in tally.outcomes}) > 5


def test_every_call_ends_whatever_its_frames_are(bundled: running.Server) -> None:
    tally = raw.run(bundled, CALLS, seed=2)
    assert not tally.wrong
    assert tally.sent >= CALLS
    assert {"0", "3", "12", "with the connection"} <= tally.ended.keys()


def test_a_picture_that_crashes_is_told_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TEST_CRASH", "1")
    told = dict(pictures._cases([0, 1, 2], seed=2))
    assert told[1] == "CRASH: status -6"
    assert [told[number].partition("|")[0] for number in (0, 2)]
    assert len(told) == 3


def test_a_case_that_takes_too_long_is_told() -> None:
    silent = ["python3", "-c", "import time; time.sleep(600)"]
    assert list(children.cases(silent, [7], seconds=0.2)) == [(7, "HANG")]

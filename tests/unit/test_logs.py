"""Of each kind of line there are so many a second, whoever writes them."""

import json
import subprocess
import sys

import pytest
import structlog
from vedette_server.logs import MOST_OF_A_KIND, Kinds


class Clock:
    """A time that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_of_one_kind_is_cut_and_told_and_drowns_no_other() -> None:
    clock = Clock()
    kinds = Kinds(clock)
    assert [kinds.admit("refused") for _ in range(MOST_OF_A_KIND + 7)] == [0] * MOST_OF_A_KIND + [None] * 7
    assert kinds.admit("worker_lost") == 0
    assert kinds.suppressed == 7
    clock.now += 1
    assert [kinds.admit("refused"), kinds.admit("refused")] == [7, 0]
    assert kinds.suppressed == 7


def test_an_event_says_how_many_were_suppressed_before_it() -> None:
    clock = Clock()
    kinds = Kinds(clock)
    for _ in range(MOST_OF_A_KIND):
        assert kinds(None, "info", {"event": "refused"}) == {"event": "refused"}
    for _ in range(3):
        with pytest.raises(structlog.DropEvent):
            kinds(None, "info", {"event": "refused"})
    clock.now += 1
    assert kinds(None, "info", {"event": "refused"}) == {"event": "refused", "suppressed": 3}


FLOOD = f"""
import logging, structlog
from vedette_server import logs
logs.configure("json")
for number in range({3 * MOST_OF_A_KIND}):
    structlog.get_logger().info("flood", number=number)
    logging.getLogger("library").warning("trouble %d", number)
structlog.get_logger().info("end", suppressed_in_all=logs.suppressed())
"""


def test_events_and_libraries_are_held_to_it_in_a_process() -> None:
    done = subprocess.run([sys.executable, "-c", FLOOD], stderr=subprocess.PIPE, text=True, check=True)
    lines = done.stderr.splitlines()
    end = json.loads(lines[-1])
    written = len(lines) - 1
    assert written + end["suppressed_in_all"] == 6 * MOST_OF_A_KIND
    assert 2 * MOST_OF_A_KIND <= written < 6 * MOST_OF_A_KIND


LEVELS = """
import logging, sys, structlog
from vedette_server import logs
logs.configure("json", sys.argv[1])
for level in ("debug", "info", "warning", "error"):
    getattr(structlog.get_logger(), level)("ours", level=level)
    getattr(logging.getLogger("library"), level)("library's %s", level)
"""


@pytest.mark.parametrize(("level", "ours", "libraries"), [
    ("debug", "debug info warning error", "debug info warning error"),
    ("info", "info warning error", "warning error"),
    ("warning", "warning error", "warning error"),
    ("error", "error", "error"),
])  # fmt: skip
def test_lines_below_the_level_are_not_written(level: str, ours: str, libraries: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEVELS, level], stderr=subprocess.PIPE, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [json.loads(line)["level"] for line in lines if line.startswith("{")] == ours.split()
    assert [line.split()[-1] for line in lines if "library's" in line] == libraries.split()

"""Cases that may crash or hang, run in child processes: one that does is told, and ends no other."""

import json
import selectors
import subprocess
from collections.abc import Iterator, Sequence


def cases(command: Sequence[str], seeds: Sequence[int], seconds: float, most: int = 500) -> Iterator[tuple[int, str]]:
    """Yield the outcome of each case: the child's JSON line about it, or HANG or CRASH.

    The child is given the cases' numbers after its `command`, `most` of them at once, and has `seconds` for each.
    """
    left = list(seeds)
    while left:
        given = left[:most]
        child = subprocess.Popen(
            [*command, *map(str, given)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        done = 0
        for seed, outcome in _read(child, given, seconds):
            yield seed, outcome
            done += 1
        del left[:done]


def _read(child: subprocess.Popen[bytes], seeds: Sequence[int], seconds: float) -> Iterator[tuple[int, str]]:
    """The outcomes of a child, until it has told all, has ended, or was silent for too long."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector, child.stdout as out:
        selector.register(out, selectors.EVENT_READ)
        for seed in seeds:
            if not selector.select(seconds):
                child.kill()
                child.wait()
                yield seed, "HANG"
                return
            line = out.readline()
            if not line:
                yield seed, f"CRASH: status {child.wait()}"
                return
            yield seed, json.loads(line)
    child.wait()

"""Import and serve mutated models: each goes in or is refused by name, and nothing else happens.

    python -m tests.bench.hostile_versions --count 2000

Cases run in child processes, so that one that crashes or hangs is told and ends no other.
"""

import argparse
import collections
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench import children

LIMIT_SECONDS = 120.0  # of one case, on a machine that is busy with others
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.bind")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


def cases(seeds: Sequence[int], base: Path, seconds: float = LIMIT_SECONDS) -> Iterator[tuple[int, str]]:
    """Yield the outcome of each case: imported, served, the check that refused it, or what must not be."""
    command = [sys.executable, "-m", "tests.bench.hostile_versions", "--child", str(base)]
    return children.cases(command, seeds, seconds)


def run_here(base: Path, seed: int) -> str:
    """One case, in this process."""
    from vedette_server.contract.loading import LoadRefusedError
    from vedette_server.repository.repository import RepositoryError, VersionError

    from tests.support import mutations

    way = (mutations.importing, mutations.serving)[seed % 2]
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        (Path(folder) / mutations.OUTSIDE).write_text("MODEL: {}\n")
        inside = Path(folder) / "case"
        inside.mkdir()
        _watch.inside, _watch.seen = str(inside), []
        try:
            way(base, inside, seed)
            outcome = way.__name__
        except LoadRefusedError as error:
            outcome = str(error.check)
        except VersionError as error:
            outcome = str(error.refusal.check)
        except RepositoryError as error:
            outcome = f"RepositoryError: {error}"
        except BaseException as error:  # noqa: BLE001  whatever it is, it is told
            outcome = f"TRACEBACK: {type(error).__name__}: {str(error)[:200]}"
        finally:
            _watch.inside = ""
        return f"OUTSIDE: {_watch.seen[:3]}" if _watch.seen else outcome


def _where(event: str, arguments: tuple[Any, ...]) -> str:
    """The path that an event is about; one within an open folder is told by that folder's."""
    path = str(arguments[0]) if arguments else ""
    if event.startswith(_CHANGES) and not path.startswith("/") and isinstance(arguments[-1], int) and arguments[-1] > 2:
        return str(Path(f"/proc/self/fd/{arguments[-1]}").readlink() / path)
    return path


class _Watch:
    """Notes what a case does outside its own folder, by Python's audit events."""

    def __init__(self) -> None:
        self.inside = ""  # nothing is watched while it is empty
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.inside or not event.startswith((*_NEVER, *_CHANGES, "open")):
            return
        path = _where(event, arguments)
        within = path.startswith((self.inside, str(Path(tempfile.gettempdir(), "tmp"))))
        if event.startswith(_NEVER) or (event.startswith(_CHANGES) and not within):
            self.seen.append(f"{event} {path}")
        elif event == "open" and isinstance(arguments[2], int):
            writes = arguments[2] & _WRITES and not within and path != "/dev/null"
            if writes or path.startswith(("/dev/zero", "/dev/stdin")) or path.endswith("outside.yaml"):
                self.seen.append(f"{event} {path}")


_watch = _Watch()


def _child(base: Path, seeds: Sequence[int]) -> None:
    import torch

    torch.set_num_threads(1)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no outcome
    run_here(base, -2)  # once, unwatched: imports open files
    sys.addaudithook(_watch)
    for seed in seeds:
        if os.environ.get("VEDETTE_TEST_CRASH") == str(seed):  # for a test of this harness
            os.abort()
        print(json.dumps(run_here(base, seed)), file=out, flush=True)


def wrong(outcome: str) -> bool:
    """True if an outcome is neither a working model nor a declared reason."""
    return outcome.startswith(("HANG", "CRASH", "TRACEBACK", "OUTSIDE", "RepositoryError"))


def main() -> None:
    """Run many and print what became of them; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0, help="the first case's number")
    parser.add_argument("--seconds", type=float, default=LIMIT_SECONDS)
    chosen = parser.parse_args()
    from tests.support import mutations

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.mkdir()
        mutations.prepare(base)
        counts: collections.Counter[str] = collections.Counter()
        bad = 0
        for seed, outcome in cases(range(chosen.first, chosen.first + chosen.count), base, chosen.seconds):
            counts[outcome.partition(":")[0]] += 1
            if wrong(outcome):
                bad += 1
                print(f"case {seed}: {outcome}", flush=True)
    for outcome, count in counts.most_common():
        print(f"{count:6} {outcome}")
    print(f"{sum(counts.values())} cases in {time.monotonic() - started:.0f} s, {bad} of them wrong")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(Path(sys.argv[2]), [*map(int, sys.argv[3:])])
    else:
        main()

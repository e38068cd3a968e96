"""`make hostile`: everything that a server is attacked with, one after another, and one table of what came of it.

The counts are those at which nothing has been found to go wrong; it takes about an hour and a half. With --share, a
part of each.
"""

import argparse
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

# Of each module in this package, how many cases; None: it has a number of its own.
_RUNS: dict[str, int | None] = {
    "attacks": None,
    "requests": 1_000_000,
    "pictures": 20_000,
    "raw": 100_000,
    "hostile_versions": 2_000,
}


def run(name: str, count: int | None) -> tuple[int, float, str]:
    """Run one, showing what it prints: its exit status, how many seconds it took, and its last line."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *(["--count", str(count)] if count else [])]
    started, last = time.monotonic(), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return child.returncode, time.monotonic() - started, last


def main() -> None:
    """Run all; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases, from 0 to 1")
    chosen = parser.parse_args()
    table, bad = Table("run", "seconds", "well", "what came of it"), 0
    for name, count in _RUNS.items():
        print(f"\n== {name}", flush=True)
        status, seconds, last = run(name, count and max(1, round(count * chosen.share)))
        bad += status != 0
        table.add_row(name, f"{seconds:.0f}", "no" if status else "yes", last)
    Console(width=160).print(table)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

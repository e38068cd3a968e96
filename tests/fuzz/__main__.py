"""`make fuzz`: a fuzzer on each reader of bytes that others have made, one after another.

    python -m tests.fuzz [READER ...] --seconds 1200

Each begins with sound bytes and with what was found before (`tests/fuzz/found`). A finding is what a reader may not
raise, the end of the process, a hang, or memory without bounds; the program prints where its bytes lie, and its exit
status says whether there are any. Put them into `tests/fuzz/found/READER`, where a test holds them, and mend what has
stumbled.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import FOUND

_LIMIT_SECONDS = 20  # of one input
_LIMIT_MIB = 2_048  # of the process; most is torch's
_KEPT = re.compile(r"^(raised|crash|timeout|oom|leak)-")


@dataclass(frozen=True)
class Fuzzed:
    """The outcome of one reader."""

    reader: str
    seconds: float
    runs: int
    reached: int  # branches, and ways through them
    inputs: int  # that reach something of their own
    found: tuple[Path, ...]


def run(reader: str, seconds: int, out: Path) -> Fuzzed:
    """Run one reader's fuzzer, again after each finding that ends it, until its time is over."""
    folder, corpus = out / reader, out / f"{reader}-inputs"
    folder.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(exist_ok=True)
    write_seeds(reader, corpus)
    log, started, runs = out / f"{reader}.log", time.monotonic(), 0
    while (left := seconds - int(time.monotonic() - started)) > 0:
        ended, text = _once(reader, folder, corpus, left, log)
        runs += int(_last(r"stat::number_of_executed_units: (\d+)", text))
        if ended == 0:
            break
    text = log.read_text(errors="replace")
    reached = int(_last(r"cov: (\d+)", text))
    found = tuple(sorted(path for path in folder.iterdir() if _KEPT.match(path.name)))
    return Fuzzed(reader, time.monotonic() - started, runs, reached, len([*corpus.iterdir()]), found)


def _once(reader: str, folder: Path, corpus: Path, seconds: int, log: Path) -> tuple[int, str]:
    from tests.fuzz.readers import READERS

    options = [
        f"-max_total_time={seconds}",
        f"-timeout={_LIMIT_SECONDS}",
        f"-rss_limit_mb={_LIMIT_MIB}",
        f"-artifact_prefix={folder}/",
        f"-max_len={READERS[reader].longest}",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    command = [sys.executable, "-m", "tests.fuzz.child", reader, str(folder), *options, str(corpus)]
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    return status, log.read_bytes()[before:].decode(errors="replace")


def _last(pattern: str, text: str) -> str:
    found: list[str] = re.findall(pattern, text)
    return found[-1] if found else "0"


def write_seeds(reader: str, corpus: Path) -> None:
    """Write what a fuzzer begins with."""
    from tests.fuzz.readers import READERS

    before = sorted((FOUND / reader).glob("*"))
    for number, data in enumerate([*READERS[reader].seeds(), *(path.read_bytes() for path in before)]):
        (corpus / f"seed-{number}").write_bytes(data)


def main() -> None:
    """Run the fuzzers and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help="which; all, if none is named")
    parser.add_argument("--seconds", type=int, default=1_200, help="of each")
    parser.add_argument("--out", type=Path, help="where inputs, logs and findings lie; a new folder, if not given")
    chosen = parser.parse_args()
    from tests.fuzz.readers import READERS, remove

    if unknown := [name for name in chosen.readers if name not in READERS]:
        parser.error(f"no reader {', '.join(unknown)}; there are {', '.join(READERS)}")
    out = chosen.out or Path(tempfile.mkdtemp(prefix="vedette-fuzz-"))
    print(f"{'reader':14}{'seconds':>8}{'runs':>11}{'reached':>9}{'inputs':>8}{'found':>7}", flush=True)
    found = 0
    for name in chosen.readers or READERS:
        one = run(name, chosen.seconds, out)
        found += len(one.found)
        print(
            f"{one.reader:14}{one.seconds:>8.0f}{one.runs:>11}{one.reached:>9}{one.inputs:>8}{len(one.found):>7}",
            *(f"\n  {path}" for path in one.found),
            flush=True,
        )
    remove()
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

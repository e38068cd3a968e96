"""Mutated pictures at the contract's check and at the decoder: each is decoded or refused by name.

    python -m tests.bench.pictures --count 20000 --seed 1

Children decode them under limits of their own, so that one that crashes, hangs or takes too much memory is told. How
much memory and processor time the check alone takes, which the gateway does itself, is told apart.
"""

import argparse
import collections
import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vedette_server.contract import convert
from vedette_server.contract.contract import ImageLimits
from vedette_server.contract.image import EncodedImage, Orientation, SentImage
from vedette_server.contract.refusal import Reason, Refused

from tests.bench import children
from tests.support import damage
from tests.support.contracts import contract
from tests.support.pictures import large, pictures

MIB = 2**20
LIMITS = ImageLimits(max_pixels=12_000_000)  # whose pixels take a tenth of a gigabyte in each of their forms
# Bytes beyond what the process had before. To open a WebP, libwebp asks for two of its pictures, at most 32 MiB of each
# from memory that was used before.
CHECK_CEILING, DECODE_CEILING = 80 * MIB, 512 * MIB
LIMIT_SECONDS = 60.0  # of one picture, on a machine that is busy with others
_LIMIT_DATA = 2 * 2**30  # bytes of a child
_REFUSALS = {reason for reason in Reason if reason.startswith("IMAGE_")} | {
    Reason.SIZE_INVALID,
    Reason.ALPHA_NOT_DROPPED,
}
DECODED = "decoded"
_LARGE = 0.01  # share of those that take a tenth of a second
_SHOWN = 20


def generate(seed: int, number: int) -> tuple[str, bytes]:
    """The picture of that number: of what kind it was, and its bytes."""
    rng = random.Random(seed << 32 | number)  # noqa: S311  not secrets
    kinds = [*pictures()]
    kind = rng.choice([*large()] if rng.random() < _LARGE else kinds)
    data, codec = (pictures() | large())[kind], kind.split()[0]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        match rng.randrange(20):
            case 0:
                pass
            case 1 | 2:
                data = data[: rng.randrange(len(data) + 1)]
            case 3 | 4 | 5 | 6 | 7:
                data = damage.lying(rng, data)
            case 8 | 9:
                other = rng.choice([one for one in kinds if one.startswith(codec)])
                data = damage.spliced(rng, data, pictures()[other])
            case 10:
                data = damage.spliced(rng, data, pictures()[rng.choice(kinds)])
            case 11:
                data += rng.choice([data, bytes(100_000), rng.randbytes(3_000)])
            case _:
                data = damage.damaged(rng, data) if data else b"\xff"
    return kind, data


@dataclass
class Tally:
    """Outcomes of the pictures."""

    outcomes: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)  # by codec
    wrong: list[str] = field(default_factory=list)
    # Of one picture: seconds of the processor, and bytes beyond what the process had; each with its number.
    check_seconds: tuple[float, int] = (0.0, 0)
    decode_seconds: tuple[float, int] = (0.0, 0)
    check_bytes: tuple[int, int] = (0, 0)
    decode_bytes: tuple[int, int] = (0, 0)

    def of(self, outcome: str) -> int:
        return sum(count for (_, seen), count in self.outcomes.items() if seen == outcome)

    def count(self, number: int, kind: str, told: str) -> None:
        outcome, *figures = told.split("|")
        self.outcomes[kind.split(maxsplit=1)[0], outcome.partition(":")[0]] += 1
        if outcome not in (DECODED, *_REFUSALS):
            self.wrong.append(f"{number}: {kind}: {outcome}")
        if not figures:
            return
        seconds, more = [float(one) for one in figures[:2]], [int(one) for one in figures[2:]]
        self.check_seconds = max(self.check_seconds, (seconds[0], number))
        self.decode_seconds = max(self.decode_seconds, (seconds[1], number))
        self.check_bytes = max(self.check_bytes, (more[0], number))
        self.decode_bytes = max(self.decode_bytes, (more[1], number))
        if more[0] > CHECK_CEILING or more[1] > DECODE_CEILING:
            self.wrong.append(f"{number}: {kind}: the check took {more[0]} bytes, decoding {more[1]}")


class _Memory:
    """The bytes that this process has had at most since it was asked to begin."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._peak()

    @staticmethod
    def _peak() -> int:
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    def more(self) -> int:
        return self._peak() - self._before


def run_here(data: bytes, orientation: Orientation, *, drop_alpha: bool) -> str:
    """Check and decode one picture in this process: what came of it, and what it took."""
    terms, image = contract(limits=LIMITS), SentImage(EncodedImage(orientation, drop_alpha), data)
    seconds, more = [0.0, 0.0], [0, 0]

    def measured(stage: int, call: str) -> object:
        memory, started = _Memory(), time.process_time()
        try:
            return convert.check(image, terms) if call == "check" else convert.decode(image)
        finally:
            seconds[stage], more[stage] = time.process_time() - started, memory.more()

    try:
        size = measured(0, "check")
        pixels = measured(1, "decode")
        shape = getattr(pixels, "shape", ())
        assert isinstance(size, tuple)
        assert shape in ((*size, 3), (*size[::-1], 3)), (shape, size)
        outcome = DECODED
    except Refused as refusal:
        outcome = str(refusal.reason)
    except BaseException as error:  # noqa: BLE001  whatever it is, it is told
        outcome = f"TRACEBACK: {type(error).__name__}: {str(error)[:200]}"
    return "|".join([outcome.replace("|", "/"), *(f"{one:.6f}" for one in seconds), *map(str, more)])


def _child(seed: int, numbers: Sequence[int]) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT_DATA, _LIMIT_DATA))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no outcome
    for number in numbers:
        _, data = generate(seed, number)
        if os.environ.get("VEDETTE_TEST_CRASH") == str(number):  # for a test of this harness
            os.abort()
        orientation = [*Orientation][number % len(Orientation)]
        print(json.dumps(run_here(data, orientation, drop_alpha=number % 4 != 0)), file=out, flush=True)


def run(count: int, seed: int, first: int = 0) -> Tally:
    """Decode so many."""
    tally = Tally()
    for number, told in _cases(range(first, first + count), seed):
        tally.count(number, generate(seed, number)[0], told)
    return tally


def _cases(numbers: Sequence[int], seed: int) -> Iterator[tuple[int, str]]:
    command = [sys.executable, "-m", "tests.bench.pictures", "--child", str(seed)]
    return children.cases(command, numbers, LIMIT_SECONDS, most=2_000)


def main() -> None:
    """Decode many and print what became of them; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first picture's number")
    chosen = parser.parse_args()
    started = time.monotonic()
    tally = run(chosen.count, chosen.seed, chosen.first)
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{count:6} {' '.join(outcome)}")
    print(*tally.wrong[:_SHOWN], sep="\n")
    for what, (seconds, of), (bytes_, by) in (
        ("the check", tally.check_seconds, tally.check_bytes),
        ("decoding", tally.decode_seconds, tally.decode_bytes),
    ):
        print(f"{what} took {seconds * 1e3:.0f} ms at most (number {of}), and {bytes_ / MIB:.0f} MiB (number {by})")
    print(f"{chosen.count} pictures in {time.monotonic() - started:.0f} s, {len(tally.wrong)} wrong")
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(int(sys.argv[2]), [*map(int, sys.argv[3:])])
    else:
        main()

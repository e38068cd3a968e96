"""`make explain`: how often an empty answer's primary reason is the true one, and how often Diagnose names the mistake.

Each fault is a feed of its own, streamed to a real server at the pace of a slow camera. The first frames, until the
server has looked into the feed, are not counted; of the others, those of one half of the seeds are what rules and
constants were tuned on, and those of the other half are reported. The honest feed is half empty.
"""

import collections
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from vedette_client import Answered, Client, ImageLike

from tests.sim import faults, labelled
from tests.sim.faults import FAULTS, MISTAKES, Fault
from tests.support import running

PAUSE = 0.15  # seconds between two frames, in which the server can look into a feed
LEAD, MOST_LEAD = 20, 150  # frames that are not counted, at least and at most
REPEATS = 12  # of each picture of a frozen feed, of which the last one counts
HONEST_SEED, FAULT_SEED, DIAGNOSE_SEED = 6_000_000, 7_000_000, 8_000_000
Counts = collections.Counter[str]


def tuned_on(seed: int) -> bool:
    """True if a picture is in the half that rules and constants were tuned on."""
    return seed // 4 % 2 == 0  # each half has drawn ones and photographs


class Feed:
    """The frames of one fault, until enough of them are counted."""

    def __init__(self, server: running.Server, name: str, fault: Fault, pictures: Iterator[labelled.Labelled]) -> None:
        self._server, self._name, self._fault, self._pictures = server, name, fault, pictures
        self._sent: list[tuple[int, bool]] = []  # of each frame: the seed of its picture, and whether it counts

    def run(self, client: Client, frames: int) -> dict[bool, Counts]:
        """The primary reasons of the counted frames, by half; "" for those that are not empty."""
        counts: dict[bool, Counts] = {True: collections.Counter(), False: collections.Counter()}
        ask = self._fault.ask | {"model": self._fault.model}
        events = client.stream(self._frames(frames), policy="LOSSLESS", stream_id=self._name, max_in_flight=1, **ask)
        for event, (seed, counted) in zip(events, self._growing(), strict=False):
            assert isinstance(event, Answered), event
            if counted:
                counts[tuned_on(seed)][event.result.empty.reason if event.result.empty else ""] += 1
        return counts

    def _growing(self) -> Iterator[tuple[int, bool]]:
        """Yield what was sent, as long as it grows."""
        return (self._sent[index] for index in itertools.count())

    def _frames(self, most: int) -> Iterator[ImageLike]:
        counted = 0
        for index, picture in enumerate(self._pictures):
            lead = index < LEAD or (index < MOST_LEAD and self._looked_into())
            for repeat in range(REPEATS if self._fault.frozen else 1):
                self._sent.append((picture.seed, not lead and (not self._fault.frozen or repeat == REPEATS - 1)))
                yield self._fault.send(picture.bgr, picture.seed)
                time.sleep(0 if self._fault.frozen else PAUSE)
            counted += not lead
            if counted == most:
                return

    def _looked_into(self) -> bool:
        """True while the server is examining this feed."""
        ends = ("cause_suspected", "no_cause_found", "probe_ended_early")
        return self._events("looking_into") > sum(map(self._events, ends))

    def _events(self, name: str) -> int:
        return sum(event["stream"] == self._name for event in self._server.events(name))


def honest(seeds: range) -> Iterator[labelled.Labelled]:
    """Pictures of which every other one shows nothing."""
    shown, quiet = labelled.pictures(seeds, quiet=False), labelled.pictures(seeds, quiet=True)
    return itertools.chain.from_iterable(zip(shown, quiet, strict=False))


def confusion(server: running.Server, scenes: int) -> None:
    """Print the matrix of primary reasons against the truth, of the half that is reported and of the other."""
    rows: dict[str, dict[bool, Counts]] = {}
    with Client(server.address) as client:
        feeds = {
            "honest": (Fault(()), honest(range(HONEST_SEED, HONEST_SEED + 2_000)), 10 * scenes),
            "honest, quiet": (
                Fault(()),
                labelled.pictures(range(HONEST_SEED + 5_000, HONEST_SEED + 7_000), quiet=True),
                5 * scenes,
            ),
            **{
                name: (fault, labelled.pictures(range(FAULT_SEED, FAULT_SEED + 2_000), quiet=fault.quiet), 2 * scenes)
                for name, fault in FAULTS.items()
            },
        }
        for name, (fault, pictures, frames) in feeds.items():
            rows[name] = Feed(server, name, fault, pictures).run(client, frames)
            click.echo(f"{name}: {dict(rows[name][False] + rows[name][True])}", err=True)
    for half, title in ((True, "Tuned on this half"), (False, "Reported half")):
        Console(width=150).print(_matrix(title, {name: counts[half] for name, counts in rows.items()}))


def _matrix(title: str, rows: Mapping[str, Counts]) -> Table:
    table = Table("truth", "frames", "empty", "named rightly", "recall", "named otherwise", title=title)
    for name, counts in rows.items():
        codes = FAULTS[name].codes if name in FAULTS else ("QUIET_SCENE",)
        empty = counts.total() - counts[""]
        right = sum(counts[code] for code in codes)
        others = ", ".join(f"{code} {count}" for code, count in counts.most_common() if code not in (*codes, ""))
        recall = f"{right / empty:.3f}" if empty else ""
        table.add_row(name, str(counts.total()), str(empty), str(right), recall, others)
    return table


def diagnoses(server: running.Server, scenes: int) -> None:
    """Print how often Diagnose names the injected mistake first, where undoing it brings detections back."""
    table = Table("mistake", "scenes", "undoing helps", "named first", "share", "named otherwise")
    total: Counts = collections.Counter()
    with Client(server.address) as client:
        for name, fault in MISTAKES.items():
            named: Counts = collections.Counter()
            pictures = labelled.pictures(range(DIAGNOSE_SEED, DIAGNOSE_SEED + 2_000), quiet=False)
            for picture in itertools.islice(pictures, scenes):
                ask = fault.ask | {"model": fault.model}
                found = client.diagnose(fault.send(picture.bgr, picture.seed), **ask)
                if any(one.helps for one in found.candidates if one.mistake == fault.mistake):
                    named[found.candidates[0].mistake] += 1
            right, helped = named[fault.mistake], named.total()
            others = ", ".join(f"{code} {count}" for code, count in named.items() if code != fault.mistake)
            share = f"{right / helped:.3f}" if helped else ""
            table.add_row(name, str(scenes), str(helped), str(right), share, others)
            total.update(right=right, helped=helped)
            click.echo(f"{name}: {dict(named)}", err=True)
    share = f"{total['right'] / total['helped']:.3f}"
    table.add_row("all", str(scenes * len(MISTAKES)), str(total["helped"]), str(total["right"]), share, "")
    Console(width=130).print(table)


@click.command()
@click.option("--scenes", default=40, show_default=True, help="Scenes of each fault, in each half.")
@click.option("--diagnosed", default=20, show_default=True, help="Scenes of each mistake for Diagnose.")
def main(scenes: int, diagnosed: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = faults.repository(Path(folder))
        config = Path(folder).with_suffix(".toml")
        config.write_text("diagnose_share = 1.0\nmax_request_seconds = 120\n")
        flags = ("--repository", str(root), "--threads", "1", "--config", str(config))
        with running.server(*flags) as server:
            if scenes:
                confusion(server, scenes)
            if diagnosed:
                diagnoses(server, diagnosed)


if __name__ == "__main__":
    main()

"""`make honest`: how many honest pictures of other trades are accused of a fault that they have not. It must be none.

Every picture goes through a real server, in every encoding in which it is sent, to the bundled model and to random
models of other families; then feeds of a hundred go as streams, slowly, so that the server looks into them.
"""

import collections
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from vedette_client import Answered, Client, Finding, ImageLike, VedetteError
from vedette_server.settings import BUNDLED_REPOSITORY

from tests import honest
from tests.support import families, running

# What is said of the question or of the model's own course is counted there, and accuses no picture.
_MEASURED = {"BELOW_THRESHOLD", "CLASS_FILTER", "CAPPED", "NO_PROPOSALS", "EMPTIED_BY_CLIPPING", "NON_FINITE_VALUES"}
PAUSE = 0.1  # seconds between two frames of a feed
Tell = Callable[[str], None]


def accusations(findings: tuple[Finding, ...]) -> list[Finding]:
    """Findings against a picture that are more than suspected."""
    innocent = {"QUIET_SCENE", *_MEASURED}
    return [one for one in findings if one.confidence != "SUSPECTED" and one.code not in innocent]


class Count:
    """Pictures sent, and accused, by encoding; for the trades on which rules were tuned and for those held out."""

    def __init__(self) -> None:
        self.sent: collections.Counter[tuple[bool, str]] = collections.Counter()
        self.accused: collections.Counter[tuple[bool, str]] = collections.Counter()
        self.refused: collections.Counter[tuple[bool, str]] = collections.Counter()
        self.pictures: set[tuple[bool, str]] = set()

    def see(self, client: Client, model: str, one: honest.Honest, encoding: str, tell: Tell) -> None:
        key = (one.trade in honest.HELD_OUT, encoding)
        self.sent[key] += 1
        try:
            result = client.detect(honest.ENCODINGS[encoding](one), model=model)
        except VedetteError as error:
            self.refused[key] += 1
            tell(f"{model}: {one.name} as {encoding} is refused: {error}")
            return
        for finding in accusations(result.findings):
            self.pictures.add((key[0], one.name))
            tell(f"{model}: {one.name} as {encoding}: {finding.code} {finding.confidence}, {finding.evidence}")
        self.accused[key] += bool(accusations(result.findings))

    def table(self, title: str) -> Table:
        table = Table("encoding", "tuned on", "accused", "refused", "held out", "accused", "refused", title=title)
        for encoding in honest.ENCODINGS:
            cells = [
                str(counter[held, encoding])
                for held in (False, True)
                for counter in (self.sent, self.accused, self.refused)
            ]
            table.add_row(encoding, *cells)
        tuned, held = (sum(one is flag for one, _ in self.pictures) for flag in (False, True))
        table.add_row("pictures accused", "", str(tuned), "", "", str(held), "")
        return table


def stream(client: Client, model: str, name: str, frames: int, tell: Tell) -> int:
    """Count the accused frames of a feed, after a lead in which the server examines it."""

    def slowly() -> Iterator[ImageLike]:
        for one in honest.feed(name, frames):
            yield honest.ENCODINGS["PNG"](one)
            time.sleep(PAUSE)

    accused = 0
    for event in client.stream(slowly(), policy="LOSSLESS", stream_id=name, max_in_flight=1, model=model):
        assert isinstance(event, Answered), event
        found = accusations(event.result.findings)
        accused += bool(found)
        for finding in found[:1]:
            tell(f"{model}: stream {name}: {finding.code} {finding.confidence}, {finding.evidence}")
    return accused


def repository(root: Path) -> Path:
    """The bundled model, and random ones of the zoo's families."""
    families.write(root)
    (root / "roadsigns").symlink_to(BUNDLED_REPOSITORY / "roadsigns")
    return root


@click.command()
@click.option("--model", "models", multiple=True, help="Only these; left out: all.")
@click.option("--frames", default=100, show_default=True, help="Of each feed.")
@click.option("--encoding", "encodings", multiple=True, help="Only these; left out: all.")
def main(models: tuple[str, ...], frames: int, encodings: tuple[str, ...]) -> None:
    """Measure and print; end with an error where anybody was accused."""
    failed, console = 0, Console(width=130)

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with tempfile.TemporaryDirectory() as folder:
        root = repository(Path(folder))
        config = Path(folder).with_suffix(".toml")
        config.write_text("diagnose_share = 1.0\nmax_request_seconds = 300\n")
        with (
            running.server("--repository", str(root), "--threads", "1", "--config", str(config)) as server,
            Client(server.address) as client,
        ):
            for model in models or ("roadsigns", *families.ZOO):
                count = Count()
                for one in honest.every():
                    for encoding in honest.encodings(one):
                        if not encodings or encoding in encodings:
                            count.see(client, model, one, encoding, tell)
                console.print(count.table(f"{model}: honest pictures of {len(honest.TRADES)} trades"))
                failed += count.accused.total()
                for name in honest.FEEDS if frames else ():
                    accused = stream(client, model, name, frames, tell)
                    console.print(f"{model}: stream of {frames} {name}: {accused} accused")
                    failed += accused
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

"""`vedette-server report`: from a running server or a saved page of metrics to one file."""

import datetime as dt
import urllib.parse
from pathlib import Path

import click
from vedette_commands import kinds, shown, text
from vedette_commands.outputs import Outputs
from vedette_commands.program import fail

from vedette_server.baseline.scrape import LARGEST_PAGE, Page, fetch
from vedette_server.report import reading, samples
from vedette_server.report.facts import Version
from vedette_server.report.page import Scrape, compose

_GRPC_PORT = 8001


@click.command()
@click.option(
    "--from",
    "url",
    default="http://127.0.0.1:8002",
    show_default=True,
    type=kinds.Words(),
    help="A running server's HTTP port.",
)
@click.option("--scrape", "saved", type=click.Path(path_type=Path, dir_okay=False), help="A saved page of metrics.")
@click.option(
    "--server",
    metavar="HOST:PORT",
    type=kinds.Words(),
    help="Its gRPC port, for samples.  [default: --from's host, port 8001]",
)
@shown.options
@click.option(
    "--samples", "most", type=click.IntRange(0, kinds.MOST), default=3, show_default=True, help="How many at most."
)
@click.option("--out", type=click.Path(path_type=Path), default="report.html", show_default=True, help="The page.")
@click.pass_context
def report(context: click.Context, url: str, saved: Path | None, server: str | None, most: int, out: Path) -> None:
    """Draw what a server's models see as one self-contained HTML page: to be read, printed, mailed.

    From a running server's metrics, with samples of its empty frames; or from a page of metrics that was saved before,
    with curl, say.
    """
    given = context.get_parameter_source("url") is not click.core.ParameterSource.DEFAULT
    if saved and (given or server):
        raise click.UsageError("--scrape needs no server: leave out --from and --server")
    if not out.parent.is_dir():
        fail(f"cannot write {out}: No such file or directory: {out.parent}")
    outputs = Outputs()
    if saved:
        outputs.reads(saved)
    part = outputs.begin(out)
    try:
        shown = _report(url, saved, server, most)
        try:
            part.path.write_text(shown, "utf-8")
        except OSError as error:
            raise outputs.failed(out, error) from error
        part.finish()
    finally:
        part.discard()
    click.echo(text.plain(text.name(out)))


def _report(url: str, saved: Path | None, server: str | None, most: int) -> str:
    try:
        told = shown.current()
        page = Page.parse(_read(saved)) if saved else fetch(url, told.token, told.context())
        _check(page)
    except (OSError, ValueError) as error:
        fail(f"{saved or url} cannot be read as a page of metrics: {getattr(error, 'strerror', None) or error}")
    try:
        versions = reading.read(page)
        taken = dt.datetime.fromtimestamp(saved.stat().st_mtime, dt.UTC) if saved else dt.datetime.now(dt.UTC)
        release = next((release for (release,) in page.by("vedette_build_info", "release")), "")
        scrape = Scrape(text.name(saved) if saved else url, taken, release, running=not saved)
        found = None if saved else _samples(url, server, versions, most)
        return compose(scrape, versions, reading.elsewhere(page, versions), found)
    except (ArithmeticError, LookupError, ValueError) as error:
        fail(f"{saved or url} holds values that no server of Vedette gives: {type(error).__name__}: {error}")


def _read(saved: Path) -> str:
    with saved.open("rb") as file:
        data = file.read(LARGEST_PAGE + 1)
    if len(data) > LARGEST_PAGE:
        msg = f"it is larger than {LARGEST_PAGE} bytes"
        raise ValueError(msg)
    return data.decode()


def _check(page: Page) -> None:
    """Raises `ValueError` for what is no page of this server's metrics."""
    if not page.by("vedette_build_info"):
        msg = "it tells of no release of Vedette"
        raise ValueError(msg)


def _samples(url: str, server: str | None, versions: list[Version], most: int) -> dict[samples.Wanted, samples.Sample]:
    wanted = samples.wanted(versions, most)
    if wanted:
        click.echo("vedette-server: the server diagnoses empty frames, beside its traffic", err=True)
    return {one.wanted: one for one in samples.take(server or _beside(url), wanted, shown.current())}


def _beside(url: str) -> str:
    """Return the address of a server's gRPC port, given that of its HTTP port."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    address = f"[{host}]:{_GRPC_PORT}" if ":" in host else f"{host}:{_GRPC_PORT}"
    return f"grpcs://{address}" if parts.scheme == "https" else address

"""Capture the baseline of a model version: what its answers look like while all is well.

A program of its own, like the importer. It reads the metrics pages of servers, or has a folder of pictures answered by
the model here; what it writes is made of the same counters in both cases.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from vedette_commands.program import FailedError
from vedette_commands.shown import NOTHING, Shown

from vedette_server.alerts.limits import LEAST_ANSWERS, LEAST_WINDOWS
from vedette_server.baseline import profile, stored
from vedette_server.baseline.profile import TooLittleError, Window
from vedette_server.baseline.scrape import Page, fetch
from vedette_server.clock import SYSTEM, Clock
from vedette_server.contract.files import declare
from vedette_server.contract.options import defaults
from vedette_server.contract.refusal import Refused
from vedette_server.engine.query import Outcome
from vedette_server.explain.explain import Context, explain
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import ModelVersion

_GROUPS = 24  # of pictures, where there are enough


class CaptureError(FailedError):
    """A baseline cannot be captured; the message says why and what to do."""


def from_servers(
    model: ModelVersion,
    servers: Sequence[str],
    seconds: float,
    count: int,
    shown: Shown = NOTHING,
    clock: Clock = SYSTEM,
) -> list[Window]:
    """Look at the pages of a model's replicas once a window; returns what was counted in each.

    A window in which a server was away or started again is left out. Raises `CaptureError` if one is away at first.
    """
    of = {"model": model.name, "version": str(model.version)}
    windows = []
    before: list[Page] | None = [_fetch(server, model, shown) for server in servers]
    begun = clock.monotonic()
    for number in range(1, count + 1):
        hour = clock.utc().hour
        clock.sleep(max(0.0, begun + number * seconds - clock.monotonic()))
        after = None
        try:
            after = [_fetch(server, model, shown) for server in servers]
            pages = [later.since(earlier, **of) for later, earlier in zip(after, before or after, strict=True)]
            if before:  # else it began while a server was away
                windows.append(Window(hour, sum(pages[1:], pages[0])))
        except (CaptureError, ValueError) as error:
            click.echo(f"window {number} is left out: {error}", err=True)
        click.echo(f"window {number} of {count}", err=True)
        before = after
    return windows


def _fetch(server: str, model: ModelVersion, shown: Shown) -> Page:
    """A server's page, if it serves that very version. Raises `CaptureError`."""
    try:
        page = fetch(server, shown.token, shown.context())
    except (OSError, ValueError) as error:
        msg = f"{server} gives no metrics: {error}; --from names the HTTP port of a server, http://127.0.0.1:8002"
        raise CaptureError(msg) from error
    served = page.by("vedette_model_info", "fingerprint", model=model.name, version=str(model.version))
    if (model.contract.fingerprint,) not in served:
        seen = f"under the contract {next(iter(served))[0][:12]}" if served else "not at all"
        msg = (
            f"{server} serves {model.name} version {model.version} {seen}; in the repository it has the contract "
            f"{model.contract.fingerprint[:12]}: give the --repository that it serves"
        )
        raise CaptureError(msg)
    return page


def from_pictures(model: ModelVersion, folder: Path, device: str, threads: int) -> list[Window]:
    """Answer every picture of a folder here; each group of them is a window.

    Raises `LoadRefusedError` if the version cannot be loaded, `CaptureError` for too few pictures or a broken one.
    """
    pictures = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(pictures) < LEAST_WINDOWS * LEAST_ANSWERS:
        msg = f"{folder} has {len(pictures)} pictures; {LEAST_WINDOWS * LEAST_ANSWERS} are needed"
        raise CaptureError(msg)
    size = max(LEAST_ANSWERS, len(pictures) // _GROUPS)
    groups = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    return list(_answered(model, groups, device, threads))


def _answered(model: ModelVersion, groups: Sequence[Sequence[Path]], device: str, threads: int) -> Iterator[Window]:
    from vedette_server.predictor.predictor import load  # imports torch, which live traffic does not need

    predictor, options = load(model.folder, model.contract, device, threads), defaults(model.contract)
    metrics = Metrics()
    metrics.loaded(model)
    before = _page(metrics)
    for number, group in enumerate(groups, 1):
        for path in group:
            try:
                answer = predictor.predict(declare(path.read_bytes(), model.contract), options)
            except Refused as error:
                msg = f"{path} cannot be read: {error.reason}; take it out of the folder"
                raise CaptureError(msg) from error
            metrics.answered(
                Outcome(
                    answer=answer,
                    model=model,
                    queue_seconds=0.0,
                    total_seconds=0.0,
                    findings=explain(answer, model.contract, Context()),
                )
            )
        after = _page(metrics)
        yield Window(SYSTEM.utc().hour, after.since(before))
        before = after
        click.echo(f"{number} of {len(groups)} groups", err=True)


def _page(metrics: Metrics) -> Page:
    return Page.parse(metrics.page("")[0].decode())


def write(
    model: ModelVersion,
    windows: Sequence[Window],
    seconds: float,
    source: str,
    *,
    by_hour: bool,
    clock: Clock = SYSTEM,
) -> Path:
    """Make the baseline of what was captured and put it beside the version; returns its path. Raises `CaptureError`."""
    try:
        profiles = profile.profiles(model.name, model.version, windows, by_hour=by_hour)
    except TooLittleError as error:
        raise CaptureError(str(error)) from error
    baseline = stored.Baseline(
        format=stored.FORMAT,
        model=model.name,
        version=model.version,
        fingerprint=model.contract.fingerprint,
        captured=clock.utc().timestamp(),
        source=source,
        window_seconds=seconds,
        edges=profile.edges(windows),
        profiles=profiles,
    )
    return stored.write(model, baseline)

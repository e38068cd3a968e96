"""The `vedette` command. Results go to stdout, everything else to stderr.

Exit codes: 0 success, 1 local failure, 2 usage, 64 + the gRPC code for a failed call. `compare` exits with 0 if all is
the same and with 1 if anything differs; `health` with 1 if a model does not answer.
"""

import contextlib
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from vedette_client import drawing, records
from vedette_client.client import DEFAULT_ADDRESS, Client
from vedette_client.errors import LocalError, ServerError, VedetteError
from vedette_client.results import Model, Result
from vedette_client.streaming import Policy

_LOCAL_FAILURE, _CALL_FAILURE = 1, 64


def _server(command: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--server", metavar="HOST:PORT", default=DEFAULT_ADDRESS, show_default=True, envvar="VEDETTE_SERVER"
    )
    return option(command)


def _json(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vedette")
def main() -> None:
    """Call a Vedette server."""


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@_server
@click.option("--model", default="", help="Name of the model; not needed where one is served.")
@click.option("--threshold", type=float, help="Operating score, 0 to 1.  [default: the model's own]")
@_json
@click.option("--save", type=click.Path(path_type=Path), help="Save annotated pictures in this folder.")
def detect(
    images: tuple[Path, ...], server: str, model: str, threshold: float | None, *, as_json: bool, save: Path | None
) -> None:
    """Find objects in IMAGES. One that fails does not keep the others from being looked at."""
    results: list[tuple[Path, Result]] = []
    failures: list[VedetteError] = []
    with Client(server) as client:
        for path in images:
            try:
                result = client.detect(path, model=model, threshold=threshold)
                if as_json:
                    click.echo(json.dumps({"image": str(path), **records.answer(result)}))
                if save:
                    click.echo(f"saved {drawing.save(path, result, save)}", err=True)
            except VedetteError as error:
                _say(error, f"{path}: ")
                failures.append(error)
            else:
                results.append((path, result))
    if results and not as_json:
        _print(_detections(results))
    if failures:
        sys.exit(_status(failures[0]))


def _detections(results: Iterable[tuple[Path, Result]]) -> Table:
    table = Table("image", "class", "score", "box (x0, y0, x1, y1)", "mask")
    for path, result in results:
        for item in result:
            box = ", ".join(f"{edge:.0f}" for edge in item.box)
            mask = f"{item.mask.decode().sum()} px" if item.mask else ""
            table.add_row(path.name, item.class_name, f"{item.score:.2f}", box, mask)
        if result.empty:
            reason = result.empty.reason.lower().replace("_", " ")
            table.add_row(path.name, f"[dim]nothing: {reason}; {result.findings[0].evidence}[/dim]")
    return table


@main.command()
@click.argument("image", required=False, type=click.Path(path_type=Path))
@_server
@click.option("--model", default="", help="Name of the model; not needed where one is served.")
@click.option("--threshold", type=float, help="Operating score, 0 to 1.  [default: the model's own]")
@click.option("--stream", "stream_id", default="", help="Instead of IMAGE: this stream's last sampled empty frame.")
@click.option("--save", type=click.Path(path_type=Path), help="Save the candidates side by side in this folder.")
@_json
def diagnose(image: Path | None, server: str, stream_id: str, *, as_json: bool, save: Path | None, **ask: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Find out why IMAGE gives nothing: it is tried with each known mistake undone.

    Without IMAGE, the empty frame that the server itself has looked into last.
    """
    with Client(server) as client:
        found = _or_exit(lambda: client.diagnose(image, stream_id=stream_id, **ask))
    if save:
        target = save / _sheet_name(image, stream_id)
        click.echo(f"saved {_or_exit(lambda: drawing.write(target, found.comparison_png))}", err=True)
    if as_json:
        click.echo(json.dumps({"image": str(image) if image else None, **records.diagnosis(found)}))
        return
    click.echo(found.summary)
    table = Table("undone", "detections", "best score", "helps")
    table.add_row("nothing: as sent", str(found.detections), f"{found.best_score:.2f}", "")
    for one in found.candidates:
        name = one.mistake.lower().replace("_", " ")
        table.add_row(name, str(one.detections), f"{one.best_score:.2f}", "yes" if one.helps else "")
    _print(table)


def _sheet_name(image: Path | None, stream_id: str) -> str:
    stem = image.stem if image else "".join(letter if letter.isalnum() else "-" for letter in stream_id) or "sampled"
    return f"{stem}-diagnosis.png"


@main.command()
@click.argument("source")
@_server
@click.option("--model", default="", help="Name of the model; not needed where one is served.")
@click.option("--threshold", type=float, help="Operating score, 0 to 1.  [default: the model's own]")
@click.option(
    "--policy",
    type=click.Choice(["latest", "lossless"]),
    help="Drop what is too old, or answer every frame.  [default: lossless for a file read as fast as it goes]",
)
@click.option("--jsonl", type=click.Path(path_type=Path), help="Write one JSON object for each frame to this file.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the annotated video to this file.")
@click.option("--loop", is_flag=True, help="Begin a file anew at its end.")
@click.option("--fps", type=float, help="Play a file at this rate, in frames a second.")
def stream(source: str, server: str, policy: str | None, jsonl: Path | None, save: Path | None, **rest: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Find objects in the frames of SOURCE: a video file, an RTSP address, or a camera by its number.

    Ctrl-C ends it; what was sent is still answered.
    """
    from vedette_client import stream_command, video  # PyAV is an optional dependency

    live = video.is_live(source) or rest["fps"] is not None
    chosen: Policy = "LATEST" if (policy or ("latest" if live else "lossless")) == "latest" else "LOSSLESS"
    ask = {"model": rest["model"], "threshold": rest["threshold"]}

    def run() -> Counter[str]:
        opened = video.Video(source, loop=rest["loop"], fps=rest["fps"])
        with contextlib.ExitStack() as stack:
            lines = stack.enter_context(jsonl.open("w", encoding="utf-8")) if jsonl else None
            client = stack.enter_context(Client(server))
            return stream_command.run(client, opened, chosen, lines, save, ask)

    counts = _or_exit(run)
    told = ", ".join(f"{count} {name.lower()}" for name, count in sorted(counts.items()))
    click.echo(f"{sum(counts.values())} frames: {told or 'none'}", err=True)


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--config", required=True, help="Your Detectron2 config in YAML, or a path within its model zoo.")
@click.option("--weights", required=True, type=click.Path(path_type=Path), help="A .pth, .pkl or .safetensors file.")
@click.option("--plugin", "plugins", multiple=True, metavar="MODULE", help="A module of the model's project, run.")
@_server
@click.option("--model", default="", help="Name of the served model; not needed where one is served.")
@click.option("--threshold", type=float, help="Operating score of both, 0 to 1.  [default: the served model's own]")
@_json
@click.option("--save", type=click.Path(path_type=Path), help="Save each picture, local left, served right, here.")
def compare(images: tuple[Path, ...], server: str, *, as_json: bool, **wanted: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Run Detectron2's DefaultPredictor here, beside the server, on IMAGES, and show where the two differ.

    Scores, boxes and masks are compared. Weights are read as Detectron2 reads them, which can run what a .pkl holds.
    """
    from vedette_client import compare_command

    failures: list[VedetteError] = []

    def failed(path: Path, error: VedetteError) -> None:
        _say(error, f"{path}: ")
        failures.append(error)

    compared = []
    with Client(server) as client:
        found = compare_command.run(client, images, compare_command.Wanted(**wanted), failed)
        while (one := _or_exit(lambda: next(found, None))) is not None:
            compared.append(one)
            if as_json:
                click.echo(compare_command.record(one))
    if compared and not as_json:
        _print(compare_command.table(compared))
        for line in compare_command.verdicts(compared):
            click.echo(line)
    if failures:
        sys.exit(_status(failures[0]))
    sys.exit(0 if all(one.comparison.same for one in compared) else _LOCAL_FAILURE)


@main.command()
@_server
@_json
def models(server: str, *, as_json: bool) -> None:
    """List what is served."""
    with Client(server) as client:
        listed = _or_exit(client.models)
    if as_json:
        for item in listed:
            click.echo(json.dumps(_model_record(item)))
        return
    table = Table("model", "version", "state", "outputs", "classes", "threshold", "contract")
    for item in listed:
        state = item.state.lower() + (f": {item.state_reason}" if item.state_reason else "")
        state += f"; waived: {', '.join(item.waivers)}" if item.waivers else ""
        terms = item.contract
        outputs, names = ", ".join(terms.outputs), ", ".join(terms.class_names)
        table.add_row(
            item.name,
            item.version,
            state,
            outputs,
            names,
            f"{terms.default_threshold:g}",
            terms.fingerprint[:12],
        )
    _print(table)


def _model_record(item: Model) -> dict[str, Any]:
    return {
        "model": item.name,
        "version": item.version,
        "description": item.description,
        "state": item.state,
        "state_reason": item.state_reason,
        "waivers": item.waivers,
        "outputs": item.contract.outputs,
        "classes": item.contract.class_names,
        "default_threshold": item.contract.default_threshold,
        "floor": item.contract.floor,
        "contract_fingerprint": item.contract.fingerprint,
    }


@main.command()
@click.argument("model")
@click.option("--version", "number", default="", help="The version.  [default: the newest that is ready]")
@_server
@_json
def contract(model: str, number: str, server: str, *, as_json: bool) -> None:
    """Print the input contract of MODEL: what it takes and what it gives."""
    with Client(server) as client:
        found = _or_exit(lambda: client.model(model, number))
    terms = {"model": found.name, "version": found.version, **dataclasses.asdict(found.contract)}
    terms["waivers"] = found.waivers
    if as_json:
        click.echo(json.dumps(terms))
        return
    table = Table("term", "value")
    for name, value in terms.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        table.add_row(name.replace("_", " "), "none" if shown is None else str(shown))
    _print(table)


@main.command()
@_server
@_json
def health(server: str, *, as_json: bool) -> None:
    """Say whether every model answers; exits with 1 if not."""
    with Client(server) as client:
        healthy = _or_exit(client.healthy)
    status = "SERVING" if healthy else "NOT_SERVING"
    click.echo(json.dumps({"server": server, "status": status}) if as_json else status)
    sys.exit(0 if healthy else _LOCAL_FAILURE)


def _print(table: Table) -> None:
    """Print a table; on no terminal, as wide as it needs to be."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table)


def _or_exit(call: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever the call gives
    try:
        return call()
    except VedetteError as error:
        _say(error)
        _exit(error)


def _say(error: VedetteError, prefix: str = "") -> None:
    """One readable line."""
    line = " ".join(str(error).split())
    click.echo(f"vedette: {prefix}{line}", err=True)


def _exit(error: VedetteError) -> NoReturn:
    sys.exit(_status(error))


def _status(error: VedetteError) -> int:
    match error:
        case ServerError(code=code):
            number: int = code.value[0]
            return _CALL_FAILURE + number
        case LocalError():
            return _LOCAL_FAILURE
        case _:
            raise error

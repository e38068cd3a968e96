"""The `vedette` command. Results go to stdout, everything else to stderr.

Exit codes: 0 success, 1 local failure, 2 usage, 64 + the gRPC code for a failed call; with several failures, the first
one's. `compare` exits with 0 if everything is the same and with 1 if anything differs; `health` with 1 if a model does
not answer. 130 means Ctrl-C, 143 SIGTERM, and 141 that the reader of the results is gone, as with `head`.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import click
from vedette_commands import kinds, shown, text
from vedette_commands.outputs import prepare
from vedette_commands.program import Ended, Program

from vedette_client import address, detect_command, pictures, records
from vedette_client.asking import OutputKind
from vedette_client.client import DEFAULT_TIMEOUT, Client
from vedette_client.detect_command import Sending
from vedette_client.errors import LocalError, ServerError, VedetteError
from vedette_client.folder import Folder
from vedette_client.outputs import ClientOutputs
from vedette_client.results import Model
from vedette_client.security import Tls

_LOCAL_FAILURE, _CALL_FAILURE = 1, 64
_WORDS = kinds.Words()
_FILE = click.Path(path_type=Path)
_OUTPUTS = get_args(OutputKind)


class _Vedette(Program):
    def status(self, error: Exception) -> int | None:
        """Return the exit status of a `VedetteError`."""
        return _status(error) if isinstance(error, VedetteError) else super().status(error)


class _Address(kinds.Words):
    """The address of a server, as the SDK takes it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401  click's own signature
        """Return the text itself."""
        given = super().convert(value, param, ctx)
        try:
            address.parse(given)
        except LocalError as error:
            self.fail(str(error), param, ctx)
        return given


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Combine several options, in the order of the help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_server = _options(
    click.option(
        "--server",
        metavar="HOST:PORT",
        default=address.DEFAULT_ADDRESS,
        show_default=True,
        envvar="VEDETTE_SERVER",
        type=_Address(),
        help="The server; grpcs://HOST:PORT uses TLS.",
    ),
    shown.options,
)


def _client(server: str, timeout: float = DEFAULT_TIMEOUT) -> Client:
    """Make a client from the options of `_server`."""
    told = shown.current()
    tls = Tls(told.ca, told.cert, told.key) if told.ca or told.cert or told.key else None
    return Client(server, timeout=timeout, tls=tls, token=told.token)


_timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=kinds.Number(above=0, most=86_400),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    help="Maximum time for an answer.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
_model = click.option(
    "--model", default="", type=_WORDS, help="Name of the model; optional if the server has only one."
)
_threshold = click.option(
    "--threshold", type=kinds.Number(), help="Operating score, 0 to 1.  [default: the model's own]"
)
_version = click.option("--version", default="", type=_WORDS, help="Its version.  [default: the newest that is ready]")
_what = _options(
    _model,
    _version,
    _threshold,
    click.option("--classes", type=kinds.Listed(), metavar="A,B", help="Names or ids of classes.  [default: all]"),
    click.option(
        "--max-detections",
        type=click.IntRange(1, kinds.MOST),
        metavar="N",
        help="Only the best N.  [default: the model's own]",
    ),
    click.option(
        "--outputs",
        type=kinds.Listed(_OUTPUTS),
        metavar="A,B",
        help=f"Of {', '.join(_OUTPUTS)}.  [default: all that the model produces]",
    ),
)
_ask = _options(
    _what,
    click.option("--drop-alpha", is_flag=True, help="Ignore transparency, and use the colours beneath."),
    click.option(
        "--orientation",
        type=click.Choice(["apply", "refuse", "ignore"]),
        default="apply",
        show_default=True,
        help="Handling of pictures that are not upright according to EXIF data.",
    ),
)


def _tell(line: str) -> None:
    """Report success, beside the results."""
    click.echo(text.line(line), err=True)


def _sending(timeout: float, *, drop_alpha: bool, orientation: str, **ask: Any) -> Sending:  # noqa: ANN401  the options
    """Collect the options of `_ask`."""
    way: dict[str, Literal["APPLY", "REFUSE", "IGNORE"]] = {"apply": "APPLY", "refuse": "REFUSE", "ignore": "IGNORE"}
    return Sending(_asked(**ask), way[orientation], drop_alpha, timeout)


def _asked(**ask: Any) -> dict[str, Any]:  # noqa: ANN401  the same
    """Collect the options of `_what`."""
    wanted = {name: value for name, value in ask.items() if value not in (None, "")}
    if "classes" in wanted:
        wanted["classes"] = [int(one) if one.isdecimal() else one for one in wanted["classes"]]
    return wanted


@click.group("vedette", cls=_Vedette, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vedette", prog_name="vedette")
def main() -> None:
    """Call a Vedette server."""


@main.command()
@click.argument("images", nargs=-1, required=True)
@_server
@_ask
@_timeout
@_json
@click.option("--save", type=_FILE, metavar="FOLDER", help="Save annotated pictures in this folder, as PNG.")
def detect(
    images: tuple[str, ...],
    server: str,
    timeout: float,
    *,
    as_json: bool,
    save: Path | None,
    **ask: Any,  # noqa: ANN401  click passes each option by its name
) -> None:
    """Detect objects in IMAGES: files, folders including subfolders, quoted patterns, or - for standard input.

    Results are printed as they arrive. A failed picture does not stop the others.
    """
    if images.count(pictures.STANDARD_INPUT) > 1:
        raise click.UsageError("standard input can only be read once")
    given = list(pictures.found(images))
    sending = _sending(timeout, **ask)
    folder = Folder(save, given) if save else None
    with _client(server, timeout) as client:
        printer = detect_command.Lines() if as_json else detect_command.Rows(client, given)
        failures = detect_command.run(client, given, sending, printer, folder, main.say, _tell)
    if failures:
        sys.exit(_status(failures[0]))


@main.command()
@click.argument("image", required=False)
@_server
@_ask
@click.option(
    "--stream",
    "stream_id",
    default="",
    type=_WORDS,
    help="Instead of IMAGE: the last sampled empty frame of this stream.",
)
@click.option("--save", type=_FILE, metavar="FOLDER", help="Save a sheet of all candidates in this folder.")
@_timeout
@_json
def diagnose(
    image: str | None,
    server: str,
    stream_id: str,
    timeout: float,
    *,
    as_json: bool,
    save: Path | None,
    **ask: Any,  # noqa: ANN401  the same
) -> None:
    """Find out why IMAGE yields no detections, by undoing each known mistake. - is standard input.

    Without IMAGE, the last empty frame that the server itself examined.
    """
    if image is not None and stream_id:
        raise click.UsageError("give IMAGE or --stream, not both")
    sending = _sending(timeout, **ask)
    picture = pictures.one(image) if image is not None else None
    outputs = ClientOutputs()
    if picture and picture.path:
        outputs.reads(picture.path)
    sheet = save / _sheet_name(picture, stream_id) if save else None
    if save and sheet:
        outputs.check(sheet)
        prepare(save, LocalError)
    sent = sending.file(picture.read()) if picture else None
    with _client(server, timeout) as client:
        found = client.diagnose(sent, stream_id=stream_id, **sending.ask)
    if sheet:
        outputs.write(sheet, found.comparison_png)
        _tell(f"saved {text.name(sheet)}")
    if as_json:
        click.echo(json.dumps({"image": picture.name if picture else None, **records.diagnosis(found)}))
        return
    click.echo(text.plain(found.summary))
    table = text.table("undone", "detections", "best score", "helps")
    text.row(table, "nothing: as sent", str(found.detections), f"{found.best_score:.2f}", "")
    for one in found.candidates:
        name = one.mistake.lower().replace("_", " ")
        text.row(table, name, str(one.detections), f"{one.best_score:.2f}", "yes" if one.helps else "")
    text.show(table)


def _sheet_name(picture: pictures.Picture | None, stream_id: str) -> str:
    letters = "".join(letter if letter.isalnum() else "-" for letter in stream_id)[:64]
    return f"{picture.target.name if picture else letters or 'sampled'}-diagnosis.png"


def _patience(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not value >= 0:
        msg = f"{value:g} is not a valid time: give seconds, 0 or more"
        raise click.BadParameter(msg)
    return value


@main.command()
@click.argument("source")
@_server
@_what
@click.option(
    "--policy",
    type=click.Choice(["latest", "lossless"]),
    help="Drop outdated frames, or answer every frame.  [default: lossless for a file at full speed]",
)
@click.option("--jsonl", type=_FILE, help="Write one JSON object per frame to this file; - prints them.")
@click.option("--save", type=_FILE, help="Write answered frames to this video, annotated.")
@click.option("--loop", is_flag=True, help="Restart a file at its end.")
@click.option(
    "--fps",
    type=kinds.Number(above=0, most=kinds.MOST),
    metavar="N",
    help="Play a file at this rate, in frames per second.",
)
@click.option(
    "--reconnect",
    type=float,
    callback=_patience,
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Time for reopening a live source that dropped; inf never gives up.",
)
def stream(
    source: str,
    server: str,
    policy: str | None,
    jsonl: Path | None,
    save: Path | None,
    fps: float | None,
    reconnect: float,
    *,
    loop: bool,
    **ask: Any,  # noqa: ANN401  click passes each option by its name
) -> None:
    """Detect objects in the frames of SOURCE: a video file, a URL, a camera number, or - for a pipe.

    Ctrl-C ends it; frames already sent are still answered, and answers are kept.
    """
    from vedette_client import stream_command  # PyAV is an optional dependency

    wanted = stream_command.StreamOptions(
        policy=policy, ask=_asked(**ask), jsonl=jsonl, save=save, loop=loop, fps=fps, patience=reconnect
    )
    with _client(server) as client:
        outcome = stream_command.run(client, source, wanted)
    if outcome.signal and not outcome.whole:
        raise Ended(str(outcome), outcome.signal)
    _tell(str(outcome))
    if outcome.error:
        raise outcome.error
    if outcome.failed:
        main.say(f"the first frame that failed: {outcome.failed}")
        sys.exit(_status(outcome.failed))
    if outcome.damaged:
        sys.exit(_LOCAL_FAILURE)


@main.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--config", required=True, type=_WORDS, help="Your Detectron2 config in YAML, or a path in its model zoo."
)
@click.option("--weights", required=True, type=_FILE, help="A .pth, .pkl or .safetensors file.")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    type=kinds.Module(),
    help="A module of the model's project, which will be run.",
)
@_server
@click.option("--model", default="", type=_WORDS, help="Name of the served model; optional if the server has only one.")
@click.option(
    "--threshold", type=kinds.Number(), help="Operating score of both, 0 to 1.  [default: the served model's own]"
)
@_timeout
@_json
@click.option("--save", type=_FILE, metavar="FOLDER", help="Folder for comparisons: local left, served right.")
def compare(
    images: tuple[str, ...],
    server: str,
    timeout: float,
    *,
    as_json: bool,
    save: Path | None,
    **wanted: Any,  # noqa: ANN401  the same
) -> None:
    """Run Detectron2's DefaultPredictor here and the server on IMAGES, and show the differences.

    IMAGES are files, folders including subfolders, and quoted patterns. Scores, boxes and masks are compared.
    Detectron2 reads the weights, which can run code in a .pkl.
    """
    from vedette_client import compare_command

    if pictures.STANDARD_INPUT in images:
        raise click.UsageError("Detectron2 needs files, so standard input cannot be compared")
    given = list(pictures.found(images))
    folder = Folder(save, given) if save else None
    failures: list[VedetteError] = []

    def failed(name: str, error: VedetteError) -> None:
        main.say(f"{name}: {error}" if name else error)
        failures.append(error)

    compared = []
    with _client(server, timeout) as client:
        for one in compare_command.run(
            client, given, compare_command.ComparisonOptions(**wanted, folder=folder), failed
        ):
            compared.append(one)
            if as_json:
                click.echo(compare_command.record(one))
    if compared and not as_json:
        text.show(compare_command.table(compared))
        for line in compare_command.verdicts(compared):
            click.echo(text.plain(line))
    if failures:
        sys.exit(_status(failures[0]))
    sys.exit(0 if all(one.comparison.same for one in compared) else _LOCAL_FAILURE)


@main.command()
@_server
@_timeout
@_json
def models(server: str, timeout: float, *, as_json: bool) -> None:
    """List the served models."""
    with _client(server, timeout) as client:
        listed = client.models()
    if as_json:
        for item in listed:
            click.echo(json.dumps(_model_record(item)))
        return
    table = text.table("model", "version", "state", "outputs", "classes", "threshold", "contract")
    for item in listed:
        state = item.state.lower() + (f": {item.state_reason}" if item.state_reason else "")
        state += f"; waived: {', '.join(item.waivers)}" if item.waivers else ""
        terms = item.contract
        outputs, names = ", ".join(terms.outputs), ", ".join(terms.class_names)
        threshold, contract = f"{terms.default_threshold:g}", terms.fingerprint[:12]
        text.row(table, item.name, item.version, state, outputs, names, threshold, contract)
    text.show(table)


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
@click.argument("model", type=_WORDS)
@_version
@_server
@_timeout
@_json
def contract(model: str, version: str, server: str, timeout: float, *, as_json: bool) -> None:
    """Print the input contract of MODEL: its inputs and its outputs."""
    with _client(server, timeout) as client:
        found = client.model(model, version)
    terms = {"model": found.name, "version": found.version, **dataclasses.asdict(found.contract)}
    terms["waivers"] = found.waivers
    if as_json:
        click.echo(json.dumps(terms))
        return
    table = text.table("term", "value")
    for name, value in terms.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        text.row(table, name.replace("_", " "), "none" if shown is None else str(shown))
    text.show(table)


@main.command()
@_server
@_timeout
@_json
def health(server: str, timeout: float, *, as_json: bool) -> None:
    """Check that every model answers; exits with 1 if not."""
    with _client(server, timeout) as client:
        healthy = client.healthy()
    status = "SERVING" if healthy else "NOT_SERVING"
    click.echo(json.dumps({"server": server, "status": status}) if as_json else status)
    sys.exit(0 if healthy else _LOCAL_FAILURE)


def _status(error: VedetteError) -> int:
    match error:
        case ServerError(code=code):
            number: int = code.value[0]
            return _CALL_FAILURE + number
        case LocalError():
            return _LOCAL_FAILURE
        case _:
            raise error

"""The `vedette-server` command."""

import asyncio
import importlib.util
import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError
from vedette_commands import kinds, shown, text
from vedette_commands.outputs import Outputs, free, prepare
from vedette_commands.program import FAILURE, USAGE, Program, fail

from vedette_server import addresses, logs, settings
from vedette_server.access import exposure, tokens
from vedette_server.access.files import AccessError
from vedette_server.alerts import limits
from vedette_server.alerts.command import rules
from vedette_server.alerts.parts import duration
from vedette_server.app import App
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.contract.naming import RULE, is_model_name
from vedette_server.dashboards.command import dashboards
from vedette_server.doctor import checks
from vedette_server.pool import memory
from vedette_server.report.command import report
from vedette_server.repository import repository
from vedette_server.repository.repository import RepositoryError

_WORDS = kinds.Words()
_FILE = click.Path(path_type=Path)
_MOST_COMMANDS = 3  # number of suggestions
_MOST_INSTANCES = 1_000  # on one device, each with a model in memory
_CHOOSING = ("--weights-key", "--strip-prefix")  # flags replaced in each suggestion
_LONGEST_WINDOW = 7 * 86_400.0  # seconds


class _VedetteServer(Program):
    def status(self, error: Exception) -> int | None:
        """Return the exit status; errors about a model count as failures with a message."""
        return FAILURE if isinstance(error, LoadRefusedError | RepositoryError) else super().status(error)


@click.group("vedette-server", cls=_VedetteServer, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vedette", prog_name="vedette-server")
def main() -> None:
    """Serve Detectron2 models over gRPC."""


@main.command()
@click.option("--listen", metavar="HOST:PORT", help="Address for gRPC, or unix:PATH.  [default: 127.0.0.1:8001]")
@click.option("--http", metavar="HOST:PORT", help="Address for metrics and health.  [default: 127.0.0.1:8002]")
@click.option(
    "--repository", type=click.Path(path_type=Path), help="The model repository.  [default: the bundled model]"
)
@click.option(
    "--plugin", "plugins", multiple=True, metavar="MODULE", type=kinds.Module(), help="A module that models may import."
)
@click.option("--workers", type=int, help="Worker processes per model version.  [default: 1]")
@click.option("--threads", type=int, help="Threads per worker.  [default: an equal share of the cores]")
@click.option("--device", help="Devices for models: cpu, or cuda:0,cuda:1.  [default: cpu]")
@click.option(
    "--poll-seconds", type=kinds.Number(), help="Interval of scans for new and removed versions.  [default: never]"
)
@click.option("--model-control", is_flag=True, default=None, help="Let callers load and unload models.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="Format of the log.  [default: console]")
@click.option(
    "--log-level", type=click.Choice(get_args(logs.Level)), help="Least severe lines of the log.  [default: info]"
)
@click.option("--tls-cert", type=_FILE, help="The server's certificate chain, PEM; enables TLS for gRPC and HTTP.")
@click.option("--tls-key", type=_FILE, help="Its key, PEM.")
@click.option("--tls-client-ca", type=_FILE, help="Authority that verifies client certificates, PEM.")
@click.option("--tokens", type=_FILE, help="File of accepted tokens, with lines made by `token`.")
@click.option("--jwks", metavar="FILE|URL", type=_WORDS, help="Public keys that verify JWTs.")
@click.option("--jwt-issuer", type=_WORDS, help="Issuer of the JWTs.")
@click.option("--jwt-audience", type=_WORDS, help="Audience of the JWTs.")
@click.option("--jwt-groups", metavar="CLAIM", type=_WORDS, help="Claim of the JWTs with groups.  [default: none]")
@click.option("--policy", type=_FILE, help="TOML file of access rules.  [default: all for every known caller]")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond this machine without access control.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with these and the other settings.")
def serve(config: Path | None, **flags: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Serve until SIGTERM or Ctrl-C."""
    chosen = _settings(flags, config)
    try:
        exposed = exposure.problem((addresses.grpc(chosen.listen), addresses.tcp(chosen.http)), chosen.sources)
    except ValueError as error:
        fail(error, USAGE)
    if exposed and not chosen.insecure:
        fail(exposed, USAGE)
    logs.configure(chosen.log_format, chosen.log_level)
    memory.keep_freed()
    try:
        asyncio.run(_run(chosen))
    except (RepositoryError, AccessError, OSError) as error:
        fail(error)


@main.command()
@click.argument("name")
def token(name: str) -> None:
    """Make a token for NAME. Prints the line for the token file, then the token, which is not shown again."""
    if not tokens.is_name(name):
        fail(f"{name!r} is not a valid name, which has {tokens.RULE}", USAGE)
    line, made = tokens.make(name)
    click.echo(f"{line}\n{made}")
    main.say("add the first line to the file of --tokens; the second is the token, which is stored nowhere")


def _settings(flags: dict[str, Any], config: Path | None = None) -> settings.Settings:
    """Load the settings with these flags; exit with a message if they are invalid."""
    try:
        return settings.load({name: value for name, value in flags.items() if value not in (None, ())}, config)
    except ValidationError as error:
        lines = (
            f"{'.'.join(map(str, item['loc']))}: {item['msg']} (seen: {item['input']!r})" for item in error.errors()
        )
        fail("; ".join(lines), USAGE)
    except ValueError as error:
        fail(str(error), USAGE)


async def _run(chosen: settings.Settings) -> None:
    await App(chosen).run()


def _names(text: str) -> list[str]:
    return text.split(",")


@main.command("import")
@click.argument("name")
@click.option("--config", required=True, help="A Detectron2 config, or a path within its model zoo.")
@click.option(
    "--weights",
    required=True,
    type=click.Path(path_type=Path),
    help="A checkpoint, in any format; its content determines it.",
)
@click.option("--repository", required=True, type=click.Path(path_type=Path), help="The model repository to write to.")
@click.option(
    "--classes",
    metavar="A,B",
    type=_names,
    help="Class names, separated by commas.  [default: those of the config's dataset]",
)
@click.option(
    "--stuff-classes", "stuff", metavar="A,B", type=_names, help="Likewise for stuff classes of panoptic models."
)
@click.option("--keypoints", metavar="A,B", type=_names, help="Likewise for keypoints.")
@click.option(
    "--golden", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A folder of golden images."
)
@click.option(
    "--weights-key", metavar="PATH", help="Entry to use in a checkpoint with several, such as ema_state or a.b."
)
@click.option(
    "--strip-prefix",
    "strip_prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Use tensors with this name prefix, and strip it, such as modelTeacher.; repeatable.",
)
@click.option(
    "--ignore-keys",
    multiple=True,
    type=_names,
    metavar="KEYS",
    help="Config keys to drop, separated by commas; none under MODEL or INPUT; repeatable.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    type=kinds.Module(),
    help="A module of the model's project, which will be run.",
)
@click.option("--run-config", is_flag=True, help="Run a config that is a program (a LazyConfig).")
def import_(
    name: str,
    repository: Path,
    golden: Path | None,
    ignore_keys: tuple[list[str], ...],
    **given: Any,  # noqa: ANN401  click passes each option by its name
) -> None:
    """Check a model and write it into a repository as the next version of NAME.

    Runs no code from it except what --plugin and --run-config name.
    """
    from vedette_server.importer import ModelSource, import_model  # imports torch, which serving must not

    if not is_model_name(name):
        fail(f"a model cannot be called {name!r}: its name is a single folder of {RULE}", USAGE)
    warnings.simplefilter("ignore")  # other projects' warnings about their own code
    source = ModelSource(**given, ignore_keys=[key for keys in ignore_keys for key in keys])
    try:
        folder = import_model(repository, name, source, golden, main.say)
    except LoadRefusedError as error:
        commands = [_again(sys.argv[1:], flags) for flags in error.flags[:_MOST_COMMANDS]]
        fail("; or: ".join((f"{error}; try: {commands[0]}", *commands[1:])) if commands else error)
    click.echo(folder)
    if golden is None:
        click.echo("vedette-server: without --golden, no start can verify that the model still works", err=True)


def _again(arguments: Sequence[str], flags: Sequence[str]) -> str:
    """Return the same command with other flags, ready to paste."""
    kept, replaced = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if replaced or (name in _CHOOSING and flags[0] in _CHOOSING):
            replaced = not replaced and not equals
            continue
        kept.append(argument)
    return shlex.join(["vedette-server", *kept, *flags])


def _of_a_version(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a version of a model."""
    path = click.Path(path_type=Path)
    for option in (
        click.option(
            "--plugin",
            "plugins",
            multiple=True,
            metavar="MODULE",
            type=kinds.Module(),
            help="A module that the model may import.",
        ),
        click.option("--repository", type=path, help="The model repository.  [default: the bundled model]"),
        click.option("--version", "number", type=int, help="The version.  [default: the newest]"),
    ):
        command = option(command)
    return command


@main.command("check")
@click.argument("name", metavar="MODEL")
@_of_a_version
@click.option("--device", default="cpu", show_default=True, help="Device for the model, as named by torch.")
@click.option("--save", type=click.Path(path_type=Path), help="Folder for comparisons: expected left, seen right.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def check_(name: str, number: int | None, device: str, save: Path | None, *, as_json: bool, **flags: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Infer the golden images of MODEL now, and compare the answers to the expected ones; exits with 1 if they differ.

    The model runs in this process: no server is needed.
    """
    from vedette_server import check  # imports torch, which serving must not

    chosen = _settings(flags)
    version = repository.find(chosen.repository, name, number, chosen.plugins)
    if not version.golden:
        fail(f"{version.folder} has no golden images: import the model with --golden PICTURES")
    outputs, saved = Outputs(), set[Path]()
    if save:
        for golden in version.golden:
            outputs.reads(version.folder / "golden" / golden.name)
        prepare(save)
    checked = []
    for one in check.check(version, device, chosen.threads_per_worker(1)):
        checked.append(one)
        if as_json:
            click.echo(json.dumps(check.record(one, version)))
        if save:
            saved.add(target := free(save / f"{Path(one.golden.name).stem}.png", saved))
            outputs.write(target, check.drawn(one, version.contract.class_names))
            click.echo(text.line(f"saved {text.name(target)}"), err=True)
    if not as_json:
        check.show(checked, version.contract.class_names)
    sys.exit(0 if all(one.same for one in checked) else FAILURE)


@main.command("export-triton")
@click.argument("name", metavar="MODEL")
@click.option("--out", required=True, type=_FILE, help="Triton's model repository, to write the folder MODEL into.")
@click.option("--env", type=_FILE, help="The virtual environment that Triton runs the model in.  [default: this one]")
@_of_a_version
@click.option("--workers", type=click.IntRange(1, _MOST_INSTANCES), help="Instances per device.  [default: 1]")
@click.option("--threads", type=int, help="Threads per instance.  [default: an equal share of the cores]")
@click.option("--device", help="Devices for the model: cpu, or cuda:0,cuda:1.  [default: cpu]")
@click.option("--config", type=_FILE, help="TOML file of the server's settings, of which these and others hold there.")
def export_triton(
    name: str,
    out: Path,
    env: Path | None,
    number: int | None,
    config: Path | None,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Write a version of MODEL as a model that NVIDIA Triton runs in its Python backend, with the same answers.

    It loads only if it answers its golden images as expected.
    """
    if importlib.util.find_spec("tritonclient") is None:
        fail("the extra triton is not installed: pip install 'vedette[triton]'")
    from vedette_server.triton.export import Placement, export  # imports the extra

    chosen = _settings(flags, config)
    version = repository.find(chosen.repository, name, number, chosen.plugins)
    placement = Placement(
        environment=(env or Path(sys.prefix)).absolute(),
        devices=chosen.devices,
        instances=chosen.workers,
        threads=chosen.threads_per_worker(1),
        golden_seconds=chosen.golden_seconds,
        diagnose_share=chosen.diagnose_share,
    )
    click.echo(text.plain(text.name(export(version, out, placement))))


main.add_command(report)
main.add_command(rules)
main.add_command(dashboards)


def _duration(_context: click.Context, _parameter: click.Parameter, given: str) -> float:
    """Convert a number with a unit to seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", given, re.ASCII)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST_WINDOW:
        msg = f"{given!r} is not a duration of at most a week, such as 30s, 5m or 1h"
        raise click.BadParameter(msg)
    return seconds


@main.command("baseline")
@click.argument("name", metavar="MODEL")
@_of_a_version
@click.option(
    "--from", "servers", multiple=True, metavar="URL", help="A server's HTTP port.  [default: http://127.0.0.1:8002]"
)
@shown.options
@click.option(
    "--window",
    callback=_duration,
    default=duration(limits.WINDOW),
    show_default=True,
    help="Length of a reference window.",
)
@click.option(
    "--windows",
    type=click.IntRange(limits.LEAST_WINDOWS, 100_000),
    default=24,
    show_default=True,
    help="Number of windows.",
)
@click.option(
    "--by-hour",
    is_flag=True,
    help="Also capture the share of empty answers for each hour of the day (UTC) with enough data.",
)
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Use a folder of pictures instead."
)
@click.option("--device", default="cpu", show_default=True, help="Device for the model with --images.")
def baseline_(
    name: str,
    number: int | None,
    servers: tuple[str, ...],
    window: float,
    windows: int,
    images: Path | None,
    device: str,
    *,
    by_hour: bool,
    **flags: Any,  # noqa: ANN401  click passes each option by its name
) -> None:
    """Capture statistics of MODEL's answers in a healthy period, beside the version; servers load them automatically.

    Run it over a period that covers all normal situations, in live traffic or in a folder of pictures.
    """
    from vedette_server import capture  # may load a model, which serving does not do

    chosen = _settings(flags)
    servers = servers or (f"http://{settings.Settings.model_fields['http'].default}",)
    version = repository.find(chosen.repository, name, number, chosen.plugins)
    if images:
        captured = capture.from_pictures(version, images, device, chosen.threads_per_worker(1))
        source, window = f"{len(captured)} groups of the pictures in {images.name}", 0.0
    else:
        captured, source = capture.from_servers(version, servers, window, windows, shown.current()), "live traffic"
    click.echo(capture.write(version, captured, window, source, by_hour=by_hour))


@main.command()
def doctor() -> None:
    """Check that everything the server needs is present; one line per check, with its fix."""
    healthy = True
    for check in checks():
        healthy &= check.passed
        click.echo(text.line(f"{'✔' if check.passed else '✘'} {check.name}: {check.seen}"))
        if not check.passed:
            click.echo(f"    fix: {check.fix}")
    sys.exit(0 if healthy else FAILURE)

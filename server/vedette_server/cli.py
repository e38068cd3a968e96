"""The `vedette-server` command."""

import asyncio
import json
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
_MOST_COMMANDS = 3  # that are suggested
_CHOOSING = ("--weights-key", "--strip-prefix")  # flags that each suggestion gives anew
_LONGEST_WINDOW = 7 * 86_400.0  # seconds


class _VedetteServer(Program):
    def status(self, error: Exception) -> int | None:
        """What is wrong with a model is told by its error."""
        return FAILURE if isinstance(error, LoadRefusedError | RepositoryError) else super().status(error)


@click.group("vedette-server", cls=_VedetteServer, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vedette", prog_name="vedette-server")
def main() -> None:
    """Serve Detectron2 models over gRPC."""


@main.command()
@click.option("--listen", metavar="HOST:PORT", help="Where gRPC is served; or unix:PATH.  [default: 127.0.0.1:8001]")
@click.option("--http", metavar="HOST:PORT", help="Where metrics and health are served.  [default: 127.0.0.1:8002]")
@click.option(
    "--repository", type=click.Path(path_type=Path), help="The model repository.  [default: the bundled model]"
)
@click.option(
    "--plugin", "plugins", multiple=True, metavar="MODULE", type=kinds.Module(), help="A module that models may import."
)
@click.option("--workers", type=int, help="Worker processes for each model version.  [default: 1]")
@click.option("--threads", type=int, help="Threads of each worker.  [default: the cores, shared out]")
@click.option("--device", help="Where models run: cpu, or cuda:0,cuda:1.  [default: cpu]")
@click.option(
    "--poll-seconds", type=kinds.Number(), help="Look for new and removed versions this often.  [default: never]"
)
@click.option(
    "--log-format", type=click.Choice(["console", "json"]), help="How the log is written.  [default: console]"
)
@click.option("--tls-cert", type=_FILE, help="The server's certificates, PEM: gRPC and HTTP speak TLS.")
@click.option("--tls-key", type=_FILE, help="Their key, PEM.")
@click.option("--tls-client-ca", type=_FILE, help="Who calls shows a certificate of this authority's.")
@click.option("--tokens", type=_FILE, help="Who calls shows a token of this file's, which `token` makes lines for.")
@click.option("--jwks", metavar="FILE|URL", type=_WORDS, help="Who calls shows a JWT signed by a key that is there.")
@click.option("--jwt-issuer", type=_WORDS, help="Who makes the JWTs.")
@click.option("--jwt-audience", type=_WORDS, help="For whom they are made.")
@click.option("--jwt-groups", metavar="CLAIM", type=_WORDS, help="Which of their claims has groups.  [default: none]")
@click.option("--policy", type=_FILE, help="A TOML file that says who may do what.  [default: whoever is known, all]")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond this machine whoever may call there.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with these and the other settings.")
def serve(config: Path | None, **flags: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Serve until SIGTERM or Ctrl-C."""
    chosen = _settings(flags, config)
    try:
        exposed = exposure.problem((addresses.grpc(chosen.listen), addresses.tcp(chosen.http)), chosen.sources)
    except ValueError as error:
        fail(error, USAGE)
    if exposed and not chosen.insecure:
        fail(exposed, USAGE)
    logs.configure(chosen.log_format)
    memory.keep_freed()
    try:
        asyncio.run(_run(chosen))
    except (RepositoryError, AccessError, OSError) as error:
        fail(error)


@main.command()
@click.argument("name")
def token(name: str) -> None:
    """Make a token for NAME: prints the line for the file of tokens, and the token, which is shown this once."""
    if not tokens.is_name(name):
        fail(f"nobody can be called {name!r}: a name has {tokens.RULE}", USAGE)
    line, made = tokens.make(name)
    click.echo(f"{line}\n{made}")
    main.say("the first line goes into the file of --tokens; the second is the token, kept nowhere else")


def _settings(flags: dict[str, Any], config: Path | None = None) -> settings.Settings:
    """The settings with these flags; ends the program if they cannot be."""
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
    "--weights", required=True, type=click.Path(path_type=Path), help="A checkpoint: what it is, its bytes say."
)
@click.option("--repository", required=True, type=click.Path(path_type=Path), help="The model repository to write to.")
@click.option("--classes", type=_names, help="Class names, separated by commas.  [default: the config's dataset's]")
@click.option("--stuff-classes", "stuff", type=_names, help="The same for the classes of stuff, of panoptic models.")
@click.option("--keypoints", type=_names, help="The same for keypoints.")
@click.option("--golden", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A folder of pictures.")
@click.option(
    "--weights-key", metavar="PATH", help="The entry to take of a checkpoint with several, such as ema_state or a.b."
)
@click.option(
    "--strip-prefix",
    "strip_prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Take the tensors whose names begin so, without it, such as modelTeacher.; repeatable.",
)
@click.option(
    "--ignore-keys",
    multiple=True,
    type=_names,
    metavar="KEYS",
    help="Leave these keys of the config out, separated by commas: none under MODEL or INPUT; repeatable.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    type=kinds.Module(),
    help="A module of the model's project, which is run.",
)
@click.option("--run-config", is_flag=True, help="Run a config that is a program: a LazyConfig.")
def import_(
    name: str,
    repository: Path,
    golden: Path | None,
    ignore_keys: tuple[list[str], ...],
    **given: Any,  # noqa: ANN401  click passes each option by its name
) -> None:
    """Check a model and write it into a repository as the next version of NAME.

    Nothing in it is run, but what --plugin and --run-config name.
    """
    from vedette_server.importer import ModelSource, import_model  # imports torch, which serving must not

    if not is_model_name(name):
        fail(f"a model cannot be called {name!r}: its name is one folder's, of {RULE}", USAGE)
    warnings.simplefilter("ignore")  # other people's, about their own code
    source = ModelSource(**given, ignore_keys=[key for keys in ignore_keys for key in keys])
    try:
        folder = import_model(repository, name, source, golden, main.say)
    except LoadRefusedError as error:
        commands = [_again(sys.argv[1:], flags) for flags in error.flags[:_MOST_COMMANDS]]
        fail("; or: ".join((f"{error}; try: {commands[0]}", *commands[1:])) if commands else error)
    click.echo(folder)
    if golden is None:
        click.echo("vedette-server: without --golden, nothing proves at each start that the model still sees", err=True)


def _again(arguments: Sequence[str], flags: Sequence[str]) -> str:
    """The same command with other flags, to be pasted."""
    kept, replaced = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if replaced or (name in _CHOOSING and flags[0] in _CHOOSING):
            replaced = not replaced and not equals
            continue
        kept.append(argument)
    return shlex.join(["vedette-server", *kept, *flags])


@main.command("check")
@click.argument("name", metavar="MODEL")
@click.option("--version", "number", type=int, help="The version.  [default: the newest]")
@click.option(
    "--repository", type=click.Path(path_type=Path), help="The model repository.  [default: the bundled model]"
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    type=kinds.Module(),
    help="A module that the model may import.",
)
@click.option("--device", default="cpu", show_default=True, help="Where the model runs, as torch names it.")
@click.option("--save", type=click.Path(path_type=Path), help="Save each picture, expected left, seen right, here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def check_(name: str, number: int | None, device: str, save: Path | None, *, as_json: bool, **flags: Any) -> None:  # noqa: ANN401  click passes each option by its name
    """Infer the golden images of MODEL now, and show what was expected beside what is seen; exits with 1 if it differs.

    The model runs in this process: no server is asked, and none is needed.
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


main.add_command(report)
main.add_command(rules)
main.add_command(dashboards)


def _duration(_context: click.Context, _parameter: click.Parameter, given: str) -> float:
    """Seconds, of a number with a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", given, re.ASCII)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST_WINDOW:
        msg = f"{given!r} is not a duration of at most a week, such as 30s, 5m or 1h"
        raise click.BadParameter(msg)
    return seconds


@main.command("baseline")
@click.argument("name", metavar="MODEL")
@click.option("--version", "number", type=int, help="The version.  [default: the newest]")
@click.option(
    "--repository", type=click.Path(path_type=Path), help="The model repository.  [default: the bundled model]"
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    type=kinds.Module(),
    help="A module that the model may import.",
)
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
    help="How many of them.",
)
@click.option(
    "--by-hour", is_flag=True, help="Also how much is empty at each hour of the day (UTC) that has enough of its own."
)
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A folder of pictures instead."
)
@click.option("--device", default="cpu", show_default=True, help="Where the model runs for --images.")
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
    """Capture what the answers of MODEL look like while all is well, beside the version; servers notice it themselves.

    Run it over a period that shows everything that is honest: of traffic, or of pictures in a folder.
    """
    from vedette_server import baseline  # may load a model, which serving does not do

    chosen = _settings(flags)
    servers = servers or (f"http://{settings.Settings.model_fields['http'].default}",)
    version = repository.find(chosen.repository, name, number, chosen.plugins)
    if images:
        captured = baseline.from_pictures(version, images, device, chosen.threads_per_worker(1))
        source, window = f"{len(captured)} groups of the pictures in {images.name}", 0.0
    else:
        captured, source = baseline.from_servers(version, servers, window, windows, shown.current()), "live traffic"
    click.echo(baseline.write(version, captured, window, source, by_hour=by_hour))


@main.command()
def doctor() -> None:
    """Check that everything the server needs is there; one line for each check, with its fix."""
    healthy = True
    for check in checks():
        healthy &= check.passed
        click.echo(text.line(f"{'✔' if check.passed else '✘'} {check.name}: {check.seen}"))
        if not check.passed:
            click.echo(f"    fix: {check.fix}")
    sys.exit(0 if healthy else FAILURE)

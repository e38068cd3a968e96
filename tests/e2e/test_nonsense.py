"""Every command and every option, found by looking, given nonsense: a line, an exit code, and never a traceback."""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from PIL import Image
from vedette_client.cli import main as vedette
from vedette_server import cli as server_cli
from vedette_server import logs
from vedette_server.cli import main as vedette_server
from vedette_server.demo import clips, scenes
from vedette_server.pool import memory

from tests.support import commands, running

PROGRAMS: tuple[click.Group, ...] = (vedette, vedette_server)
NOWHERE = "127.0.0.1:9"
HUGE = 5 * 2**30  # bytes, of a file that takes no room

# What each command needs, so that one option alone is nonsense; {…} are files. A new command must be added here.
SOUND: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("vedette", "detect"): (["{picture}"], []),
    ("vedette", "diagnose"): (["{picture}"], ["--server", NOWHERE]),
    ("vedette", "stream"): (["{clip}"], []),
    ("vedette", "compare"): (["{picture}"], ["--config", "no/such.yaml", "--weights", "none.pth"]),
    ("vedette", "models"): ([], []),
    ("vedette", "contract"): (["roadsigns"], []),
    ("vedette", "health"): ([], []),
    ("vedette-server", "serve"): ([], []),
    ("vedette-server", "import"): (
        ["signs"],
        ["--config", "no/such.yaml", "--weights", "none.pth", "--repository", "{folder}/models"],
    ),
    ("vedette-server", "check"): (["nobody"], []),
    ("vedette-server", "baseline"): (["nobody"], []),
    ("vedette-server", "doctor"): ([], []),
    ("vedette-server", "token"): (["somebody"], []),
    ("vedette-server", "export-triton"): (["roadsigns"], ["--out", "{folder}/triton"]),
    ("vedette-server", "report"): ([], ["--scrape", "{page}", "--out", "{folder}/report.html"]),
    ("vedette-server", "rules"): ([], ["--out", "{folder}/rules"]),
    ("vedette-server", "dashboards"): ([], ["--out", "{folder}/dashboards"]),
}
# The same where one option excludes another, or is looked at only if the rest holds.
ALSO: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("vedette-server", "baseline"): (["roadsigns"], ["--from", f"http://{NOWHERE}"]),
    ("vedette-server", "report"): ([], ["--from", f"http://{NOWHERE}", "--out", "{folder}/report.html"]),
}
NONSENSE = (
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "0.5",
        "1e400",
        "9" * 20,
        "x" * 5000,
        "é",
        "[/red]",
        "\x1b[31m",
        "a\nb",
    ),
    *(
        "\udcff",
        "no/such",
        "no/such.mp4",
        "http://127.0.0.1:9",
        "127.0.0.1:99999",
        "unix:/none",
        "/dev/null",
        "/dev/full",
    ),
    *("{empty}", "{binary}", "{huge}", "{folder}", "{picture}"),
)
LASTING = ("/dev/zero", "-", "*")  # for what takes files: what does not end, what is not there, what matches all


def every() -> Iterator[tuple[click.Group, str, click.Command]]:
    """Each program with each of its commands."""
    for program in PROGRAMS:
        yield from ((program, name, command) for name, command in program.commands.items())


EVERY = {f"{program.name} {name}": (program, name, command) for program, name, command in every()}


def test_every_command_is_known_here() -> None:
    assert {(program.name, name) for program, name, _ in every()} == set(SOUND)


@pytest.fixture
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files to give to a command, which may write over what it is told to write to."""
    folder = tmp_path_factory.mktemp("files")
    paths = {name: folder / name for name in ("empty", "binary", "huge", "picture", "page", "clip.mp4", "folder")}
    paths["folder"].mkdir()
    paths["empty"].touch()
    paths["binary"].write_bytes(random.Random(1).randbytes(4000))  # noqa: S311  no secret
    with paths["huge"].open("wb") as file:
        file.truncate(HUGE)
    Image.fromarray(scenes.draw(scenes.describe(3_000_023)).pixels).save(paths["picture"], "PNG")
    paths["page"].write_text('vedette_build_info{release="0.1.0"} 1\n')
    clips.write(scenes.Clip(seed=3_000_001, frames=2), paths["clip.mp4"])
    return {name.partition(".")[0]: str(path) for name, path in paths.items()}


@pytest.fixture
def here(
    bundled: running.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> dict[str, str]:
    """A folder to work in, a server to ask, and nothing to be served."""

    async def served(_chosen: Any) -> None:
        pass

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VEDETTE_SERVER", bundled.address)
    monkeypatch.setattr(server_cli, "_run", served)
    monkeypatch.delenv("VEDETTE_CONFIG", raising=False)
    monkeypatch.setattr(logs, "configure", lambda *_chosen: None)
    monkeypatch.setattr(memory, "keep_freed", lambda: None)
    return {**files, "folder": str(tmp_path / "folder")}


def nonsense(command: click.Command, positional: list[str], options: list[str]) -> Iterator[list[str]]:
    """Command lines that are sound but for one thing."""
    for parameter in command.params:
        takes_files = isinstance(parameter.type, click.Path) or parameter.name in ("image", "images", "source")
        for value in (*NONSENSE, *(LASTING if takes_files else ())):
            if isinstance(parameter, click.Argument):
                yield [*options, "--", value]
            elif isinstance(parameter, click.Option) and not parameter.is_flag:
                yield [*positional, *options, parameter.opts[0], value]
        if isinstance(parameter, click.Option):
            yield [*positional, *options, parameter.opts[0] + ("=yes" if parameter.is_flag else "")]
    yield from ([*positional, *options, flag] for flag in ("--no-such-flag", "-9", "--", "one-more"))
    yield from ([], positional, options)


def is_in_order(program: str, status: int, out: str, err: str) -> str:
    """The fault in the end of a command; empty if it is in order."""
    known = {0, 1, 2, 130, 143, *range(65, 81)}
    if status not in known:
        return f"exit code {status}"
    if any(word in out + err for word in ("Traceback", "unexpected:", "\x1b", "Error in", "Exception ignored")):
        return "not in our words"
    lines = [line for line in err.splitlines() if not re.match(r"saved |\d+ frames: ", line)]
    if status not in (0, 1) and not lines:
        return "no word of why"
    if "Usage: " not in err and not all(line.startswith(f"{program}: ") for line in lines):
        return "a line of somebody else"
    return ""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EVERY)
def test_nonsense_is_told_in_a_line(name: str, here: dict[str, str]) -> None:
    program, subcommand, command = EVERY[name]
    bases = [table[key] for table in (SOUND, ALSO) if (key := (str(program.name), subcommand)) in table]
    wrong = []
    for number, words in enumerate(itertools.chain(*(nonsense(command, *base) for base in bases))):
        folder = Path(here["folder"]).with_name(f"folder{number}")
        folder.mkdir()
        given = {**here, "folder": str(folder)}
        line = [subcommand] + [word.format(**given) if "{" in word else word for word in words]
        began = time.monotonic()
        ran = CliRunner().invoke(program, line, input=b"")
        said = is_in_order(str(program.name), ran.exit_code, ran.stdout, ran.stderr)
        if ran.exception and not isinstance(ran.exception, SystemExit):
            said = repr(ran.exception)
        if time.monotonic() - began > 60:
            said += f" after {time.monotonic() - began:.0f} s"
        if said:
            shown = " ".join(word if len(word) < 80 else "…" for word in line)
            wrong.append(f"{shown!r}: {said}: {ran.stdout[-300:]!r} {ran.stderr[-600:]!r}")
    assert not wrong, "\n".join(wrong)


ASKING = [name for name, command in vedette.commands.items() if any("--server" in one.opts for one in command.params)]


NOT_AN_ADDRESS = "127.0.0.1:99999"


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        *(([name, "--server", NOT_AN_ADDRESS], {}) for name in ASKING),
        (["models"], {"VEDETTE_SERVER": NOT_AN_ADDRESS}),
    ],
    ids=[*ASKING, "by variable"],
)
def test_a_server_without_a_valid_address_is_wrong_usage(words: list[str], variables: dict[str, str]) -> None:
    ran = CliRunner().invoke(vedette, words, env=variables)
    assert ran.exit_code == 2
    assert ran.stderr.startswith("vedette: Invalid value for '--server'")
    assert f"'{NOT_AN_ADDRESS}' is not a server's address: its port 99999 is not from 1 to 65535; try" in ran.stderr


ODD = {"LC_ALL": "C", "LANG": "C", "COLUMNS": "20", "LINES": "1", "NO_COLOR": "1", "TERM": "dumb"}


def real(name: str, given: dict[str, str]) -> tuple[str, list[str]]:
    """The entry point, and a command line that does something."""
    program, subcommand, _ = EVERY[name]
    positional, options = SOUND[str(program.name), subcommand]
    line = [subcommand, *positional, *options]
    which = commands.CLIENT if program is vedette else commands.SERVER
    return which, [word.format(**given) if "{" in word else word for word in line]


@pytest.mark.parametrize("name", EVERY)
def test_streams_that_are_closed_or_full_are_nobodys_traceback(name: str, here: dict[str, str]) -> None:
    """Standard input and output are closed, on a terminal of twenty columns that knows ASCII; then output is full."""
    which, line = real(name, here)
    if name == "vedette-server serve":
        line += ["--repository", "no/such"]
    Path(here["folder"]).mkdir()
    entry = f"from vedette_commands.start import {which}; {which}()"
    environment = {**os.environ, **ODD}
    for redirected in ("<&- >&-", "< /dev/null > /dev/full"):
        command = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-c", entry, *line]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=False, timeout=120)
        said = is_in_order(name.split(maxsplit=1)[0], ran.returncode, "", ran.stderr)
        assert not said, (redirected, ran.stderr)
    with_results = ("vedette detect", "vedette models", "vedette contract", "vedette health", "vedette-server doctor")
    if name in with_results:
        assert ran.returncode == 1
        assert ran.stderr == f"{name.split(maxsplit=1)[0]}: cannot write: No space left on device\n"


@pytest.mark.parametrize("name", EVERY)
def test_a_signal_at_any_time_is_no_traceback(name: str, here: dict[str, str]) -> None:
    which, line = real(name, here)
    if name == "vedette-server serve":
        line += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    Path(here["folder"]).mkdir()
    chosen = random.Random(name)  # noqa: S311  no secret
    for number, latest in itertools.product((signal.SIGINT, signal.SIGTERM), (0.4, 2.0)):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with commands.start(which, *line, **pipes) as process:
            time.sleep(chosen.uniform(0.1, latest))
            process.send_signal(number)
            _, err = process.communicate(timeout=running.PATIENCE)
        told = [line for line in err.decode().splitlines() if not line.startswith("saved ")]
        assert "Traceback" not in err.decode(), (number, err)
        assert process.returncode in {*range(3), *range(65, 81), 128 + number, -number}, (number, err)
        if name != "vedette-server serve":  # which has a log
            assert len(told) <= 1, (number, err)

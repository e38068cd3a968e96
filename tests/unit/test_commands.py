"""The common part of the commands: text that controls no terminal, honest options, orderly ends."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from vedette_commands import kinds, text
from vedette_commands.program import Program


@pytest.mark.parametrize(("given", "shown"), [
    ("street [occluded] :smile: é 東京 a\u202fb", "street [occluded] :smile: é 東京 a\u202fb"),
    ("\x1b[31mred\x07\x9b", r"\x1b[31mred\x07\u009b"),
    ("a\nb\tc\r", r"a\nb\tc\r"),
    ("\udcff\ud800", r"\xff\ud800"),
    ("gnp.\u202egpj.exe", r"gnp.\u202egpj.exe"),
])  # fmt: skip
def test_text_is_shown_as_it_is_but_for_what_moves_the_cursor(given: str, shown: str) -> None:
    assert text.plain(given) == shown


def test_a_table_takes_text_for_text_and_cuts_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    table = text.table("class [/x]", "of")
    text.row(table, "person [occluded]", "[/red] :smile: " + "wide " * 100)
    text.show(table)
    shown = capsys.readouterr().out
    assert "person [occluded]" in shown
    assert ("wide " * 100).strip() in shown
    assert "[/red] :smile: " in shown
    assert "class [/x]" in shown


@pytest.mark.parametrize(("kind", "given"), [
    *((kinds.Number(), word) for word in ("nan", "inf", "-inf", "1e400", "", "one")),
    (kinds.Number(above=0), "0"),
    (kinds.Number(most=5), "6"),
    (kinds.Words(), "\udcff"),
    *((kinds.Module(), word) for word in ("", ".", "a..b", "a-b", "a b", "/etc/passwd", "1a")),
    *((kinds.Listed(), word) for word in ("", ",", "a,,b")),
    (kinds.Listed(("a", "b")), "a,c"),
])  # fmt: skip
def test_what_an_option_does_not_take_is_refused(kind: click.ParamType, given: str) -> None:  # type: ignore[type-arg]  # generic in some versions of click
    with pytest.raises(click.BadParameter):
        kind.convert(given, None, None)


def test_what_an_option_takes_is_what_it_says() -> None:
    assert kinds.Number(above=0, most=1)("1e-3") == 0.001
    assert kinds.Module()("project.heads") == "project.heads"
    assert kinds.Listed()(" a , b") == ("a", "b")


@pytest.mark.parametrize(("error", "status", "said"), [
    (OSError(28, "No space left on device"), 1, "cannot write: No space left on device"),
    (OSError(2, "No such file or directory", "a\x1bb"), 1, r"a\x1bb: No such file or directory"),
    (OSError("cannot listen"), 1, "cannot listen"),
    (MemoryError(), 1, "out of memory"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (KeyError("x"), 1, "unexpected: KeyError: 'x' (a bug; VEDETTE_TRACEBACK=1 shows where)"),
    (click.UsageError("a\nb"), 2, "a b (see 'it fail --help')"),
])  # fmt: skip
def test_whatever_ends_a_command_is_a_line(error: BaseException, status: int, said: str) -> None:
    @click.group("it", cls=Program)
    def program() -> None:
        pass

    @program.command()
    def fail() -> None:
        raise error

    ran = CliRunner().invoke(program, ["fail"])
    assert (ran.exit_code, ran.stdout, ran.stderr) == (status, "", f"it: {said}\n")


def test_a_bug_is_shown_to_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.group("it", cls=Program)
    def program() -> None:
        pass

    @program.command()
    def fail() -> None:
        raise KeyError

    monkeypatch.setenv("VEDETTE_TRACEBACK", "1")
    assert "Traceback" in CliRunner().invoke(program, ["fail"]).stderr


LAST = """
import atexit, gc, sys
# Runs after those that come later.
atexit.register(lambda: print(gc.get_freeze_count() > 0, gc.isenabled(), file=sys.stderr))
from vedette_commands.start import {entry}
sys.argv = ["it", "--version"]
{entry}()
"""


@pytest.mark.parametrize("entry", ["client", "server"])
def test_no_garbage_is_searched_for_at_the_end(entry: str) -> None:
    ran = subprocess.run([sys.executable, "-c", LAST.format(entry=entry)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "True True\n")

"""The commands as a page for users, from what their --help says, written by `make docs`; a test compares the two.

Give the commands as `MODULE:NAME`: this package knows neither.
"""

import pkgutil
import sys
from collections.abc import Iterator

import click

_HEAD = """\
# Commands

`vedette` calls a server, `vedette-server` is one and looks after its models. Results go to standard output, everything
else to standard error.

| exit status | of |
| --- | --- |
| 0 | success |
| 1 | a local failure; a model that does not answer (`health`), or any difference (`compare`, `check`) |
| 2 | wrong usage |
| 64 plus the number of a gRPC code | a failed call; of several, the first |
| 130, 143, 141 | Ctrl-C, SIGTERM, and a reader of the results that is gone, as with `head` |

`make docs` writes this page from what `--help` says.
"""
_COLUMNS = ("option", "variable", "meaning")


def page(commands: list[click.Group]) -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(section for group in commands for section in _sections(group))


def _sections(group: click.Group) -> Iterator[str]:
    for name, command in group.commands.items():
        full = f"{group.name} {name}"
        context = click.Context(command, info_name=full)
        usage = " ".join([full, *command.collect_usage_pieces(context)])
        told = " ".join((command.help or "").split())
        yield f"\n## {full}\n\n```text\n{usage}\n```\n\n{told}\n{_table(command, context)}"


def _table(command: click.Command, context: click.Context) -> str:
    rows = [
        (f"`{record[0]}`", f"`{option.envvar}`" if option.envvar else "", record[1].replace("  [", " ["))
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context))
    ]
    if not rows:
        return ""
    lines = (" | ".join(cell.replace("|", r"\|") for cell in line) for line in (_COLUMNS, ("---",) * 3, *rows))
    return "\n" + "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    print(page([pkgutil.resolve_name(name) for name in sys.argv[1:]]), end="")

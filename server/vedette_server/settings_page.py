"""The settings as a page for users, written by `make docs` from their docstrings; a test compares the two."""

import click

from vedette_server import cli, docstrings
from vedette_server.environment import PREFIX
from vedette_server.settings import BUNDLED_REPOSITORY, Settings

_HEAD = f"""\
# Settings

Every setting is a variable of the environment, `{PREFIX}` and its name in capitals, and a key of the TOML file that
`--config` or `{PREFIX}CONFIG` names. Many are also a flag of `vedette-server serve`. Flags override variables,
variables override the file, the file overrides the defaults. An unknown key, flag or variable is an error.

In a variable, a list is JSON: `{PREFIX}PLUGINS=[\"one\", \"two\"]`.

`make docs` writes this page from `vedette_server/settings.py`.

| setting | flag | default | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """Return the page as Markdown."""
    flags = {option.name: option.opts[0] for option in cli.serve.params if isinstance(option, click.Option)}
    rows = (
        (f"`{name}`", f"`{flags[name]}`" if name in flags else "", _default(name), meaning)
        for name, meaning in docstrings.of_fields(Settings).items()
    )
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _default(name: str) -> str:
    match Settings.model_fields[name].default:
        case None | "" | ():
            return "unset"
        case bool(value):
            return f"`{str(value).lower()}`"
        case path if path == BUNDLED_REPOSITORY:
            return "bundled"
        case value:
            return f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")

"""`vedette-server rules`: the alert pack, rendered with its parameters as flags."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from vedette_commands import kinds, text
from vedette_commands.outputs import Outputs

from vedette_server import docstrings
from vedette_server.alerts.parts import Parameters, seconds
from vedette_server.alerts.render import FILE, TIMES, flag, render, shown

_KINDS = {str: kinds.Words(), float: kinds.Number()}


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401  as click has it
        try:
            return value if isinstance(value, float | int) else seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _options(command: click.Command) -> click.Command:
    meanings = docstrings.of_fields(Parameters)
    for field in fields(Parameters):
        kind = _Seconds() if field.name in TIMES else _KINDS.get(type(field.default), type(field.default))
        default, meaning = shown(field.name, field.default), meanings[field.name]
        command.params.append(
            click.Option([flag(field.name)], type=kind, default=default, show_default=True, help=meaning)
        )
    return command


@_options
@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to.")
def rules(out: Path, **chosen: Any) -> None:  # noqa: ANN401  the parameters, by their names
    """Write the alerting rules for Prometheus, with windows of your choice, as vedette.rules.yml into a folder."""
    try:
        rendered = render(Parameters(**chosen))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(text.plain(text.name(Outputs().write(out / FILE, rendered.encode()))))

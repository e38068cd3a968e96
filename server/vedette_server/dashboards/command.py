"""`vedette-server dashboards`: what Grafana reads, from code."""

from pathlib import Path

import click
from vedette_commands import text
from vedette_commands.outputs import Outputs
from vedette_commands.program import fail

_SDK = "grafana_foundation_sdk"


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to.")
def dashboards(out: Path) -> None:
    """Write the dashboards for Grafana into a folder, one file each."""
    outputs = Outputs()
    for name, rendered in _rendered().items():
        click.echo(text.plain(text.name(outputs.write(out / f"{name}.json", rendered.encode()))))


def _rendered() -> dict[str, str]:
    try:
        from vedette_server.dashboards.render import render  # needs the SDK, which no other command does
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(_SDK):
            raise
        fail("Grafana's SDK is not installed: python -m pip install 'vedette[dashboards]'")
    return render()

"""Write the dashboards, from code to what Grafana reads.

    python deploy/grafana/dashboards.py [--out deploy/grafana/dashboards]

The files are committed: whoever has Grafana needs none of this. A test holds them equal to the code.
"""

import json
from pathlib import Path

import click
import fleet
import serving
import stream
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from vedette_commands.outputs import Outputs
from vedette_commands.program import Single

HERE = Path(__file__).parent
DASHBOARDS = {"fleet": fleet, "stream": stream, "serving": serving}


@click.command("dashboards", cls=Single, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "dashboards", help="The folder to write to.")
def main(out: Path) -> None:
    """Write one file for each dashboard."""
    outputs = Outputs()
    for name, module in DASHBOARDS.items():
        text = json.dumps(module.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        outputs.write(out / f"{name}.json", f"{text}\n".encode())
        click.echo(out / f"{name}.json")


if __name__ == "__main__":
    main()

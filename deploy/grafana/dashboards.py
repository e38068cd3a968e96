"""Write the dashboards, from code to what Grafana reads.

    python deploy/grafana/dashboards.py [--out deploy/grafana/dashboards]

The files are committed: whoever has Grafana needs none of this. A test holds them equal to the code.
"""

import argparse
import json
from pathlib import Path

import fleet
import serving
import stream
from grafana_foundation_sdk.cog.encoder import JSONEncoder

HERE = Path(__file__).parent
DASHBOARDS = {"fleet": fleet, "stream": stream, "serving": serving}


def main() -> None:
    """Write one file for each dashboard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "dashboards")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, module in DASHBOARDS.items():
        text = json.dumps(module.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        (arguments.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(arguments.out / f"{name}.json")


if __name__ == "__main__":
    main()

"""The dashboards as the files that Grafana reads."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from vedette_server.dashboards import fleet, serving, stream

DASHBOARDS = {"fleet": fleet, "stream": stream, "serving": serving}


def render() -> dict[str, str]:
    """Each dashboard as JSON, by its name."""
    return {
        name: json.dumps(module.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, module in DASHBOARDS.items()
    }

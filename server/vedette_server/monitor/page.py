"""The metrics as a page for users, written by `make docs` from the families themselves; a test compares the two."""

from collections.abc import Sequence

from prometheus_client.metrics_core import Metric

from vedette_server.monitor.answers import MOST_CLASSES
from vedette_server.monitor.metrics import Metrics
from vedette_server.monitor.serving import SECONDS
from vedette_server.monitor.streams import IDLE_SECONDS, MOST, OTHER, UNNAMED

_HEAD = f"""\
# Metrics

`/metrics` on the HTTP port has these families. A histogram has samples that end in `_bucket`, `_sum` and `_count`, a
summary has the last two. Histograms of seconds have the buckets {", ".join(f"{edge:g}" for edge in SECONDS)}.

- `stream` is the caller's name of a stream, and empty for single images. A stream without a name is `{UNNAMED}`.
- Beyond {MOST} streams, and beyond {MOST_CLASSES} classes of a version, the label is `{OTHER}`.
- The series of a version go when it is unloaded, those of a stream after {IDLE_SECONDS / 3600:g} hours without a frame.
- One scrape has it all: workers report to the gateway, which alone has metrics.

The setting `triton_metrics` adds `nv_inference_*`, with Triton's names and units. [Alerts](alerts.md) has the rules
that read these metrics.

`make docs` writes this page from the families in `vedette_server/monitor/`.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_row(family, labels) for family, labels in Metrics().described())


def _row(family: Metric, labels: Sequence[str]) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    told = family.documentation.replace("|", r"\|")
    return f"| `{name}` | {family.type} | {', '.join(f'`{label}`' for label in labels)} | {told} |\n"


if __name__ == "__main__":
    print(page(), end="")

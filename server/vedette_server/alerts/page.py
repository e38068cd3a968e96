"""The parts of the statistics page that the tables fill: `make docs` writes them, and a test compares them.

Everything else there is written by hand, or by what measures it. A part goes from a comment with its name to the next
empty line.
"""

import re
import sys
from pathlib import Path

from vedette_server.alerts import limits
from vedette_server.alerts.inputs import INPUTS
from vedette_server.alerts.parts import duration

_BEFORE = """\
| statistic | what it is | of | over | why it is there |
| --- | --- | --- | --- | --- |
| `empty` | share of answers without a detection | model, stream | window | the silence itself; with the reason of \
each empty answer, since a share alone cannot tell quiet from silenced |
| `score_distance` | Kolmogorov-Smirnov distance between the detections' scores and the baseline's | model | long \
window | a model that is less sure than it was, before it falls silent |
| `class_distance` | total variation distance between the mix of classes and the baseline's: half the sum of the \
shares' differences | model | long window | names in another order, a class that is lost: nothing need be empty |
"""
_AFTER = """\
| class silence | detections of a class, held against its share of all detections in the baseline | class | long \
window | one class lost; reckoned from the detections that there are, so that a road without signs silences no class |
| presence | share of the reference windows in which a class was seen at all | class | the reference | who was rare in \
the reference is missed by nobody |
"""
_WINDOWS = f"""\
The window is {duration(limits.WINDOW)}, the long one {duration(limits.LONG)}: parameters of `vedette-server rules`.
"""
_MARGINS = f"""\
An input statistic must be beyond its limits by a margin: {limits.MARGIN:g} of the distance between them, and at least
{", ".join(f"{one.margin:g} ({name})" for name, one in INPUTS.items())}.
A picture is flat only where its contrast is below {limits.FLAT:g} of the lower limit, too.
How long a condition must hold is in the alert's runbook. Where a cause is known that touches {limits.KNOWN:.0%} of the
model's answers, or was within the long window, distances, quiet and class silence are its effect and ring nothing.
"""
_LEAST = f"""\
- {limits.LEAST_ANSWERS} answers in a window for a share or a mean of it, {limits.LEAST_WINDOWS} such windows for
  limits. A stream with fewer has none of its own.
- {limits.LEAST_DETECTIONS} detections for a distance: windows of the reference are joined until they hold as many, and
  the rules say nothing below it. Distances between small samples are large for no other reason than being small. The
  limits of distances are those of such joined windows, and a reference with thin nights makes them wide: they see a
  model that changes, not one that wavers.
- {limits.LEAST_EXPECTED} expected detections in the long window, and a presence of {limits.LEAST_PRESENT}, for a class
  to be missed.
"""

_ROWS = "".join(f"| `{name}` | {one.what} | model, stream | window | {one.why} |\n" for name, one in INPUTS.items())
_PARTS = {"statistics": _BEFORE + _ROWS + _AFTER, "windows": _WINDOWS, "margins": _MARGINS, "least": _LEAST}


def written(page: str) -> str:
    """The page, with the parts that the tables say."""
    for name, part in _PARTS.items():
        marker = f"<!-- {name} -->\n"
        before, after = page.split(marker)
        page = before + marker + part + re.sub(r"\A(.+\n)*", "", after)
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text()))

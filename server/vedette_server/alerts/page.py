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
| `empty` | share of answers without a detection | model, stream | window | the silence itself, with the reason of \
each empty answer, because a share alone cannot distinguish quiet from silenced |
| `score_distance` | Kolmogorov-Smirnov distance between the detections' scores and the baseline's | model | long \
window | a model that is less certain than it was, before it falls silent |
| `class_distance` | total variation distance between the mix of classes and the baseline's: half the sum of the \
shares' differences | model | long window | names in another order, a lost class; answers need not be empty |
"""
_AFTER = """\
| class silence | detections of a class, compared with its share of all detections in the baseline | class | long \
window | one lost class; expected from the present detections, so that a road without signs silences no class |
| presence | share of the reference windows in which a class was detected at all | class | the reference | classes \
that were rare in the reference never trigger this alert |
"""
_WINDOWS = f"""\
The window is {duration(limits.WINDOW)}, the long window {duration(limits.LONG)}. Both are parameters of
`vedette-server rules`.
"""
_MARGINS = f"""\
An input statistic must exceed its limits by a margin: {limits.MARGIN:g} of the distance between them, and at least
{", ".join(f"{one.margin:g} ({name})" for name, one in INPUTS.items())}.
A picture is flat only if its contrast is also below {limits.FLAT:g} of the lower limit.
The alert's runbook says how long a condition must hold. Distances, quiet and class silence can be the effect of a known
cause. They fire nothing while such a cause affects {limits.KNOWN:.0%} of the model's answers, or did within the long
window.
"""
_LEAST = f"""\
- A share or a mean of a window needs {limits.LEAST_ANSWERS} answers, and limits need {limits.LEAST_WINDOWS} such
  windows. A stream with fewer has no limits of its own.
- A distance needs {limits.LEAST_DETECTIONS} detections: windows of the reference are joined until they hold as many,
  and the rules ignore smaller samples. Distances between small samples are large only because the samples are small.
  The limits of distances come from such joined windows. A reference with thin nights makes them wide: they detect a
  model that changes, not one that wavers.
- A class counts as missing only from {limits.LEAST_EXPECTED} expected detections in the long window on, with a presence
  of {limits.LEAST_PRESENT}.
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

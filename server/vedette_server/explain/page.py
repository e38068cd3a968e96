"""The list of findings as a page for users, written by `make docs`; a test compares it to the list."""

from vedette_server.explain.findings import FINDINGS, OF_MISTAKE, Code

_HEAD = """\
# Findings

Every empty answer carries at least one finding: the reason, its confidence (`CERTAIN`: measured, `LIKELY`: the evidence
leaves little else, `SUSPECTED`: other readings are possible), the evidence, and the remedy. The first finding is the
primary reason. A suspicious answer may carry some even if it is not empty. Quiet is the default: if nothing else is
recognised, an empty answer is a `QUIET_SCENE`, with the best candidate as evidence.

Most findings come from observations of the model's own stages on the image. Some only show on a feed. When a stream, or
single images as a whole, are empty more often than usual, the server examines a frame by itself, as `vedette diagnose`
does. It then tests the mistake whose undoing restores detections on the following frames. A confirmed mistake appears
in that feed's answers, in the log (`cause_suspected`) and in the metric `vedette_suspected_cause`, until it is cleared.

Whatever is normal for a version is not evidence. A finding on the pixels of its golden images is not reported for other
images, unless its confidence is higher on those. A model for documents, with white pages as golden images, never
reports a page as saturated, but it does report a frame that holds nothing at all. A statistic within the limits of the
version's baseline lowers the findings based on it to `SUSPECTED`. A model that passes its golden images does not have a
random head.

`make docs` writes this page from the list in `vedette_server/explain/findings.py`.
"""


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_section(code) for code in FINDINGS)


def _section(code: Code) -> str:
    row = FINDINGS[code]
    mistakes = [f"`{mistake}` (the image {words})" for mistake, (found, words) in OF_MISTAKE.items() if found is code]
    tried = f" Diagnose tries it as {', '.join(mistakes)}." if mistakes else ""
    return f"\n## {code}\n\n{row.meaning} {row.recognised}{tried}\n\nWhat to do: {row.remedy}\n"


if __name__ == "__main__":
    print(page(), end="")

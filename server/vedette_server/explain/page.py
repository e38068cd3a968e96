"""The list of findings as a page for users: `make docs` writes it, a test holds it to the list."""

from vedette_server.explain.findings import FINDINGS, OF_MISTAKE, Code

_HEAD = """\
# Findings

Every empty answer carries at least one finding: why there is no detection, how sure that is (`CERTAIN`: measured,
`LIKELY`: the evidence leaves little else, `SUSPECTED`: it could be read otherwise), what was seen, and what to do. The
first is the primary reason. A suspicious answer that is not empty may carry some too. Quiet is the default: where
nothing was recognised, an empty answer is a `QUIET_SCENE`, with the best candidate as evidence.

Most are told by what the model's own stages have seen of this very image. Some show on a feed only: when a stream, or
the images that come one by one, go empty beyond their usual rate, the server looks into a frame by itself, as `vedette
diagnose` does, and puts what brings detections back on trial on the frames that follow. What is convicted is named in
that feed's answers, in the log (`cause_suspected`) and by the metric `vedette_suspected_cause`, until it is cleared.

What is usual accuses nobody. What would be said of the pixels of a version's golden images is not said of others,
unless it is surer there: a model for documents whose golden images are white pages never calls a page blinded, and
still calls a frame so in which nothing is left. A statistic that lies within the limits of the version's baseline
lowers what it speaks for to `SUSPECTED`. A model that finds in its golden images what it must has no random head.

This page is written by `make docs` from the list in `vedette_server/explain/findings.py`.
"""


def page() -> str:
    """The page, as Markdown."""
    return _HEAD + "".join(_section(code) for code in FINDINGS)


def _section(code: Code) -> str:
    row = FINDINGS[code]
    mistakes = [f"`{mistake}` (the image {words})" for mistake, (found, words) in OF_MISTAKE.items() if found is code]
    tried = f" Diagnose tries it as {', '.join(mistakes)}." if mistakes else ""
    return f"\n## {code}\n\n{row.meaning} {row.recognised}{tried}\n\nWhat to do: {row.remedy}\n"


if __name__ == "__main__":
    print(page(), end="")

"""What is usual of a version: what its golden images look like, and within which limits its baseline lies.

Nothing usual accuses. A rule that would accuse a golden image tells nothing about this model's pictures; a statistic
that lies where it lay while all was well is no certain sign that something is wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from vedette_server.alerts.inputs import INPUTS
from vedette_server.contract.answer import PixelStatistics
from vedette_server.explain.findings import Code, Confidence, Finding

Range = tuple[float, float]  # the lowest and the highest value, both included
Ranges = Mapping[str, Range]  # by the statistic

_SURE = tuple(Confidence)  # the least sure first

# By which statistics of a baseline a finding is held against what is usual.
_STATISTIC = {
    Code.VALUES_IN_UNIT_RANGE: "brightness",
    Code.VALUES_SCALED_UP: "brightness",
    Code.IMAGE_BLACK: "brightness",
    Code.IMAGE_SATURATED: "brightness",
    Code.IMAGE_TOO_DARK: "brightness",
    Code.IMAGE_TOO_BRIGHT: "brightness",
    Code.IMAGE_FLAT: "contrast",
    Code.CHANNELS_SWAPPED: "redness",
}
_MIRRORED = ("redness",)  # undone, r becomes 1 - r: where both are usual, it tells nothing


@dataclass(frozen=True)
class Usual:
    """What is usual of one version."""

    golden: Mapping[Code, Confidence] = field(default_factory=dict)  # what would be said of its golden images' pixels
    sees: bool = False  # whether it finds what it must in them
    limits: Mapping[str, Ranges] = field(default_factory=dict)  # of its baseline, by stream; "": of all together

    def tempered(self, finding: Finding, pixels: PixelStatistics | None, stream: str) -> Finding | None:
        """What is left of a finding about an image, or about the stream that it is of; None: nothing."""
        if finding.code is Code.SCORES_FLAT and self.sees:
            return None
        shown = self.golden.get(finding.code)
        if shown and _SURE.index(finding.confidence) <= _SURE.index(shown):
            return None
        if pixels and finding.confidence is not Confidence.SUSPECTED and self._within(finding.code, pixels, stream):
            return replace(finding, confidence=Confidence.SUSPECTED)
        return finding

    def _within(self, code: Code, pixels: PixelStatistics, stream: str) -> bool:
        name = _STATISTIC.get(code, "")
        limits = self.limits.get(stream) or self.limits.get("") or {}
        if name not in limits:
            return False
        value, (low, high) = INPUTS[name].measure(pixels), limits[name]
        return low <= value <= high and not (name in _MIRRORED and low <= 1 - value <= high)


def surest(findings: Iterable[Finding]) -> dict[Code, Confidence]:
    """How sure each code is at most."""
    found: dict[Code, Confidence] = {}
    for finding in findings:
        found[finding.code] = max(found.get(finding.code, finding.confidence), finding.confidence, key=_SURE.index)
    return found

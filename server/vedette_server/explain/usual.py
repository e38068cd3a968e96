"""The normal range of a version: the findings of its golden images, and the limits of its baseline.

Whatever is normal is not evidence. A rule that would fire on a golden image says nothing about this model's pictures. A
statistic within its healthy range is not a certain sign of a fault.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from vedette_server.alerts.inputs import INPUTS
from vedette_server.contract.answer import PixelStatistics
from vedette_server.explain.findings import Code, Confidence, Finding

Range = tuple[float, float]  # lowest and highest value, inclusive
Ranges = Mapping[str, Range]  # by statistic

_SURE = tuple(Confidence)  # least sure first

# The baseline statistic against which each finding is checked.
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
_MIRRORED = ("redness",)  # undone, r becomes 1 - r; if both are normal, it proves nothing


@dataclass(frozen=True)
class Usual:
    """The normal range of one version."""

    golden: Mapping[Code, Confidence] = field(default_factory=dict)  # findings on the pixels of its golden images
    sees: bool = False  # the version finds the expected objects in them
    limits: Mapping[str, Ranges] = field(default_factory=dict)  # of its baseline, by stream; "": of all streams

    def tempered(self, finding: Finding, pixels: PixelStatistics | None, stream: str) -> Finding | None:
        """Return a finding on an image or its stream, weakened as far as it is normal; None if nothing remains."""
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
    """Return the highest confidence of each code."""
    found: dict[Code, Confidence] = {}
    for finding in findings:
        found[finding.code] = max(found.get(finding.code, finding.confidence), finding.confidence, key=_SURE.index)
    return found

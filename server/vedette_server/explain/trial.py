"""A sequential test of a suspected mistake on the frames of a feed, with as few frames as possible.

It is Wald's sequential probability ratio test ("Sequential Tests of Statistical Hypotheses", 1945). Each frame either
gains detections when the mistake is undone or does not. The test ends as soon as one of the two hypotheses is likely
enough.
"""

import math
from enum import StrEnum

# Probabilities that a frame gains. An honest frame gains now and then, if something looks like an object once altered.
# The bundled model's scenes gain in at most one frame of eight, for all mistakes but the one that they are designed to
# show.
_HONEST_GAIN, _FAULTY_GAIN = 0.5, 0.9
_FALSE_ALARM, _MISS = 0.001, 0.02  # probabilities of the two errors
_UPPER = math.log((1 - _MISS) / _FALSE_ALARM)
_LOWER = math.log(_MISS / (1 - _FALSE_ALARM))


class TrialVerdict(StrEnum):
    """The verdict of a trial."""

    OPEN = "OPEN"
    FAULTY = "FAULTY"
    HONEST = "HONEST"


class Trial:
    """The trial of one mistake on the frames of one feed."""

    def __init__(self, gains: int = 0) -> None:
        """Start with `gains` frames that have gained already."""
        self.frames = gains
        self.gains = gains

    def count(self, *, gained: bool) -> None:
        """Count one more frame."""
        self.frames += 1
        self.gains += gained

    @property
    def verdict(self) -> TrialVerdict:
        """The verdict after the frames so far."""
        gain = math.log(_FAULTY_GAIN / _HONEST_GAIN)
        loss = math.log((1 - _FAULTY_GAIN) / (1 - _HONEST_GAIN))
        ratio = self.gains * gain + (self.frames - self.gains) * loss
        if ratio >= _UPPER:
            return TrialVerdict.FAULTY
        return TrialVerdict.HONEST if ratio <= _LOWER else TrialVerdict.OPEN

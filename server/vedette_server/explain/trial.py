"""Whether a feed suffers from a mistake, told frame by frame with as few frames as that needs.

Wald's sequential probability ratio test ("Sequential Tests of Statistical Hypotheses", 1945): each frame either gains
detections when the mistake is undone or does not; the test ends as soon as one of the two hypotheses is likely enough.
"""

import math
from enum import StrEnum

# Probabilities that a frame gains. An honest one does now and then, from something that looks like an object once it is
# altered: the bundled model's scenes show at most one in eight by any mistake but one, for which they are made to.
_HONEST_GAIN, _FAULTY_GAIN = 0.5, 0.9
_FALSE_ALARM, _MISS = 0.001, 0.02  # probabilities of the two errors
_UPPER = math.log((1 - _MISS) / _FALSE_ALARM)
_LOWER = math.log(_MISS / (1 - _FALSE_ALARM))


class TrialVerdict(StrEnum):
    """What a trial has come to."""

    OPEN = "OPEN"
    FAULTY = "FAULTY"
    HONEST = "HONEST"


class Trial:
    """One mistake, on the frames of one feed."""

    def __init__(self, gains: int = 0) -> None:
        """`gains` frames have gained already."""
        self.frames = gains
        self.gains = gains

    def count(self, *, gained: bool) -> None:
        """Take one more frame into account."""
        self.frames += 1
        self.gains += gained

    @property
    def verdict(self) -> TrialVerdict:
        """What the frames so far say."""
        gain = math.log(_FAULTY_GAIN / _HONEST_GAIN)
        loss = math.log((1 - _FAULTY_GAIN) / (1 - _HONEST_GAIN))
        ratio = self.gains * gain + (self.frames - self.gains) * loss
        if ratio >= _UPPER:
            return TrialVerdict.FAULTY
        return TrialVerdict.HONEST if ratio <= _LOWER else TrialVerdict.OPEN

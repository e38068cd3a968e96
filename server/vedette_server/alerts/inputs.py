"""The statistics of images: one row each, for whoever collects, captures, judges, draws or documents them.

Which cause one tells of, and from when on, is `drift`'s.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vedette_server.contract.answer import PixelStatistics

Unit: TypeAlias = Literal["levels", "decibels", "ratio"]


@dataclass(frozen=True, kw_only=True)
class InputStatistic:
    """A statistic that every image has; what is judged is its mean over images."""

    name: str  # in labels, and in baselines
    unit: Unit
    measure: Callable[[PixelStatistics], float]
    highest: float  # that it can be; the lowest is 0
    margin: float  # by which it must be beyond its limits at least, to tell something
    told: str  # of one image, by the server's page of metrics
    said: str  # in a sentence
    title: str  # of its panel, as are the next two
    drawn: str
    axis: str
    what: str  # on the page of statistics, as is the next
    why: str

    @property
    def metric(self) -> str:
        """The summary that has its sum and its count."""
        return f"vedette_input_{self.name}_{self.unit}"


_ROWS = (
    InputStatistic(
        name="brightness",
        unit="levels",
        measure=lambda pixels: pixels.brightness,
        highest=255.0,
        margin=10,
        told="Mean grey level of an image, 0 to 255.",
        said="brightness",
        title="Brightness",
        drawn="Mean over the window. Below the band: a covered lens, night, values divided by 255. Above it: glare, an "
        "exposure that is stuck.",
        axis="grey levels, 0 to 255",
        what="mean grey level, 0 to 255",
        why="a dark or blinded camera, an exposure that went wrong",
    ),
    InputStatistic(
        name="contrast",
        unit="levels",
        measure=lambda pixels: pixels.contrast,
        highest=255.0,
        margin=6,
        told="Standard deviation of an image's levels.",
        said="contrast",
        title="Contrast",
        drawn="Mean over the window. Below the band: fog, a test picture, a lost signal. Above it: hard light, a "
        "negative, noise.",
        axis="standard deviation of levels",
        what="standard deviation of the levels",
        why="fog, a covered lens, a lost signal",
    ),
    InputStatistic(
        name="sharpness",
        unit="decibels",
        measure=lambda pixels: 10 * math.log10(1 + pixels.sharpness),
        highest=math.inf,
        margin=2,
        told="10 log10 of 1 + the variance of an image's Laplacian.",
        said="sharpness",
        title="Sharpness",
        drawn="Mean over the window. Below the band: out of focus, rain or dirt on the lens, a thumbnail. Above it: "
        "noise, a new camera.",
        axis="variance of the Laplacian",
        what="10 log10 of 1 + the variance of the Laplacian, at the size that the model sees",
        why="a lens out of focus or wet; in decibels, since variances of Laplacians spread over orders of magnitude",
    ),
    InputStatistic(
        name="redness",
        unit="ratio",
        measure=lambda pixels: pixels.redness,
        highest=1.0,
        margin=0.02,
        told="Red over red and blue of an image's mean: swapped, r becomes 1 - r.",
        said="redness",
        title="Redness",
        drawn="Red as a share of red and blue; red and blue exchanged turn r into 1 - r. Outside the band: another "
        "white balance, or the wrong order of channels. Mean over the window.",
        axis="",
        what="red over red and blue",
        why="a colour cast; red and blue exchanged turn r into 1 - r",
    ),
    InputStatistic(
        name="upper",
        unit="ratio",
        measure=lambda pixels: pixels.upper,
        highest=1.0,
        margin=0.01,
        told="Share of an image's luminance in its upper half: upside down, u becomes 1 - u.",
        said="share of the light in the upper half",
        title="Upper half",
        drawn="Share of the light in the picture's upper half; upside down, u becomes 1 - u. Mean over the window.",
        axis="",
        what="share of the light in the upper half",
        why="a camera that hangs upside down: u becomes 1 - u, and few pictures are lit from below",
    ),
)
INPUTS = {row.name: row for row in _ROWS}

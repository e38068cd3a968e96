"""The model's answer for one image.

Boxes are XYXY in absolute pixels of the upright image, as sent. Masks are COCO compressed RLE at the image's size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vedette_server.contract.types import Float32Array, Int32Array


@dataclass(frozen=True)
class Mask:
    """A mask of the image's size, in exactly one of the formats."""

    counts: bytes | None = None  # of a COCO compressed RLE
    polygons: tuple[tuple[float, ...], ...] | None = None  # x and y alternate, in pixels; one per connected part
    png: bytes | None = None  # 1 bit


def corners(rotated: Sequence[float] | Float32Array) -> Float32Array:
    """Return the corners of one rotated box: shape (4, 2), pixels, clockwise from its own upper left."""
    x, y, width, height, degrees = (float(value) for value in rotated)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    own = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (width / 2, height / 2)
    # The y axis points down, so turning from the y axis to the x axis is counter-clockwise.
    turned: Float32Array = own @ np.array(((cosine, -sine), (sine, cosine))) + np.array((x, y))
    return turned.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The objects found, best score first."""

    boxes: Float32Array  # (N, 4), XYXY, pixels
    scores: Float32Array  # (N,), 0 to 1
    class_ids: Int32Array  # (N,), from 0
    masks: tuple[Mask, ...] | None = None  # N masks
    box_masks: Float32Array | None = None  # (N, 28, 28): probabilities in each box, before they are pasted
    keypoints: Float32Array | None = None  # (N, K, 3): x and y in pixels, and the model's score
    rotated: Float32Array | None = None  # (N, 5): centre x and y, width, height in pixels; degrees, counter-clockwise

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.scores)

    def outline(self, index: int) -> Float32Array:
        """Return the corners of an object's box, rotated if the box is: shape (4, 2), pixels."""
        if self.rotated is not None:
            return corners(self.rotated[index])
        x0, y0, x1, y1 = self.boxes[index]
        return np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), np.float32)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a panoptic answer."""

    id: int  # pixel value in the map, from 1
    is_thing: bool
    class_id: int  # index among the things, or among the stuff classes
    area: int  # pixels
    score: float | None = None  # things only


@dataclass(frozen=True)
class Panoptic:
    """A panoptic map that assigns every pixel to one segment."""

    segment_map_png: bytes  # 16-bit grey, the image's size
    segments: tuple[Segment, ...]


_TRAINED_QUARTER = 0.25  # of the way from uniform to certain: a trained head's mean best share is above it


def least_certainty(classes: int) -> float:
    """Return the `Evidence.certainty` below which a head with `classes` classes is as good as random.

    A random head gives every class and the background the same share, however many classes it has. A trained head is
    confident that nearly every region is background, however low its best score. Measured on random heads of 1 to 1,203
    classes, which stay below, and on trained heads with flattened scores, which stay far above.
    """
    uniform = 1 / (classes + 1)
    return uniform + _TRAINED_QUARTER * (1 - uniform)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Scores of the candidates, and how many of them each stage removed.

    A candidate is a pair of a scored row (a region of an R-CNN, an anchor of RetinaNet) and a class whose score is
    above the floor. candidates = overlapped + suppressed + filtered + capped + clipped + detections. For a model whose
    output is selected from outside, rows and candidates are the objects it returned; what it dropped internally is
    invisible. Every field describes this image alone, except `not_finite`, which describes the batch it ran in.

    `certainty` is the mean over the scored rows of the highest share, the background's included. It is about 1 / (K +
    1) for a random head with K classes. RetinaNet's scores are not shares; there it is 1 - mean / best over all scores.
    That is near 0 if all scores are alike, as from a random head, and near 1 if a few stand out, even at low values. It
    is 1 if there are no rows.
    """

    best_scores: Float32Array  # (classes,), best finite score of each class before the threshold; 0: none was scored
    proposed: int | None = None  # regions before filtering; None: the model has no proposal stage
    proposals: int | None = None  # regions after filtering
    scored: int = 0  # rows with finite boxes and scores
    certainty: float = 1.0  # 0 to 1: how clearly the scored rows separate the classes
    candidates: int = 0  # candidates that entered non-maximum suppression
    overlapped: int = 0  # removed by it: in none of the counts below, and not detected
    suppressed: int = 0  # above the floor but not above the threshold
    filtered: int = 0  # above the threshold, of classes that the request excludes
    capped: int = 0  # above the threshold, beyond the requested maximum
    clipped: int = 0  # whose boxes have no area inside the image
    dropped: dict[str, int] = field(default_factory=dict)  # rows with non-finite values, by the stage that dropped them
    not_finite: str = ""  # first stage with non-finite values, named as in the checkpoint; empty: none

    @property
    def best_class_id(self) -> int | None:
        """The class with the best score; None if nothing was scored."""
        return int(self.best_scores.argmax()) if self.scored and len(self.best_scores) else None

    @property
    def best_score(self) -> float | None:
        """The best score over all candidates and classes; None if nothing was scored."""
        best = self.best_class_id
        return None if best is None else float(self.best_scores[best])


NEARLY_ALL = 0.99  # share of samples from which an image counts as black or white
NO_MIDDLE = 0.02  # share of samples from 4 to 252 below which an image seems to hold extremes only
FLAT = 2.0  # levels; the largest spread of a single colour


@dataclass(frozen=True, kw_only=True)
class PixelStatistics:
    """Pixel statistics in grey levels 0 to 255, from an evenly spaced sample unless stated otherwise."""

    mean: tuple[float, ...]  # per channel; of three: blue, green, red
    spread: tuple[float, ...]  # standard deviation per channel
    lowest: int  # over all samples
    highest: int  # over all samples
    dark: float  # share of samples that are at most 12
    saturated: float  # share of samples that are at least 250
    middle: float  # share of samples from 4 to 252, over all pixels if below NO_MIDDLE; normalised values lack it
    flat: float  # share of neighbouring samples that differ by at most one level in every channel
    coherence: float  # luminance correlation of neighbouring samples, -1 to 1: near 1 for pictures, 0 for noise
    colour: float  # mean difference between a pixel's largest and smallest channel; 0 unless the channels are colours
    sharpness: float  # variance of the Laplacian of the centre's luminance, at the model's input size
    hash: int  # 64 perceptual bits, each true if a cell of 9 x 8 is darker than its right neighbour
    checksum: int  # CRC-32 of the sample: equal for equal pixels
    upper: float  # share of the luminance in the upper half; upside down, u becomes 1 - u
    wrapped: bool = False  # makes sense only as signed numbers; checked only if there are no middle values
    featureless: bool = False  # holds nothing but noise; checked only if nearly all is black, white or flat
    one_colour: bool = False  # has one colour throughout; checked only if nearly all is black, white or flat

    @property
    def brightness(self) -> float:
        """The mean level."""
        return sum(self.mean) / len(self.mean)

    @property
    def contrast(self) -> float:
        """The mean spread of the channels."""
        return sum(self.spread) / len(self.spread)

    @property
    def redness(self) -> float:
        """Red over red plus blue, each offset by 1 so that black and grey are even; swapping channels gives 1 - r."""
        blue, red = (self.mean[0], self.mean[2]) if len(self.mean) == 3 else (0.0, 0.0)
        return (red + 1) / (red + blue + 2)


@dataclass(frozen=True)
class ModelInput:
    """The image as it entered the model: resized and normalised, in the model's channel order."""

    height: int  # pixels
    width: int
    mean: tuple[float, ...]  # per channel, in units of the contract's `pixel_std`
    spread: tuple[float, ...]


@dataclass(frozen=True)
class StageTimes:
    """The time a worker spent on one image, by stage, in seconds."""

    decode: float
    preprocess: float
    forward: float
    postprocess: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.decode + self.preprocess + self.forward + self.postprocess


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A worker's complete answer for one image."""

    height: int  # of the upright image, in pixels
    width: int
    threshold: float
    detections: Detections
    evidence: Evidence
    times: StageTimes
    panoptic: Panoptic | None = None
    class_map_png: bytes | None = None  # class of every pixel: grey, 8 bits, or 16 above 256 classes
    pixels: PixelStatistics | None = None  # as received; None: not measured
    model_input: ModelInput | None = None  # as they entered the model; None: not measured
    thumbnail: bytes | None = None  # small JPEG with the detections drawn on it, if requested
    detects: bool = True  # the model finds objects at all

    @property
    def empty(self) -> bool:
        """True if the model finds objects but found none in this image."""
        return self.detects and not len(self.detections)

"""What a model answers about one image.

Boxes are XYXY in absolute pixels of the image as sent, upright; masks are COCO compressed RLE of that image's size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vedette_server.contract.types import Float32Array, Int32Array


@dataclass(frozen=True)
class Mask:
    """One mask of the image's size, in exactly one of the formats."""

    counts: bytes | None = None  # of a COCO compressed RLE
    polygons: tuple[tuple[float, ...], ...] | None = None  # x and y in turn, pixels, one for each connected part
    png: bytes | None = None  # 1 bit


def corners(rotated: Sequence[float] | Float32Array) -> Float32Array:
    """The corners of one rotated box: shape (4, 2), pixels. Its own upper left one comes first, then clockwise."""
    x, y, width, height, degrees = (float(value) for value in rotated)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    own = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (width / 2, height / 2)
    # The y axis points down: what turns from it to the x axis turns against the clock.
    turned: Float32Array = own @ np.array(((cosine, -sine), (sine, cosine))) + np.array((x, y))
    return turned.astype(np.float32)


@dataclass(frozen=True)
class Detections:
    """The objects found, best score first."""

    boxes: Float32Array  # (N, 4), XYXY, pixels
    scores: Float32Array  # (N,), 0 to 1
    class_ids: Int32Array  # (N,), from 0
    masks: tuple[Mask, ...] | None = None  # N masks
    keypoints: Float32Array | None = None  # (N, K, 3): x and y in pixels, and the model's score
    rotated: Float32Array | None = None  # (N, 5): centre's x and y, width, height, pixels; degrees, counter-clockwise

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.scores)

    def outline(self, index: int) -> Float32Array:
        """The corners of an object's box, rotated if it is one: shape (4, 2), pixels."""
        if self.rotated is not None:
            return corners(self.rotated[index])
        x0, y0, x1, y1 = self.boxes[index]
        return np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), np.float32)


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic answer."""

    id: int  # value of its pixels in the map, from 1
    is_thing: bool
    class_id: int  # among the things, or among the stuff
    area: int  # pixels
    score: float | None = None  # things only


@dataclass(frozen=True)
class Panoptic:
    """One segment for every pixel."""

    segment_map_png: bytes  # 16-bit grey, the image's size
    segments: tuple[Segment, ...]


_TRAINED_QUARTER = 0.25  # of the way from all alike to certain: a trained head's mean best share lies beyond it


def least_certainty(classes: int) -> float:
    """The `Evidence.certainty` below which a head of so many classes is as good as random.

    A random head gives each class and the background the same share, whatever its number of classes. A trained one is
    sure of nearly every region that it is background, however low its best score. Measured on random heads of 1 to
    1,203 classes, which stay below, and on trained ones whose scores were flattened, which stay far above.
    """
    uniform = 1 / (classes + 1)
    return uniform + _TRAINED_QUARTER * (1 - uniform)


@dataclass(frozen=True)
class Evidence:
    """What the model scored of an image, and what became of it from stage to stage.

    A candidate is a pair of a scored row (a region of an R-CNN, an anchor of RetinaNet) and a class whose score lies
    above the floor. candidates = overlapped + suppressed + filtered + capped + clipped + detections.
    Of a model that is selected from behind, rows and candidates are what it returned: what it dropped is not seen. All
    is of the image alone but `not_finite`, which is of the batch in which it was answered.

    `certainty` is the mean over the scored rows of the highest share, the background's included: a random head of K
    classes is near 1 / (K + 1). RetinaNet's scores are no shares: there it is 1 - mean / best of all scores, near 0
    where a random head gives them all alike, and near 1 where a few, be they small, stand out. 1: there are no rows.
    """

    best_scores: Float32Array  # (classes,), the highest finite score of each before the threshold; 0: none was scored
    proposed: int | None = None  # regions before they are filtered; None: the model proposes none
    proposals: int | None = None  # regions after that
    scored: int = 0  # rows whose boxes and scores are finite
    certainty: float = 1.0  # 0 to 1: how far those tell one class from another
    candidates: int = 0  # that entered non-maximum suppression
    overlapped: int = 0  # of those, what it removed: all that is in none of the counts below, nor detected
    suppressed: int = 0  # above the floor and not above the threshold
    filtered: int = 0  # above the threshold, of classes that were not asked for
    capped: int = 0  # above the threshold, beyond the number that was asked for
    clipped: int = 0  # whose box had no area left within the image
    dropped: dict[str, int] = field(default_factory=dict)  # rows with values that are not finite, by the dropping stage
    not_finite: str = ""  # the first stage of the model that gave such values, named as in the checkpoint; empty: none

    @property
    def best_class_id(self) -> int | None:
        """The class with the best score; None: nothing was scored."""
        return int(self.best_scores.argmax()) if self.scored and len(self.best_scores) else None

    @property
    def best_score(self) -> float | None:
        """The best score of any candidate and any class; None: nothing was scored."""
        best = self.best_class_id
        return None if best is None else float(self.best_scores[best])


NEARLY_ALL = 0.99  # share of the samples from which an image counts as black or as white
NO_MIDDLE = 0.02  # share of the samples from 4 to 252, below which an image seems to have nothing but ends
FLAT = 2.0  # levels, by which the samples of one colour spread at most


@dataclass(frozen=True)
class PixelStatistics:
    """What an image looks like, in grey levels 0 to 255: an evenly spaced sample of its pixels; all where said so."""

    mean: tuple[float, ...]  # of each channel; of three: blue, green, red
    spread: tuple[float, ...]  # standard deviations of the same
    lowest: int  # of all samples
    highest: int  # the same
    dark: float  # share of the samples that are at most 12
    saturated: float  # share of the samples that are at least 250
    middle: float  # share of the samples from 4 to 252, of all where it is below NO_MIDDLE: what normalised values lack
    flat: float  # share of neighbouring samples that differ by at most one level in every channel
    coherence: float  # correlation of the luminance of neighbouring samples, -1 to 1: near 1 for pictures, 0 for noise
    colour: float  # mean difference between the largest and the smallest channel of a pixel; 0 of other than colours
    sharpness: float  # variance of the Laplacian of the middle's luminance, at the size that the model sees
    hash: int  # perceptual: 64 bits, each whether brightness grows from one of 9 x 8 fields to its right neighbour
    checksum: int  # CRC-32 of the sample: equal for equal pixels
    upper: float  # share of the luminance that lies in the upper half: upside down, u becomes 1 - u
    wrapped: bool = False  # whether it makes sense as signed numbers alone; looked at where there is no middle at all
    featureless: bool = False  # whether all of it shows but noise; looked at where nearly all is black, white or flat
    one_colour: bool = False  # whether all of it is the same; looked at where nearly all is black, white or flat

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
        """Red over red and blue, 1 level each, so that black is even, as is what has no colours: exchanged, 1 - r."""
        blue, red = (self.mean[0], self.mean[2]) if len(self.mean) == 3 else (0.0, 0.0)
        return (red + 1) / (red + blue + 2)


@dataclass(frozen=True)
class ModelInput:
    """What entered the model: resized and normalised, in its own channel order."""

    height: int  # pixels
    width: int
    mean: tuple[float, ...]  # of each channel, in units of the contract's `pixel_std`
    spread: tuple[float, ...]


@dataclass(frozen=True)
class StageTimes:
    """What a worker spent on one image, in seconds."""

    decode: float
    preprocess: float
    forward: float
    postprocess: float


@dataclass(frozen=True)
class Answer:
    """Everything a worker says about one image."""

    height: int  # of the image, upright, in pixels
    width: int
    threshold: float
    detections: Detections
    evidence: Evidence
    times: StageTimes
    panoptic: Panoptic | None = None
    class_map_png: bytes | None = None  # the class of every pixel: grey, 8 bits or, of more than 256 classes, 16
    pixels: PixelStatistics | None = None  # as they arrived; None: not observed
    model_input: ModelInput | None = None  # as they entered the model; None: not observed
    thumbnail: bytes | None = None  # a small JPEG with the detections drawn in, where it was asked for
    detects: bool = True  # whether the model finds objects at all

    @property
    def empty(self) -> bool:
        """Whether the model finds objects and found none here."""
        return self.detects and not len(self.detections)

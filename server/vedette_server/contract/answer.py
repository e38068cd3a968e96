"""What a model answers about one image.

Boxes are XYXY in absolute pixels of the image as sent, upright; masks are COCO compressed RLE of that image's size.
"""

from dataclasses import dataclass

from vedette_server.contract.types import Float32Array, Int32Array


@dataclass(frozen=True)
class Mask:
    """One mask of the image's size, in exactly one of the formats."""

    counts: bytes | None = None  # of a COCO compressed RLE
    polygons: tuple[tuple[float, ...], ...] | None = None  # x and y in turn, pixels, one for each connected part
    png: bytes | None = None  # 1 bit


@dataclass(frozen=True)
class Detections:
    """The objects found, best score first."""

    boxes: Float32Array  # (N, 4), XYXY, pixels
    scores: Float32Array  # (N,), 0 to 1
    class_ids: Int32Array  # (N,), from 0
    masks: tuple[Mask, ...] | None = None  # N masks
    keypoints: Float32Array | None = None  # (N, K, 3): x and y in pixels, and the model's score

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.scores)


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


@dataclass(frozen=True)
class Evidence:
    """What the model scored before the threshold."""

    best_score: float | None  # of any candidate and any class; None: nothing was scored
    best_class_id: int | None
    suppressed: int  # candidates above the floor and not above the threshold, after non-maximum suppression
    filtered: int = 0  # detections above the threshold of classes that were not asked for


@dataclass(frozen=True)
class StageTimes:
    """What a worker spent on one image, in seconds."""

    decode: float
    preprocess: float
    forward: float
    postprocess: float


@dataclass(frozen=True)
class Note:
    """Something unusual about an image, which is no error."""

    code: str
    evidence: str


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
    class_map_png: bytes | None = None  # the class of every pixel: 8-bit grey, the image's size
    notes: tuple[Note, ...] = ()  # what is unusual about the pixels

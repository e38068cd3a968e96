"""A server's answers as immutable values. Boxes are XYXY in absolute pixels of the upright image, as sent."""

import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from vedette.v1 import answer_pb2, detection_service_pb2, image_pb2, model_pb2

from vedette_client import arguments, unpacked
from vedette_client.errors import LocalError

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A mask of the image's size, in the requested format, decoded on demand."""

    height: int
    width: int
    counts: bytes | None = None  # of a COCO compressed RLE
    polygons: tuple[tuple[float, ...], ...] | None = None  # x and y alternate, in pixels; one per connected part
    png: bytes | None = None

    def decode(self) -> NDArray[np.bool_]:
        """Decode the mask: bool, shape (height, width).

        Raises `InternalError` if it is not a valid mask of this size.
        """
        if self.png is not None:
            return unpacked.mask(self.png, self.height, self.width)
        decoded: NDArray[np.uint8] = rle.decode(self.coco())
        return decoded.astype(bool)

    def coco(self) -> dict[str, Any]:
        """Return the mask as an RLE for COCO's tools. Raises `InternalError`, like `decode`."""
        if self.counts is not None:
            unpacked.check_runs(self.counts, self.height, self.width)
            return {"size": [self.height, self.width], "counts": self.counts}
        if self.png is not None:
            encoded: dict[str, Any] = rle.encode(np.asfortranarray(self.decode(), np.uint8))
            return encoded
        outlines = [list(line) for line in self.polygons or ()]
        unpacked.check_outlines(outlines, self.height, self.width)
        size = self.height, self.width
        if not outlines:  # of which pycocotools would make a mask of 0 x 0
            blank: dict[str, Any] = rle.frPyObjects({"size": size, "counts": [self.height * self.width]}, *size)
            return blank
        merged: dict[str, Any] = rle.merge(rle.frPyObjects(outlines, *size))
        return merged

    def record(self) -> dict[str, Any]:
        """Return the same as data for JSON."""
        encoded = self.coco()
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@dataclass(frozen=True)
class Keypoint:
    """A point in pixels, and the model's score for it."""

    x: float
    y: float
    score: float


class RotatedBox(NamedTuple):
    """A rotated rectangle, as defined by Detectron2: in pixels, and degrees counter-clockwise."""

    x: float  # of the centre
    y: float
    width: float  # before rotation
    height: float
    angle: float  # -180 to 180

    def corners(self) -> NDArray[np.float32]:
        """Return the corners, clockwise from its own upper left: shape (4, 2), pixels."""
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        own = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (self.width / 2, self.height / 2)
        # The y axis points down, so turning from the y axis to the x axis is counter-clockwise.
        turned: NDArray[np.float64] = own @ np.array(((cosine, -sine), (sine, cosine))) + np.array((self.x, self.y))
        return turned.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A detected object."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1; around a rotated box, clipped to the image
    score: float
    class_id: int
    class_name: str
    mask: Mask | None = None
    keypoints: tuple[Keypoint, ...] = ()
    rotated_box: RotatedBox | None = None  # only from models that produce them


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a panoptic answer."""

    id: int
    is_thing: bool
    class_id: int
    class_name: str
    score: float | None
    area: int


@dataclass(frozen=True)
class Panoptic:
    """A panoptic map that assigns every pixel to one segment: a 16-bit PNG of segment ids, and the segments."""

    segment_map_png: bytes
    segments: tuple[Segment, ...]

    @functools.cached_property
    def segment_map(self) -> NDArray[np.int32]:
        """The segment id of every pixel, 0 without a segment: shape (height, width)."""
        return _grey(self.segment_map_png)


@dataclass(frozen=True, kw_only=True)
class StageCounts:
    """Numbers of candidates that each stage inside the model removed."""

    proposed: int | None  # regions before filtering; None: the model has no proposal stage
    proposals: int | None  # regions after filtering
    scored: int  # rows (regions or anchors) with finite boxes and scores
    candidates: int  # pairs of a row and a class above the floor
    overlapped: int  # of those, removed because they overlap a better one
    suppressed: int  # not above the threshold
    filtered: int  # in excluded classes
    capped: int  # beyond the requested maximum
    clipped: int  # without any part of the box inside the image
    dropped: dict[str, int]  # rows with non-finite values, by the part of the model that drops them


@dataclass(frozen=True, kw_only=True)
class Empty:
    """The reason why there are no detections."""

    reason: str  # code of the first finding, which has details; QUIET_SCENE: the scene seems empty
    best_score: float | None  # of any candidate; None: the model scored none
    best_class: str
    suppressed: int  # candidates from the floor up to the threshold
    threshold: float
    counts: StageCounts


@dataclass(frozen=True)
class Finding:
    """A named cause of an empty or suspicious answer, with evidence."""

    code: str  # listed in the documentation
    confidence: str  # SUSPECTED, LIKELY or CERTAIN
    evidence: str  # what was seen
    remedy: str  # what to do


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The effect of undoing one known mistake in an image."""

    mistake: str
    code: str  # code of the finding for this mistake
    detections: int  # after undoing it
    best_score: float  # of any candidate
    helps: bool  # convincingly more than the image as sent
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The mistakes whose undoing was tried on an image."""

    summary: str  # most likely cause, evidence and remedy, or that nothing helps
    candidates: tuple[Candidate, ...]  # most likely first
    comparison_png: bytes  # candidates side by side, the image as sent first
    detections: int  # in the image as sent
    best_score: float
    findings: tuple[Finding, ...]  # for the image as sent
    threshold: float
    request_id: str

    @property
    def cause(self) -> Candidate | None:
        """The most likely cause; None if nothing helps."""
        return next((one for one in self.candidates if one.helps), None)


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The time spent by stage, in seconds."""

    queue: float
    decode: float
    preprocess: float
    forward: float
    postprocess: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one image, a sequence of its detections, best score first."""

    detections: tuple[Detection, ...]
    height: int  # of the upright image, in pixels
    width: int
    empty: Empty | None
    panoptic: Panoptic | None
    class_map_png: bytes | None  # class of every pixel, in semantic answers; see `class_map`
    findings: tuple[Finding, ...]
    model: str
    version: str
    contract_fingerprint: str
    threshold: float
    timings: Timings
    request_id: str

    def __len__(self) -> int:
        """The number of detections."""
        return len(self.detections)

    def __iter__(self) -> Iterator[Detection]:
        """Iterate over the detections."""
        return iter(self.detections)

    def __getitem__(self, index: int) -> Detection:
        """Return one detection."""
        return self.detections[index]

    @functools.cached_property
    def class_map(self) -> NDArray[np.int32] | None:
        """The class id of every pixel, for semantic answers: shape (height, width)."""
        return None if self.class_map_png is None else _grey(self.class_map_png)

    @functools.cached_property
    def boxes(self) -> NDArray[np.float32]:
        """All boxes: shape (N, 4), XYXY, pixels."""
        return np.array([item.box for item in self.detections], np.float32).reshape(-1, 4)

    @functools.cached_property
    def rotated_boxes(self) -> NDArray[np.float32]:
        """All rotated boxes: shape (N, 5), as in `RotatedBox`; (0, 5) for models without them."""
        return np.array([item.rotated_box for item in self.detections if item.rotated_box], np.float32).reshape(-1, 5)

    @functools.cached_property
    def scores(self) -> NDArray[np.float32]:
        """All scores: shape (N,)."""
        return np.array([item.score for item in self.detections], np.float32)

    @functools.cached_property
    def class_ids(self) -> NDArray[np.int64]:
        """All class ids: shape (N,)."""
        return np.array([item.class_id for item in self.detections], np.int64)

    def to_json(self) -> str:
        """Return the result as one JSON object on one line, as printed by `vedette detect --json`.

        Masks are COCO's RLE; the maps of panoptic and semantic answers are PNGs in base64.
        """
        from vedette_client import records  # imported here because it imports this module

        return json.dumps(records.answer(self))

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return result records for COCO's tools, as written by Detectron2's own evaluator.

        Boxes are x, y, width, height; rotated ones x and y of the centre, width, height, angle. Keypoints are half a
        pixel less than in the answer: COCO uses pixel indices, and an answer's pixel centres are at x + 0.5. Class ids
        are the model's own, unchanged; a dataset may number its categories differently.
        """
        if not isinstance(image_id, str):
            image_id = arguments.whole(image_id, "image_id", -arguments.LARGEST_INT64 - 1, arguments.LARGEST_INT64)
        return [_coco(item, image_id) for item in self.detections]

    def to_supervision(self) -> "supervision.Detections":
        """Convert to `supervision.Detections`. Raises `LocalError` if that package is missing."""
        try:
            import supervision
        except ImportError as error:
            msg = "supervision is not installed: python -m pip install 'vedette[supervision]'"
            raise LocalError(msg) from error
        masks = [item.mask.decode() for item in self.detections if item.mask]
        data: dict[str, Any] = {"class_name": np.array([item.class_name for item in self.detections])}
        if corners := [item.rotated_box.corners() for item in self.detections if item.rotated_box]:
            data["xyxyxyxy"] = np.stack(corners)  # supervision's key for oriented boxes
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.class_ids,
            mask=np.stack(masks) if masks else None,
            data=data,
        )


def _grey(png: bytes) -> NDArray[np.int32]:
    """Return a grey PNG's values, from 8 or 16 bits."""
    return unpacked.png(png).astype(np.int32)


def _coco(item: Detection, image_id: int | str) -> dict[str, Any]:
    corners = np.array(item.box, np.float32)  # the precision in which Detectron2 subtracts
    upright = np.concatenate([corners[:2], corners[2:] - corners[:2]]).tolist()
    record = {
        "image_id": image_id,
        "category_id": item.class_id,
        "bbox": list(item.rotated_box) if item.rotated_box else upright,
        "score": item.score,
    }
    if item.mask:
        record["segmentation"] = item.mask.record()
    if item.keypoints:
        points = np.array([(point.x, point.y, point.score) for point in item.keypoints], np.float32)
        record["keypoints"] = (points - np.array((0.5, 0.5, 0.0), np.float32)).ravel().tolist()
    return record


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The inputs and outputs of a model."""

    fingerprint: str
    channel_order: str  # BGR or RGB, which callers need not match; GRAY; or MODEL: channels of no fixed meaning
    channels: int  # required by the model
    shortest_edge: int  # for resizing, in pixels; 0: no resizing
    longest_edge: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    outputs: tuple[str, ...]
    class_names: tuple[str, ...]
    stuff_class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    floor: float
    default_threshold: float
    panoptic_threshold: float | None
    max_detections: int | None
    inputs: tuple[str, ...]  # kinds of input that callers may send
    tensor_orders: tuple[str, ...]  # permitted channel orders of tensors
    max_bytes: int
    max_pixels: int
    max_edge: int
    precision: str
    plugins: tuple[str, ...]  # modules of the model's project
    own_threshold: bool  # the model drops low scores before the server sees them


@dataclass(frozen=True, kw_only=True)
class Model:
    """A served version of a model."""

    name: str
    version: str
    description: str
    state: str  # LOADING, READY or UNAVAILABLE
    state_reason: str
    waivers: tuple[str, ...]  # checks that its operator has waived
    contract: Contract


def result(response: detection_service_pb2.DetectResponse) -> Result:
    """Convert a response."""
    answer = response.answer
    times = answer.timings
    return Result(
        detections=tuple(_detection(item) for item in answer.detections),
        height=answer.image_size.height,
        width=answer.image_size.width,
        empty=_empty(answer.empty) if answer.HasField("empty") else None,
        panoptic=_panoptic(answer.panoptic) if answer.HasField("panoptic") else None,
        class_map_png=answer.semantic.class_map_png if answer.HasField("semantic") else None,
        findings=tuple(_finding(item) for item in answer.findings),
        model=answer.model_name,
        version=answer.model_version,
        contract_fingerprint=answer.contract_fingerprint,
        threshold=decimal(answer.threshold),
        timings=Timings(
            queue=times.queue_seconds,
            decode=times.decode_seconds,
            preprocess=times.preprocess_seconds,
            forward=times.forward_seconds,
            postprocess=times.postprocess_seconds,
            total=times.total_seconds,
        ),
        request_id=response.request_id,
    )


def decimal(value: float) -> float:
    """Return the short decimal behind a 32-bit float: 0.3, not 0.30000001192092896."""
    return float(f"{value:.7g}")


def _detection(item: answer_pb2.Detection) -> Detection:
    box, mask = item.box, item.mask
    return Detection(
        box=(box.x0, box.y0, box.x1, box.y1),
        score=item.score,
        class_id=item.class_id,
        class_name=item.class_name,
        mask=_mask(mask) if item.HasField("mask") else None,
        keypoints=tuple(Keypoint(point.x, point.y, point.score) for point in item.keypoints),
        rotated_box=_rotated(item.rotated_box) if item.HasField("rotated_box") else None,
    )


def _rotated(item: answer_pb2.RotatedBox) -> RotatedBox:
    return RotatedBox(item.center_x, item.center_y, item.width, item.height, item.angle)


def _mask(item: answer_pb2.Mask) -> Mask:
    encoding = item.WhichOneof("encoding")
    outlines = tuple(tuple(line.coordinates) for line in item.polygons.polygons)
    return Mask(
        height=item.height,
        width=item.width,
        counts=item.counts if encoding == "counts" else None,
        polygons=outlines if encoding == "polygons" else None,
        png=item.png if encoding == "png" else None,
    )


def name(of: Callable[[Any], str], number: int, prefix: str) -> str:
    """Return an enum value's name, or its number if only the server knows it."""
    try:
        return of(number).removeprefix(prefix)
    except ValueError:
        return str(number)


def _code(number: int) -> str:
    return name(answer_pb2.FindingCode.Name, number, "FINDING_CODE_")


def _finding(item: answer_pb2.Finding) -> Finding:
    confidence = name(answer_pb2.Confidence.Name, item.confidence, "CONFIDENCE_")
    return Finding(_code(item.code), confidence, item.evidence, item.remedy)


def diagnosis(item: detection_service_pb2.DiagnoseResponse) -> Diagnosis:
    """Convert a diagnosis."""
    return Diagnosis(
        summary=item.summary,
        candidates=tuple(
            Candidate(
                mistake=name(detection_service_pb2.Mistake.Name, one.mistake, "MISTAKE_"),
                code=_code(one.code),
                detections=one.detection_count,
                best_score=one.best_score,
                helps=one.helps,
                remedy=one.remedy,
            )
            for one in item.candidates
        ),
        comparison_png=item.comparison_png,
        detections=item.detection_count,
        best_score=item.best_score,
        findings=tuple(_finding(finding) for finding in item.findings),
        threshold=decimal(item.threshold),
        request_id=item.request_id,
    )


def _counts(item: answer_pb2.StageCounts) -> StageCounts:
    return StageCounts(
        proposed=item.proposed if item.HasField("proposed") else None,
        proposals=item.proposals if item.HasField("proposals") else None,
        scored=item.scored,
        candidates=item.candidates,
        overlapped=item.overlapped,
        suppressed=item.suppressed,
        filtered=item.filtered,
        capped=item.capped,
        clipped=item.clipped,
        dropped=dict(item.dropped),
    )


def _empty(item: answer_pb2.EmptyAnswer) -> Empty:
    return Empty(
        reason=_code(item.reason),
        best_score=item.best_score if item.HasField("best_score") else None,
        best_class=item.best_class_name,
        suppressed=item.counts.suppressed,
        threshold=decimal(item.threshold),
        counts=_counts(item.counts),
    )


def _panoptic(item: answer_pb2.Panoptic) -> Panoptic:
    segments = tuple(
        Segment(
            id=segment.id,
            is_thing=segment.is_thing,
            class_id=segment.class_id,
            class_name=segment.class_name,
            score=segment.score if segment.HasField("score") else None,
            area=segment.area,
        )
        for segment in item.segments
    )
    return Panoptic(item.segment_map_png, segments)


def model(item: model_pb2.Model) -> Model:
    """Convert a model's description."""
    return Model(
        name=item.name,
        version=item.version,
        description=item.description,
        state=name(model_pb2.ModelState.Name, item.state, "MODEL_STATE_"),
        state_reason=item.state_reason,
        waivers=tuple(item.waivers),
        contract=_contract(item.contract),
    )


def _contract(item: model_pb2.Contract) -> Contract:
    formats = [name(image_pb2.PixelFormat.Name, kind, "PIXEL_FORMAT_") for kind in item.accepted_pixel_formats]
    encoded, tensors = ["encoded"] * item.accepts_encoded, ["tensor"] * item.accepts_tensors
    outputs = (name(answer_pb2.OutputKind.Name, kind, "OUTPUT_KIND_").lower() for kind in item.outputs)
    order = name(image_pb2.PixelFormat.Name, item.model_pixel_format, "PIXEL_FORMAT_")
    return Contract(
        fingerprint=item.fingerprint,
        channel_order="MODEL" if order == "8UCN" else order.removesuffix("8"),
        channels=item.channels,
        shortest_edge=item.resize.shortest_edge,
        longest_edge=item.resize.longest_edge,
        pixel_mean=tuple(map(decimal, item.pixel_mean)),
        pixel_std=tuple(map(decimal, item.pixel_std)),
        outputs=tuple(outputs),
        class_names=tuple(item.class_names),
        stuff_class_names=tuple(item.stuff_class_names),
        keypoint_names=tuple(item.keypoint_names),
        floor=decimal(item.floor),
        default_threshold=decimal(item.default_threshold),
        panoptic_threshold=decimal(item.panoptic_threshold) if item.HasField("panoptic_threshold") else None,
        max_detections=item.max_detections if item.HasField("max_detections") else None,
        inputs=(*encoded, *formats, *tensors),
        tensor_orders=tuple(
            name(image_pb2.ChannelOrder.Name, kind, "CHANNEL_ORDER_") for kind in item.accepted_channel_orders
        ),
        max_bytes=item.limits.max_bytes,
        max_pixels=item.limits.max_pixels,
        max_edge=item.limits.max_edge,
        precision=item.precision,
        plugins=tuple(item.plugins),
        own_threshold=item.own_threshold,
    )

"""Between protobuf messages and the engine's own objects: pure functions, no decisions."""

from collections.abc import Iterable

from vedette.v1 import answer_pb2, detection_service_pb2, image_pb2, model_pb2

from vedette_server.contract.answer import Answer, Detections, Evidence, Panoptic
from vedette_server.contract.contract import ChannelOrder, InputContract, Output
from vedette_server.contract.image import Buffer, EncodedImage, ImageSpec, PixelFormat, RawImage
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import Outcome
from vedette_server.engine.served import ServedVersion, State

_PIXEL_FORMATS = {image_pb2.PIXEL_FORMAT_BGR8: PixelFormat.BGR8, image_pb2.PIXEL_FORMAT_RGB8: PixelFormat.RGB8}
_OUTPUTS = {
    Output.BOXES: answer_pb2.OUTPUT_KIND_BOXES,
    Output.MASKS: answer_pb2.OUTPUT_KIND_MASKS,
    Output.KEYPOINTS: answer_pb2.OUTPUT_KIND_KEYPOINTS,
    Output.PANOPTIC: answer_pb2.OUTPUT_KIND_PANOPTIC,
    Output.SEMANTIC: answer_pb2.OUTPUT_KIND_SEMANTIC,
}
_STATES = {
    State.LOADING: model_pb2.MODEL_STATE_LOADING,
    State.READY: model_pb2.MODEL_STATE_READY,
    State.UNAVAILABLE: model_pb2.MODEL_STATE_UNAVAILABLE,
}
_SERVED_MASK_FORMATS = (answer_pb2.MASK_FORMAT_UNSPECIFIED, answer_pb2.MASK_FORMAT_COCO_RLE)
_SERVED_ORIENTATIONS = (image_pb2.ORIENTATION_UNSPECIFIED, image_pb2.ORIENTATION_APPLY)


def image(message: image_pb2.Image) -> tuple[ImageSpec, Buffer]:
    """What is declared about an image, and its bytes. Raises `Refused`."""
    match message.WhichOneof("content"):
        case "encoded":
            if message.encoded.orientation not in _SERVED_ORIENTATIONS:
                raise _not_served("image.encoded.orientation", image_pb2.Orientation.Name(message.encoded.orientation))
            return EncodedImage(), message.encoded.data
        case "raw":
            return _raw(message.raw), message.raw.data
        case "tensor":
            raise _not_served("image.tensor", "float pixels")
        case None:
            raise Refused(Reason.IMAGE_MISSING)


def _raw(message: image_pb2.RawImage) -> RawImage:
    if message.pixel_format not in image_pb2.PixelFormat.values() or not message.pixel_format:
        raise Refused(Reason.PIXEL_FORMAT_MISSING, seen=message.pixel_format)
    if message.pixel_format not in _PIXEL_FORMATS:
        raise _not_served("image.raw.pixel_format", image_pb2.PixelFormat.Name(message.pixel_format))
    stride = message.row_stride if message.HasField("row_stride") else None
    return RawImage(_PIXEL_FORMATS[message.pixel_format], message.height, message.width, stride)


def threshold(options: detection_service_pb2.DetectOptions) -> float | None:
    """The threshold asked for, as the decimal that the caller wrote; refuses options that are not served yet."""
    for field, _value in options.ListFields():
        if field.name not in ("threshold", "mask_format"):
            raise _not_served("options." + field.name, "set")
    if options.mask_format not in _SERVED_MASK_FORMATS:
        raise _not_served("options.mask_format", answer_pb2.MaskFormat.Name(options.mask_format))
    return float(f"{options.threshold:.7g}") if options.HasField("threshold") else None


def _not_served(field: str, seen: str) -> Refused:
    return Refused(Reason.FEATURE_NOT_SERVED, field=field, seen=seen)


def answer(outcome: Outcome) -> answer_pb2.Answer:
    """An outcome as the API has it."""
    given, contract = outcome.answer, outcome.model.contract
    size = image_pb2.ImageSize(height=given.height, width=given.width)
    return answer_pb2.Answer(
        detections=_detections(given, contract),
        panoptic=_panoptic(given.panoptic, contract) if given.panoptic else None,
        image_size=size,
        empty=None if len(given.detections) else _empty(given.evidence, given.threshold, contract),
        model_name=outcome.model.name,
        model_version=str(outcome.model.version),
        contract_fingerprint=contract.fingerprint,
        threshold=given.threshold,
        timings=answer_pb2.Timings(
            queue_seconds=outcome.queue_seconds,
            decode_seconds=given.times.decode,
            preprocess_seconds=given.times.preprocess,
            forward_seconds=given.times.forward,
            postprocess_seconds=given.times.postprocess,
            total_seconds=outcome.total_seconds,
        ),
    )


def _detections(given: Answer, contract: InputContract) -> Iterable[answer_pb2.Detection]:
    found: Detections = given.detections
    for index, (box, score, class_id) in enumerate(
        zip(found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True)
    ):
        mask = found.masks and answer_pb2.Mask(height=given.height, width=given.width, counts=found.masks[index])
        points = () if found.keypoints is None else found.keypoints[index].tolist()
        yield answer_pb2.Detection(
            box=answer_pb2.Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3]),
            score=score,
            class_id=class_id,
            class_name=contract.class_names[class_id],
            mask=mask or None,
            keypoints=[answer_pb2.Keypoint(x=x, y=y, score=certainty) for x, y, certainty in points],
        )


def _empty(evidence: Evidence, applied: float, contract: InputContract) -> answer_pb2.EmptyAnswer:
    below = answer_pb2.EMPTY_REASON_BELOW_THRESHOLD
    best = evidence.best_class_id
    return answer_pb2.EmptyAnswer(
        reason=below if evidence.suppressed else answer_pb2.EMPTY_REASON_NO_CANDIDATES,
        best_score=evidence.best_score,
        best_class_name="" if best is None else contract.class_names[best],
        suppressed_count=evidence.suppressed,
        threshold=applied,
    )


def _panoptic(given: Panoptic, contract: InputContract) -> answer_pb2.Panoptic:
    segments = [
        answer_pb2.PanopticSegment(
            id=segment.id,
            is_thing=segment.is_thing,
            class_id=segment.class_id,
            class_name=(contract.class_names if segment.is_thing else contract.stuff_class_names)[segment.class_id],
            score=segment.score,
            area=segment.area,
        )
        for segment in given.segments
    ]
    return answer_pb2.Panoptic(segment_map_png=given.segment_map_png, segments=segments)


def model(served: ServedVersion) -> model_pb2.Model:
    """A served version as the API has it."""
    return model_pb2.Model(
        name=served.model.name,
        version=str(served.model.version),
        description=served.model.description,
        state=_STATES[served.state],
        state_reason=served.state_reason,
        contract=_contract(served.model.contract),
    )


def _contract(given: InputContract) -> model_pb2.Contract:
    bgr = given.channel_order is ChannelOrder.BGR
    limits = given.limits
    return model_pb2.Contract(
        fingerprint=given.fingerprint,
        model_pixel_format=image_pb2.PIXEL_FORMAT_BGR8 if bgr else image_pb2.PIXEL_FORMAT_RGB8,
        resize=model_pb2.ResizeRule(shortest_edge=given.resize.shortest_edge, longest_edge=given.resize.longest_edge),
        pixel_mean=given.pixel_mean,
        pixel_std=given.pixel_std,
        outputs=[_OUTPUTS[output] for output in given.outputs],
        class_names=given.class_names,
        stuff_class_names=given.stuff_class_names,
        keypoint_names=given.keypoint_names,
        floor=given.floor,
        default_threshold=given.default_threshold,
        max_detections=given.max_detections,
        accepted_pixel_formats=list(_PIXEL_FORMATS),
        limits=model_pb2.Limits(max_bytes=limits.max_bytes, max_pixels=limits.max_pixels, max_edge=limits.max_edge),
        precision=given.precision,
    )

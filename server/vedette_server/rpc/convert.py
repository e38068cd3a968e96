"""Conversion between protobuf messages and the engine's objects: pure functions, no decisions."""

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message
from vedette.v1 import answer_pb2, detection_service_pb2, image_pb2, model_pb2

from vedette_server.contract.answer import Answer, Detections, Mask, Panoptic
from vedette_server.contract.contract import Input, InputContract, Output
from vedette_server.contract.image import (
    Buffer,
    ChannelOrder,
    EncodedImage,
    Orientation,
    PixelFormat,
    RawImage,
    SentImage,
    TensorImage,
    TensorLayout,
    ValueRange,
    YuvMatrix,
    YuvRange,
)
from vedette_server.contract.options import Asked, MaskFormat
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.tensor import orders
from vedette_server.engine.query import Outcome
from vedette_server.engine.queue import Priority
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.standing import State, why
from vedette_server.engine.stream import MOST_IN_FLIGHT, DropPolicy, DropReason, Frame, StreamSettings, Told
from vedette_server.explain.diagnosis import Candidate, Diagnosis, sheet, summary
from vedette_server.explain.findings import FINDINGS, OF_MISTAKE, Code, Finding
from vedette_server.repository.repository import ModelVersion
from vedette_server.repository.shelf import RefusedVersion
from vedette_server.rpc import errors

_OUTPUTS = {
    Output.BOXES: answer_pb2.OUTPUT_KIND_BOXES,
    Output.MASKS: answer_pb2.OUTPUT_KIND_MASKS,
    Output.KEYPOINTS: answer_pb2.OUTPUT_KIND_KEYPOINTS,
    Output.PANOPTIC: answer_pb2.OUTPUT_KIND_PANOPTIC,
    Output.SEMANTIC: answer_pb2.OUTPUT_KIND_SEMANTIC,
    Output.ROTATED_BOXES: answer_pb2.OUTPUT_KIND_ROTATED_BOXES,
}
_OWN_FORMATS = {
    ChannelOrder.BGR: image_pb2.PIXEL_FORMAT_BGR8,
    ChannelOrder.RGB: image_pb2.PIXEL_FORMAT_RGB8,
    ChannelOrder.GRAY: image_pb2.PIXEL_FORMAT_GRAY8,
    ChannelOrder.MODEL: image_pb2.PIXEL_FORMAT_8UCN,
}
_STATES = {
    State.LOADING: model_pb2.MODEL_STATE_LOADING,
    State.READY: model_pb2.MODEL_STATE_READY,
    State.UNAVAILABLE: model_pb2.MODEL_STATE_UNAVAILABLE,
}
_PRIORITIES = {
    detection_service_pb2.PRIORITY_LOW: Priority.LOW,
    detection_service_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    detection_service_pb2.PRIORITY_HIGH: Priority.HIGH,
}
LONGEST_ID = 128  # characters of ids chosen by callers, which go into the log unchanged
_OUTPUT_OF = {kind: output for output, kind in _OUTPUTS.items()}


def image(message: image_pb2.Image, data: Buffer | None) -> SentImage:
    """Return an image with its bytes: `data`, or those in the message. Raises `Refused`."""
    match message.WhichOneof("content"):
        case "encoded":
            return SentImage(_encoded(message.encoded), message.encoded.data if data is None else data)
        case "raw":
            return SentImage(_raw(message.raw), message.raw.data if data is None else data)
        case "tensor":
            return SentImage(_tensor(message.tensor), message.tensor.data if data is None else data)
        case None:
            raise Refused(Reason.IMAGE_MISSING)


def _encoded(message: image_pb2.EncodedImage) -> EncodedImage:
    orientation = _named(Orientation, message, "orientation") or Orientation.APPLY
    return EncodedImage(orientation, message.drop_alpha)


def _raw(message: image_pb2.RawImage) -> RawImage:
    pixel_format = _named(PixelFormat, message, "pixel_format")
    if pixel_format is None:
        raise Refused(Reason.PIXEL_FORMAT_MISSING, seen=message.pixel_format)
    return RawImage(
        pixel_format,
        message.height,
        message.width,
        message.row_stride if message.HasField("row_stride") else None,
        _named(YuvMatrix, message, "yuv_matrix"),
        _named(YuvRange, message, "yuv_range"),
        message.drop_alpha,
    )


def _tensor(message: image_pb2.TensorImage) -> TensorImage:
    order = _named(ChannelOrder, message, "channel_order")
    layout = _named(TensorLayout, message, "layout")
    value_range = _VALUE_RANGES.get(message.value_range)
    if order is None:
        raise Refused(Reason.TENSOR_UNDECLARED, field="channel_order", seen=message.channel_order)
    if layout is None:
        raise Refused(Reason.TENSOR_UNDECLARED, field="layout", seen=message.layout)
    if value_range is None:
        raise Refused(Reason.TENSOR_UNDECLARED, field="value_range", seen=message.value_range)
    return TensorImage(order, layout, value_range, message.height, message.width)


_VALUE_RANGES = {image_pb2.VALUE_RANGE_0_255: ValueRange.TO_255, image_pb2.VALUE_RANGE_0_1: ValueRange.TO_1}
Named = TypeVar("Named", bound=StrEnum)


def _named(kind: type[Named], message: Message, field: str) -> Named | None:
    """Return our value for an enum field, by its name; None if it is unspecified or unknown."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    value = enum.values_by_number.get(getattr(message, field)) if enum else None
    return next((member for member in kind if value and value.name.endswith(f"_{member}")), None)


def asked(options: detection_service_pb2.DetectOptions) -> Asked:
    """Convert a request's options. Raises `Refused` for an unknown output."""
    for kind in options.outputs:
        if kind not in _OUTPUT_OF:
            raise Refused(Reason.OUTPUT_NOT_PRODUCED, output=kind, produced="what GetModel lists", key="its family")
    mask_format = _named(MaskFormat, options, "mask_format")
    return Asked(
        threshold=decimal(options.threshold) if options.HasField("threshold") else None,
        outputs=tuple(_OUTPUT_OF[kind] for kind in options.outputs),
        mask_format=mask_format or MaskFormat.COCO_RLE,
        class_names=tuple(options.class_names),
        class_ids=tuple(options.class_ids),
        max_detections=options.max_detections if options.HasField("max_detections") else None,
        panoptic_threshold=decimal(options.panoptic_threshold) if options.HasField("panoptic_threshold") else None,
        contract_fingerprint=options.contract_fingerprint,
    )


def decimal(value: float) -> float:
    """Return a 32-bit float as the decimal that the caller wrote: 0.3, not 0.30000001192092896."""
    return float(f"{value:.7g}")


def priority(options: detection_service_pb2.DetectOptions) -> Priority:
    """Convert a request's priority; normal if unset."""
    return _PRIORITIES.get(options.priority, Priority.NORMAL)


def stream_settings(config: detection_service_pb2.StreamConfig, request_id: str) -> StreamSettings:
    """Convert a stream's configuration. Raises `Refused`: STREAM_NOT_CONFIGURED."""
    policy = _named(DropPolicy, config, "drop_policy")
    most = config.max_in_flight if config.HasField("max_in_flight") else None
    if policy is None:
        raise Refused(Reason.STREAM_NOT_CONFIGURED, field="drop_policy", seen=config.drop_policy, most=MOST_IN_FLIGHT)
    if most is not None and not 1 <= most <= MOST_IN_FLIGHT:
        raise Refused(Reason.STREAM_NOT_CONFIGURED, field="max_in_flight", seen=most, most=MOST_IN_FLIGHT)
    if len(config.stream_id) > LONGEST_ID or not config.stream_id.isprintable():
        length = f"{len(config.stream_id)} characters"
        raise Refused(Reason.STREAM_NOT_CONFIGURED, field="stream_id", seen=length, most=MOST_IN_FLIGHT)
    return StreamSettings(
        model=config.model_name,
        version=config.model_version,
        policy=policy,
        priority=priority(config.options),
        name=config.stream_id,
        max_in_flight=most,
        request_id=request_id,
    )


def frame(message: detection_service_pb2.Frame, data: Buffer | None) -> Frame:
    """Convert a frame of a stream. Raises `Refused`."""
    sent = image(message.image, data)
    captured = _nanoseconds(message.capture_time) if message.HasField("capture_time") else time.time_ns()
    return Frame(message.frame_id, captured, sent)


def _nanoseconds(sent: timestamp_pb2.Timestamp) -> int:
    try:
        return sent.ToNanoseconds()
    except ValueError as error:
        raise Refused(Reason.CAPTURE_TIME_INVALID, seconds=sent.seconds, nanos=sent.nanos) from error


def told(event: Told, request_id: str) -> detection_service_pb2.StreamDetectResponse:
    """Convert a frame's fate to the API's message."""
    captured = timestamp_pb2.Timestamp()
    captured.FromNanoseconds(event.captured)
    match event.fate:
        case Outcome():
            given = detection_service_pb2.FrameAnswer(
                frame_id=event.frame_id,
                capture_time=captured,
                age_seconds=max(time.time_ns() - event.captured, 0) / 1e9,
                answer=answer(event.fate),
            )
            return detection_service_pb2.StreamDetectResponse(answer=given)
        case DropReason():
            reason = detection_service_pb2.DropReason.Value(f"DROP_REASON_{event.fate}")
            dropped = detection_service_pb2.DroppedFrame(frame_id=event.frame_id, reason=reason)
            return detection_service_pb2.StreamDetectResponse(dropped=dropped)
        case Refused():
            failed = detection_service_pb2.FrameError(
                frame_id=event.frame_id, status=errors.status(event.fate, request_id)
            )
            return detection_service_pb2.StreamDetectResponse(error=failed)


def answer(outcome: Outcome) -> answer_pb2.Answer:
    """Convert an outcome to the API's answer."""
    given, contract = outcome.answer, outcome.model.contract
    size = image_pb2.ImageSize(height=given.height, width=given.width)
    return answer_pb2.Answer(
        detections=_detections(given, contract),
        panoptic=_panoptic(given.panoptic, contract) if given.panoptic else None,
        semantic=answer_pb2.Semantic(class_map_png=given.class_map_png) if given.class_map_png else None,
        image_size=size,
        empty=_empty(outcome) if given.empty else None,
        findings=[_finding(finding) for finding in outcome.findings],
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
        points = () if found.keypoints is None else found.keypoints[index].tolist()
        yield answer_pb2.Detection(
            box=answer_pb2.Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3]),
            score=score,
            class_id=class_id,
            class_name=contract.class_name(class_id),
            mask=_mask(found.masks[index], given) if found.masks else None,
            keypoints=[answer_pb2.Keypoint(x=x, y=y, score=certainty) for x, y, certainty in points],
            rotated_box=None if found.rotated is None else _rotated(found.rotated[index].tolist()),
        )


def _rotated(box: Sequence[float]) -> answer_pb2.RotatedBox:
    x, y, width, height, angle = box
    return answer_pb2.RotatedBox(center_x=x, center_y=y, width=width, height=height, angle=angle)


def _mask(mask: Mask, given: Answer) -> answer_pb2.Mask:
    outlines = [answer_pb2.Polygon(coordinates=line) for line in mask.polygons or ()]
    told = answer_pb2.Mask(height=given.height, width=given.width)
    if mask.counts is not None:
        told.counts = mask.counts
    elif mask.png is not None:
        told.png = mask.png
    else:
        told.polygons.CopyFrom(answer_pb2.Polygons(polygons=outlines))
    return told


def _empty(outcome: Outcome) -> answer_pb2.EmptyAnswer:
    evidence = outcome.answer.evidence
    best = evidence.best_class_id
    return answer_pb2.EmptyAnswer(
        reason=_code(outcome.findings[0].code),
        best_score=evidence.best_score,
        best_class_name="" if best is None else outcome.model.contract.class_names[best],
        counts=answer_pb2.StageCounts(
            proposed=evidence.proposed,
            proposals=evidence.proposals,
            scored=evidence.scored,
            candidates=evidence.candidates,
            overlapped=evidence.overlapped,
            suppressed=evidence.suppressed,
            filtered=evidence.filtered,
            capped=evidence.capped,
            clipped=evidence.clipped,
            dropped=evidence.dropped,
        ),
        threshold=outcome.answer.threshold,
    )


def _code(code: Code) -> answer_pb2.FindingCode.ValueType:
    return answer_pb2.FindingCode.Value(f"FINDING_CODE_{code}")


def _finding(given: Finding) -> answer_pb2.Finding:
    confidence = answer_pb2.Confidence.Value(f"CONFIDENCE_{given.confidence}")
    return answer_pb2.Finding(
        code=_code(given.code), confidence=confidence, evidence=given.evidence, remedy=given.remedy
    )


def diagnosis(given: Diagnosis, model: ModelVersion, request_id: str) -> detection_service_pb2.DiagnoseResponse:
    """Convert a diagnosis to the API's response. Draws the comparison sheet, which takes a moment."""
    return detection_service_pb2.DiagnoseResponse(
        summary=summary(given, model.contract),
        candidates=[_candidate(one, given) for one in given.ranked],
        comparison_png=sheet(given),
        detection_count=given.as_sent.detections,
        best_score=given.as_sent.best_score,
        findings=[_finding(finding) for finding in given.findings],
        threshold=given.as_sent.answer.threshold,
        request_id=request_id,
    )


def _candidate(one: Candidate, given: Diagnosis) -> detection_service_pb2.DiagnosisCandidate:
    code, _ = OF_MISTAKE[one.mistake]
    return detection_service_pb2.DiagnosisCandidate(
        mistake=detection_service_pb2.Mistake.Value(f"MISTAKE_{one.mistake}"),
        code=_code(code),
        detection_count=one.detections,
        best_score=one.best_score,
        helps=one.gains_on(given.as_sent),
        remedy=FINDINGS[code].remedy,
    )


def _panoptic(given: Panoptic, contract: InputContract) -> answer_pb2.Panoptic:
    segments = [
        answer_pb2.PanopticSegment(
            id=segment.id,
            is_thing=segment.is_thing,
            class_id=segment.class_id,
            class_name=contract.class_name(segment.class_id)
            if segment.is_thing
            else contract.stuff_name(segment.class_id),
            score=segment.score,
            area=segment.area,
        )
        for segment in given.segments
    ]
    return answer_pb2.Panoptic(segment_map_png=given.segment_map_png, segments=segments)


def model(served: ServedVersion) -> model_pb2.Model:
    """Convert a served version to the API's model."""
    return model_pb2.Model(
        name=served.model.name,
        version=str(served.model.version),
        description=served.model.description,
        state=_STATES[served.standing.state],
        state_reason=served.standing.reason,
        contract=_contract(served.model.contract),
        waivers=served.model.contract.waivers,
    )


def refused(version: RefusedVersion) -> model_pb2.Model:
    """Convert a refused version to the API's model, without a contract."""
    return model_pb2.Model(
        name=version.name,
        version=str(version.version),
        state=model_pb2.MODEL_STATE_UNAVAILABLE,
        state_reason=why(version.reason.check),
    )


def _contract(given: InputContract) -> model_pb2.Contract:
    limits = given.limits
    return model_pb2.Contract(
        fingerprint=given.fingerprint,
        model_pixel_format=_OWN_FORMATS[given.channel_order],
        channels=given.channels,
        resize=model_pb2.ResizeRule(shortest_edge=given.resize.shortest_edge, longest_edge=given.resize.longest_edge),
        pixel_mean=given.pixel_mean,
        pixel_std=given.pixel_std,
        outputs=[_OUTPUTS[output] for output in given.outputs],
        class_names=given.class_names,
        stuff_class_names=given.stuff_class_names,
        keypoint_names=given.keypoint_names,
        plugins=given.plugins,
        floor=given.floor,
        default_threshold=given.default_threshold,
        max_detections=given.max_detections,
        accepted_pixel_formats=[
            image_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{kind}")
            for kind in given.inputs
            if kind.name in PixelFormat.__members__
        ],
        accepted_channel_orders=[
            image_pb2.ChannelOrder.Value(f"CHANNEL_ORDER_{order}")
            for order in orders(given.channel_order)
            if Input.TENSOR in given.inputs
        ],
        accepts_encoded=Input.ENCODED in given.inputs,
        accepts_tensors=Input.TENSOR in given.inputs,
        panoptic_threshold=given.panoptic_threshold,
        limits=model_pb2.Limits(max_bytes=limits.max_bytes, max_pixels=limits.max_pixels, max_edge=limits.max_edge),
        precision=given.precision,
        own_threshold=given.own_threshold,
    )

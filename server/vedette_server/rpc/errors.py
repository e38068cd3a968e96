"""The one table of errors: what callers read for each reason, and with which gRPC code.

A message says what was wrong and what was seen; the remedy says what to do. Both are filled with the facts of the
refusal. Nothing else about an error ever reaches a caller.
"""

import datetime as dt
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from vedette_server.contract.refusal import Reason, Refused

DOMAIN = "vedette"
_RETRY_SECONDS, _LEAST_RETRY_SECONDS = 0.5, 0.01

Code: TypeAlias = grpc.StatusCode


@dataclass(frozen=True)
class ErrorRow:
    """How one reason is told."""

    code: Code
    field: str | None  # of the request, or the name of the fact that holds it; set exactly with INVALID_ARGUMENT
    message: str
    remedy: str
    retry: bool = False  # with RetryInfo


_INVALID, _MISSING, _BUSY = Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAVAILABLE

TABLE: dict[Reason, ErrorRow] = {
    Reason.IMAGE_MISSING: ErrorRow(
        _INVALID,
        "image",
        "The request has no image, or an empty one.",
        "Set image.encoded.data to a file's bytes, or image.raw.data to pixels with their format.",
    ),
    Reason.IMAGE_TOO_MANY_BYTES: ErrorRow(
        _INVALID,
        "image",
        "The image has {bytes} bytes; this model takes at most {max_bytes}.",
        "Send a compressed or smaller image, or have the operator raise limits.max_bytes in model.toml.",
    ),
    Reason.IMAGE_UNREADABLE: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The data is no image that is taken: {seen}.",
        "Send JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF of 8 bits a sample; here: {remedy}.",
    ),
    Reason.IMAGE_TRUNCATED: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The {codec} file is broken or cut short: its {bytes} bytes cannot be decoded to the end.",
        "Send the whole file; compare its size with the original's.",
    ),
    Reason.IMAGE_TOO_DEEP: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The {codec} file has more than 8 bits a sample; there is no single right way to reduce them.",
        "Convert it to 8 bits a sample the way the model's training images were converted.",
    ),
    Reason.IMAGE_NOT_UPRIGHT: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The picture is not stored upright (EXIF orientation {orientation}), and the request refuses such pictures.",
        "Turn the pixels before saving, or send ORIENTATION_APPLY to have it turned by its EXIF data.",
    ),
    Reason.IMAGE_ANIMATED: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The file holds {frames} frames or pages; which one to look at is not for the server to guess.",
        "Send one frame as an image of its own.",
    ),
    Reason.IMAGE_TOO_LARGE: ErrorRow(
        _INVALID,
        "image",
        "The image is {width} x {height} pixels; this model takes at most {max_pixels} in all and {max_edge} an edge.",
        "Scale it down, or have the operator raise [limits] in model.toml.",
    ),
    Reason.IMAGE_TOO_NARROW: ErrorRow(
        _INVALID,
        "image",
        "The image is {width} x {height} pixels, and the model's own resizing (shortest edge {shortest_edge}, longest "
        "{longest_edge}) would make it {resized_width} x {resized_height}: no edge may become 0, nor the area exceed "
        "{max_pixels}.",
        "Cut the strip into pieces of less extreme proportions and send each; scaling it down changes nothing.",
    ),
    Reason.IMAGE_TOO_COSTLY: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The JPEG has {scans} scans of {width}x{height} pixels, each of which is decoded; at most {most} are taken.",
        "Save it again as a baseline JPEG.",
    ),
    Reason.PIXEL_FORMAT_MISSING: ErrorRow(
        _INVALID,
        "image.raw.pixel_format",
        "Raw pixels were sent without their format, or with one that is not known ({seen}).",
        "Say PIXEL_FORMAT_BGR8 (what OpenCV reads), PIXEL_FORMAT_RGB8 (what Pillow reads), or what else they are.",
    ),
    Reason.SIZE_INVALID: ErrorRow(
        _INVALID,
        "image",
        "The pixels were sent with width {width} and height {height}.",
        "Set both to the image's size in pixels, each at least 1.",
    ),
    Reason.ROW_STRIDE_INVALID: ErrorRow(
        _INVALID,
        "image.raw.row_stride",
        "The row stride is {row_stride} bytes; a row of {width} pixels needs at least {least}.",
        "Leave row_stride unset for packed rows, or set it to the bytes from one row to the next.",
    ),
    Reason.RAW_LENGTH_MISMATCH: ErrorRow(
        _INVALID,
        "image.raw.data",
        "{bytes} bytes were sent; {width} x {height} {pixel_format} pixels, {row_stride} bytes a row, are {expected}.",
        "Check width and height (are they exchanged?), the pixel format, and the dtype, which must be 8 bits.",
    ),
    Reason.YUV_UNDECLARED: ErrorRow(
        _INVALID,
        "image.raw.yuv_matrix",
        "The format is {pixel_format}: yuv_matrix and yuv_range must both be set for NV12 and I420, and for no other.",
        "Say what the decoder or the stream's header says; high-definition video is mostly BT709, LIMITED.",
    ),
    Reason.ALPHA_NOT_DROPPED: ErrorRow(
        _INVALID,
        "{field}",
        "The image is {format} with an alpha channel, which the model cannot see.",
        "Set drop_alpha to have it ignored, or lay the image over the background that it belongs to.",
    ),
    Reason.INPUT_NOT_ALLOWED: ErrorRow(
        _INVALID,
        "image",
        "The image was sent as {kind}, which this model's contract does not allow.",
        "Send one of {allowed}, or have the operator add it to inputs in model.toml, if the model's channels permit.",
    ),
    Reason.TENSOR_UNDECLARED: ErrorRow(
        _INVALID,
        "image.tensor.{field}",
        "A tensor was sent without its {field}, or with one that is not known ({seen}).",
        "Say the channel order, the layout and the value range: there are no defaults.",
    ),
    Reason.CHANNELS_NOT_THE_MODELS: ErrorRow(
        _INVALID,
        "image.tensor.channel_order",
        "The tensor's channels were declared as {channel_order}; this model takes {channels}, declared as {allowed}.",
        "Send the channels that the model was trained on; files and raw colours are made grey for a model of grey.",
    ),
    Reason.TENSOR_LENGTH_MISMATCH: ErrorRow(
        _INVALID,
        "image.tensor.data",
        "{bytes} bytes were sent; {width} x {height} pixels of {channels} 32-bit floats are {expected}.",
        "Check width and height (are they exchanged?) and the dtype, which must be 32-bit floats.",
    ),
    Reason.VALUES_NOT_FINITE: ErrorRow(
        _INVALID,
        "image.tensor.data",
        "{count} values are NaN or infinite.",
        "Find where they come from; a model drops what it computes from them without a word.",
    ),
    Reason.VALUES_NORMALISED: ErrorRow(
        _INVALID,
        "image.tensor.data",
        "Values reach from {lowest} to {highest}, below the declared {value_range}: a mean seems to be subtracted.",
        "Send the pixels as they are: the model itself subtracts its mean and divides by its standard deviation.",
    ),
    Reason.VALUES_IN_UNIT_RANGE: ErrorRow(
        _INVALID,
        "image.tensor.value_range",
        "All values lie in {lowest} to {highest}; {value_range} was declared: they seem to be scaled to [0, 1].",
        "Declare VALUE_RANGE_0_1, or send the pixels unscaled.",
    ),
    Reason.VALUES_OUT_OF_RANGE: ErrorRow(
        _INVALID,
        "image.tensor.value_range",
        "Values reach from {lowest} to {highest}, beyond the declared range of {value_range}.",
        "Declare VALUE_RANGE_0_255, or scale the values to what is declared.",
    ),
    Reason.LAYOUT_CONTRADICTED: ErrorRow(
        _INVALID,
        "{field}",
        "The pixels were declared as {declared}, and neighbouring values say that they are {seen}.",
        "Declare the layout that they have (height, width, channel is HWC), or transpose them.",
    ),
    Reason.CONTRACT_CHANGED: ErrorRow(
        Code.FAILED_PRECONDITION,
        None,
        "The request asks for the contract {asked}; served is {served}.",
        "See what changed with GetModel; then ask for the new fingerprint, or for the version that has the old one.",
    ),
    Reason.OUTPUT_NOT_PRODUCED: ErrorRow(
        _INVALID,
        "options.outputs",
        "This model does not produce {output}; it produces {produced}.",
        "Ask for what it produces; its config decides that, by {key}.",
    ),
    Reason.CLASS_UNKNOWN: ErrorRow(
        _INVALID,
        "options.class_names",
        "This model has no class {asked!r}.",
        "Its classes are {classes}.",
    ),
    Reason.MAX_DETECTIONS_INVALID: ErrorRow(
        _INVALID,
        "options.max_detections",
        "{asked} detections were asked for; this model gives 1 to {most}.",
        "Ask for a number within, or for none.",
    ),
    Reason.THRESHOLD_OUT_OF_RANGE: ErrorRow(
        _INVALID,
        "{field}",
        "The threshold is {threshold}; scores lie between 0 and 1.",
        "Send a fraction, such as 0.5 for 50 %, or leave it unset for the model's own.",
    ),
    Reason.THRESHOLD_BELOW_FLOOR: ErrorRow(
        _INVALID,
        "options.threshold",
        "The threshold is {threshold}; this model computes no candidates below its floor of {floor}.",
        "Send at least the floor.",
    ),
    Reason.REQUEST_ID_INVALID: ErrorRow(
        _INVALID,
        "request_id",
        "The request id has {length} characters; up to {most} printable ones are taken.",
        "Send a shorter one, or none: the server then makes one.",
    ),
    Reason.REQUEST_UNREADABLE: ErrorRow(
        _INVALID,
        "request",
        "The {bytes} bytes that were sent are not the Protobuf message that this method takes.",
        "Build requests with code generated from the .proto files of this server's version.",
    ),
    Reason.REQUEST_TOO_LARGE: ErrorRow(
        _INVALID,
        "request",
        "The request has {bytes} bytes; beside its image it may have at most {most}, in {fields} fields.",
        "Put the pixels into the image's data, and send neither fields nor names that the API does not have.",
    ),
    Reason.REQUEST_STALLED: ErrorRow(
        Code.DEADLINE_EXCEEDED,
        None,
        "The request had not arrived whole after {seconds} seconds.",
        "Send it on a faster connection, or a smaller image.",
    ),
    Reason.INTAKE_FULL: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "Too much of what is being sent here has not arrived whole, and this request has waited longest.",
        "Try again after the delay in RetryInfo; send smaller images, or fewer at once.",
        retry=True,
    ),
    Reason.FEATURE_NOT_SERVED: ErrorRow(
        Code.UNIMPLEMENTED,
        None,
        "This server has {feature} switched off.",
        "Start it with diagnose_share above 0.",
    ),
    Reason.MODEL_NAME_MISSING: ErrorRow(
        _INVALID,
        "model_name",
        "The request names no model, and more than one is served.",
        "Name one of: {served}.",
    ),
    Reason.SAMPLE_MISSING: ErrorRow(
        _MISSING,
        None,
        "No empty frame of {stream!r} of {model!r} has been sampled.",
        "Send the image itself; frames are sampled once a stream goes empty beyond its usual rate.",
    ),
    Reason.MODEL_NOT_FOUND: ErrorRow(_MISSING, None, "There is no model {model!r}.", "Name one of: {served}."),
    Reason.MODEL_VERSION_NOT_FOUND: ErrorRow(
        _MISSING,
        None,
        "Model {model!r} has no version {version!r}.",
        "Name one of: {served}; or leave model_version unset for the newest that is ready.",
    ),
    Reason.MODEL_NOT_READY: ErrorRow(
        _BUSY,
        None,
        "Model {model!r} does not answer now: {why}.",
        "Try again; watch grpc.health.v1 or /readyz.",
        retry=True,
    ),
    Reason.OVERLOADED: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{queued} requests wait for model {model!r}: an answer would take {expected} seconds; {limit} leaves {left}.",
        "Try again after the delay in RetryInfo, send less at once, raise that limit, or add workers.",
        retry=True,
    ),
    Reason.DEADLINE_EXCEEDED: ErrorRow(
        Code.DEADLINE_EXCEEDED,
        None,
        "The request was not answered within {seconds} seconds, the time that {limit} allows.",
        "Send less at once, raise that limit, or add workers.",
    ),
    Reason.IMAGE_POISONOUS: ErrorRow(
        Code.ABORTED,
        None,
        "{losses} workers ended while they looked at this image; it is not tried again.",
        "Do not send it again. Report it, with the image, to whoever operates the server.",
    ),
    Reason.WORKERS_LOST: ErrorRow(
        _BUSY,
        None,
        "{losses} workers were ended from outside while they looked at this image.",
        "Try again. The server's log says which; the system's log may say why: too little memory, for one.",
        retry=True,
    ),
    Reason.WORKER_OUT_OF_MEMORY: ErrorRow(
        Code.ABORTED,
        None,
        "{losses} workers ran out of memory while they looked at this image; it is not tried again.",
        "Send a smaller image, or have the server's operator give its workers more memory.",
    ),
    Reason.STREAM_NOT_CONFIGURED: ErrorRow(
        _INVALID,
        "config.{field}",
        "A stream begins with its configuration; {field} was {seen}.",
        "Send a StreamConfig first, with a drop policy, a stream_id of up to 128 printable characters, and "
        "max_in_flight unset or from 1 to {most}.",
    ),
    Reason.STREAM_CHANGED: ErrorRow(
        _INVALID,
        "config.{field}",
        "The stream was reconfigured with another {field}; only its options can change while it runs.",
        "Open another stream.",
    ),
    Reason.FRAME_OUT_OF_ORDER: ErrorRow(
        _INVALID,
        "frame.frame_id",
        "Frame {frame_id} came after frame {last}.",
        "Number the frames of a stream upwards.",
    ),
    Reason.CAPTURE_TIME_INVALID: ErrorRow(
        _INVALID,
        "frame.capture_time",
        "The capture time has {seconds} seconds and {nanos} nanoseconds, which is no time of the years 1 to 9999.",
        "Send the time since 1970, in UTC, or leave it unset for the time at which the frame arrives.",
    ),
    Reason.TOO_MANY_STREAMS: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{most} streams are open already.",
        "Close one, or have the operator raise max_streams.",
        retry=True,
    ),
    Reason.CREDENTIALS_MISSING: ErrorRow(
        Code.UNAUTHENTICATED,
        None,
        "The call shows nothing that says who it is from, which {verb} takes here.",
        "Send a token as 'authorization: Bearer TOKEN', or come with a client certificate; the operator gives either.",
    ),
    Reason.CREDENTIALS_REFUSED: ErrorRow(
        Code.UNAUTHENTICATED,
        None,
        "What the call shows of who it is from is not taken: {why}.",
        "Ask the operator for another token or certificate; leave out what is not meant for this server.",
    ),
    Reason.NOT_PERMITTED: ErrorRow(
        Code.PERMISSION_DENIED,
        None,
        "{who} may not {verb}{what} here.",
        "Ask the operator for a rule in the policy file that allows it.",
    ),
    Reason.RATE_EXCEEDED: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{who} may send {rate} requests a second, and has sent them.",
        "Try again after the delay in RetryInfo, or have the operator raise rate in the policy file.",
        retry=True,
    ),
    Reason.STREAMS_EXCEEDED: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{who} has {most} streams open, as many as it may.",
        "Close one, or have the operator raise max_streams in the policy file.",
        retry=True,
    ),
    Reason.SHUTTING_DOWN: ErrorRow(
        _BUSY, None, "The server is shutting down.", "Try again, on another server.", retry=True
    ),
    Reason.INTERNAL: ErrorRow(
        Code.INTERNAL,
        None,
        "Something went wrong in the server.",
        "Report the request id {request_id} to whoever operates it.",
    ),
}


def status(refusal: Refused, request_id: str) -> status_pb2.Status:
    """What a caller gets for a refusal: one ErrorInfo, and the field or the delay where there is one."""
    row = TABLE[refusal.reason]
    facts = _Facts(refusal.facts, request_id=request_id)
    message = f"{row.message} {row.remedy}".format_map(facts)
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=facts)
    details = [_pack(info)]
    if row.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=row.field.format_map(facts), description=message, reason=refusal.reason
        )
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if row.retry:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(dt.timedelta(seconds=retry_seconds(refusal)))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    number: int = row.code.value[0]
    return status_pb2.Status(code=number, message=message, details=details)


async def refuse(context: grpc.aio.ServicerContext[Any, Any], refusal: Refused, request_id: str) -> NoReturn:
    """End a call with the refusal's status, by an exception of gRPC's own."""
    traceback.clear_frames(refusal.__traceback__)  # which would keep the image until Python looks for cycles
    if TABLE[refusal.reason].retry:  # the same as RetryInfo, for gRPC's own retries
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(round(retry_seconds(refusal) * 1e3))),))
    await context.abort_with_status(rpc_status.to_status(status(refusal, request_id)))
    raise AssertionError


def retry_seconds(refusal: Refused) -> float:
    """When a caller should try again: what the refusal says, or the default."""
    return max(float(refusal.facts.get("retry_seconds", _RETRY_SECONDS)), _LEAST_RETRY_SECONDS)


class _Facts(dict[str, str]):
    """A fact that a message names and a refusal lacks must not turn an answer into a failure."""

    def __missing__(self, key: str) -> str:
        return "?"


def _pack(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed

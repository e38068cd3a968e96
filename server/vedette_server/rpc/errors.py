"""The single table of errors: message, remedy and gRPC code for each reason.

A message says what was wrong and what was seen; the remedy says what to do. The facts of the refusal fill both. Callers
never receive anything else about an error.
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
    """The description of one reason."""

    code: Code
    field: str | None  # request field, or the name of the fact that holds it; set exactly if INVALID_ARGUMENT
    message: str
    remedy: str
    retry: bool = False  # add RetryInfo


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
        "The data is not a supported image: {seen}.",
        "Send JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF with 8 bits a sample; in this case: {remedy}.",
    ),
    Reason.IMAGE_TRUNCATED: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The {codec} file is corrupt or truncated: its {bytes} bytes cannot be fully decoded.",
        "Send the complete file; compare its size with the original's.",
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
        "Rotate the pixels before saving, or set ORIENTATION_APPLY to rotate the picture by its EXIF data.",
    ),
    Reason.IMAGE_ANIMATED: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The file holds {frames} frames or pages; the server does not guess which one is meant.",
        "Send a single frame as an image.",
    ),
    Reason.IMAGE_TOO_LARGE: ErrorRow(
        _INVALID,
        "image",
        "The image is {width} x {height} pixels; this model takes at most {max_pixels} in all and {max_edge} per edge.",
        "Scale it down, or have the operator raise [limits] in model.toml.",
    ),
    Reason.IMAGE_TOO_NARROW: ErrorRow(
        _INVALID,
        "image",
        "The image is {width} x {height} pixels, and the model's resizing (shortest edge {shortest_edge}, longest "
        "{longest_edge}) makes it {resized_width} x {resized_height}: no edge may become 0, nor the area exceed "
        "{max_pixels}.",
        "Cut it into pieces with less extreme proportions, and send each; scaling it down does not help.",
    ),
    Reason.IMAGE_TOO_COSTLY: ErrorRow(
        _INVALID,
        "image.encoded.data",
        "The JPEG has {scans} scans of {width}x{height} pixels, and each must be decoded; the limit is {most}.",
        "Save it again as a baseline JPEG.",
    ),
    Reason.PIXEL_FORMAT_MISSING: ErrorRow(
        _INVALID,
        "image.raw.pixel_format",
        "Raw pixels were sent without their format, or with an unknown one ({seen}).",
        "Set PIXEL_FORMAT_BGR8 (OpenCV's order), PIXEL_FORMAT_RGB8 (Pillow's order), or the actual format.",
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
        "{bytes} bytes were sent; {width} x {height} {pixel_format} at {row_stride} bytes per row needs {expected}.",
        "Check width and height (are they swapped?), the pixel format, and the dtype, which must be 8-bit.",
    ),
    Reason.YUV_UNDECLARED: ErrorRow(
        _INVALID,
        "image.raw.yuv_matrix",
        "The format is {pixel_format}: NV12 and I420 require both yuv_matrix and yuv_range, and others allow neither.",
        "Use the values of the decoder or the stream's header; high-definition video is mostly BT709, LIMITED.",
    ),
    Reason.ALPHA_NOT_DROPPED: ErrorRow(
        _INVALID,
        "{field}",
        "The image is {format} with an alpha channel, which the model cannot see.",
        "Set drop_alpha to ignore it, or composite the image onto its background.",
    ),
    Reason.INPUT_NOT_ALLOWED: ErrorRow(
        _INVALID,
        "image",
        "The image was sent as {kind}, which this model's contract does not allow.",
        "Send one of {allowed}, or have the operator add it to inputs in model.toml, if the model's channels allow it.",
    ),
    Reason.TENSOR_UNDECLARED: ErrorRow(
        _INVALID,
        "image.tensor.{field}",
        "A tensor was sent without its {field}, or with an unknown one ({seen}).",
        "Set the channel order, the layout and the value range: there are no defaults.",
    ),
    Reason.CHANNELS_NOT_THE_MODELS: ErrorRow(
        _INVALID,
        "image.tensor.channel_order",
        "The tensor's channels were declared as {channel_order}; this model takes {channels}, declared as {allowed}.",
        "Send the channels that the model was trained on; files and raw colours are converted to grey for grey models.",
    ),
    Reason.TENSOR_LENGTH_MISMATCH: ErrorRow(
        _INVALID,
        "image.tensor.data",
        "{bytes} bytes were sent; {width} x {height} pixels of {channels} 32-bit floats require {expected}.",
        "Check width and height (are they swapped?) and the dtype, which must be 32-bit float.",
    ),
    Reason.VALUES_NOT_FINITE: ErrorRow(
        _INVALID,
        "image.tensor.data",
        "{count} values are NaN or infinite.",
        "Find out where they come from; a model silently drops whatever it computes from them.",
    ),
    Reason.VALUES_NORMALISED: ErrorRow(
        _INVALID,
        "image.tensor.data",
        "Values range from {lowest} to {highest}, below the declared {value_range}: was a mean subtracted?",
        "Send the original pixels: the model itself subtracts its mean and divides by its standard deviation.",
    ),
    Reason.VALUES_IN_UNIT_RANGE: ErrorRow(
        _INVALID,
        "image.tensor.value_range",
        "All values are from {lowest} to {highest}, but {value_range} was declared: they seem to be scaled to [0, 1].",
        "Declare VALUE_RANGE_0_1, or send the pixels unscaled.",
    ),
    Reason.VALUES_OUT_OF_RANGE: ErrorRow(
        _INVALID,
        "image.tensor.value_range",
        "Values range from {lowest} to {highest}, beyond the declared {value_range}.",
        "Declare VALUE_RANGE_0_255, or scale the values to the declared range.",
    ),
    Reason.LAYOUT_CONTRADICTED: ErrorRow(
        _INVALID,
        "{field}",
        "The pixels were declared as {declared}, but neighbouring values show that they are {seen}.",
        "Declare their actual layout (height, width, channel is HWC), or transpose them.",
    ),
    Reason.CONTRACT_CHANGED: ErrorRow(
        Code.FAILED_PRECONDITION,
        None,
        "The request requires the contract {asked}, but the server has {served}.",
        "Check what changed with GetModel; then require the new fingerprint, or the version that has the old one.",
    ),
    Reason.OUTPUT_NOT_PRODUCED: ErrorRow(
        _INVALID,
        "options.outputs",
        "This model does not produce {output}; it produces {produced}.",
        "Request one that it produces; its config determines them through {key}.",
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
        "{asked} detections were requested; this model returns 1 to {most}.",
        "Request a number in that range, or leave it unset.",
    ),
    Reason.THRESHOLD_OUT_OF_RANGE: ErrorRow(
        _INVALID,
        "{field}",
        "The threshold is {threshold}; scores lie between 0 and 1.",
        "Send a fraction, such as 0.5 for 50 %, or leave it unset for the model's default.",
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
        "The request id has {length} characters; up to {most} printable ones are allowed.",
        "Send a shorter one, or none: the server then generates one.",
    ),
    Reason.REQUEST_UNREADABLE: ErrorRow(
        _INVALID,
        "request",
        "The {bytes} bytes sent are not the Protobuf message that this method takes.",
        "Build requests with code generated from the .proto files of this server's version.",
    ),
    Reason.REQUEST_TOO_LARGE: ErrorRow(
        _INVALID,
        "request",
        "The request has {bytes} bytes; besides its image, at most {most} bytes in {fields} fields are allowed.",
        "Put the pixels into the image's data, and send only fields and names that the API has.",
    ),
    Reason.REQUEST_STALLED: ErrorRow(
        Code.DEADLINE_EXCEEDED,
        None,
        "The request had not arrived completely after {seconds} seconds.",
        "Use a faster connection, or send a smaller image.",
    ),
    Reason.INTAKE_FULL: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "The server holds too much incomplete input, and this request has been arriving for longest.",
        "Try again after the delay in RetryInfo; send smaller images, or fewer at once.",
        retry=True,
    ),
    Reason.FEATURE_NOT_SERVED: ErrorRow(
        Code.UNIMPLEMENTED,
        None,
        "This server has {feature} switched off.",
        "Start the server with diagnose_share above 0.",
    ),
    Reason.MODEL_NAME_MISSING: ErrorRow(
        _INVALID,
        "model_name",
        "The request names no model, but the server has more than one.",
        "Name one of: {served}.",
    ),
    Reason.SAMPLE_MISSING: ErrorRow(
        _MISSING,
        None,
        "No empty frame of {stream!r} of {model!r} has been sampled.",
        "Send the image itself; frames are sampled once a stream is empty more often than usual.",
    ),
    Reason.MODEL_NOT_FOUND: ErrorRow(_MISSING, None, "There is no model {model!r}.", "Name one of: {served}."),
    Reason.MODEL_VERSION_NOT_FOUND: ErrorRow(
        _MISSING,
        None,
        "Model {model!r} has no version {version!r}.",
        "Name one of: {served}; or leave model_version unset for the newest ready version.",
    ),
    Reason.MODEL_NOT_READY: ErrorRow(
        _BUSY,
        None,
        "Model {model!r} is not ready: {why}.",
        "Try again, or watch grpc.health.v1 or /readyz.",
        retry=True,
    ),
    Reason.OVERLOADED: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{queued} requests wait for model {model!r}: an answer would take {expected} seconds; {limit} leaves {left}.",
        "Try again after the delay in RetryInfo, send fewer at once, raise that limit, or add workers.",
        retry=True,
    ),
    Reason.DEADLINE_EXCEEDED: ErrorRow(
        Code.DEADLINE_EXCEEDED,
        None,
        "The request was not answered within {seconds} seconds, the time that {limit} allows.",
        "Send fewer at once, raise that limit, or add workers.",
    ),
    Reason.IMAGE_POISONOUS: ErrorRow(
        Code.ABORTED,
        None,
        "{losses} workers failed while processing this image; it is not retried.",
        "Do not send it again. Report it, with the image, to the server's operator.",
    ),
    Reason.WORKERS_LOST: ErrorRow(
        _BUSY,
        None,
        "{losses} workers were killed from outside while processing this image.",
        "Try again. The server's log names them; the system's log may say why, such as a lack of memory.",
        retry=True,
    ),
    Reason.WORKER_OUT_OF_MEMORY: ErrorRow(
        Code.ABORTED,
        None,
        "{losses} workers ran out of memory while processing this image; it is not retried.",
        "Send a smaller image, or have the server's operator give its workers more memory.",
    ),
    Reason.STREAM_NOT_CONFIGURED: ErrorRow(
        _INVALID,
        "config.{field}",
        "A stream must begin with its configuration; {field} was {seen}.",
        "Send a StreamConfig first, with a drop policy, a stream_id of up to 128 printable characters, and "
        "max_in_flight unset or from 1 to {most}.",
    ),
    Reason.STREAM_CHANGED: ErrorRow(
        _INVALID,
        "config.{field}",
        "The stream was reconfigured with another {field}; only its options can change while it is open.",
        "Open another stream.",
    ),
    Reason.FRAME_OUT_OF_ORDER: ErrorRow(
        _INVALID,
        "frame.frame_id",
        "Frame {frame_id} came after frame {last}.",
        "Number the frames of a stream in increasing order.",
    ),
    Reason.CAPTURE_TIME_INVALID: ErrorRow(
        _INVALID,
        "frame.capture_time",
        "The capture time of {seconds} seconds and {nanos} nanoseconds is not in the years 1 to 9999.",
        "Send the time since 1970, in UTC, or leave it unset to use the frame's arrival time.",
    ),
    Reason.TOO_MANY_STREAMS: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{most} streams are already open.",
        "Close one, or have the operator raise max_streams.",
        retry=True,
    ),
    Reason.CREDENTIALS_MISSING: ErrorRow(
        Code.UNAUTHENTICATED,
        None,
        "The call has no credentials, which {verb} requires here.",
        "Send a token as 'authorization: Bearer TOKEN', or use a client certificate; the operator issues both.",
    ),
    Reason.CREDENTIALS_REFUSED: ErrorRow(
        Code.UNAUTHENTICATED,
        None,
        "The call's credentials are not accepted: {why}.",
        "Ask the operator for another token or certificate; omit credentials that are not meant for this server.",
    ),
    Reason.NOT_PERMITTED: ErrorRow(
        Code.PERMISSION_DENIED,
        None,
        "{who} may not {verb}{what} here.",
        "Ask the operator to allow it with a rule in the policy file.",
    ),
    Reason.RATE_EXCEEDED: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{who} has used up its {rate} requests per second.",
        "Try again after the delay in RetryInfo, or have the operator raise rate in the policy file.",
        retry=True,
    ),
    Reason.STREAMS_EXCEEDED: ErrorRow(
        Code.RESOURCE_EXHAUSTED,
        None,
        "{who} already has its maximum of {most} streams open.",
        "Close one, or have the operator raise max_streams in the policy file.",
        retry=True,
    ),
    Reason.SHUTTING_DOWN: ErrorRow(
        _BUSY, None, "The server is shutting down.", "Try again, on another server.", retry=True
    ),
    Reason.INTERNAL: ErrorRow(
        Code.INTERNAL,
        None,
        "An internal error occurred in the server.",
        "Report the request id {request_id} to the operator.",
    ),
}


def status(refusal: Refused, request_id: str) -> status_pb2.Status:
    """Return the status for a refusal: one ErrorInfo, plus the field or the retry delay if there is one."""
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
    """End a call with the refusal's status, through a gRPC exception."""
    traceback.clear_frames(refusal.__traceback__)  # frames would keep the image alive until the next cycle collection
    if TABLE[refusal.reason].retry:  # the same as RetryInfo, for gRPC's own retries
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(round(retry_seconds(refusal) * 1e3))),))
    await context.abort_with_status(rpc_status.to_status(status(refusal, request_id)))
    raise AssertionError


def retry_seconds(refusal: Refused) -> float:
    """Return the retry delay: the refusal's own, or the default."""
    return max(float(refusal.facts.get("retry_seconds", _RETRY_SECONDS)), _LEAST_RETRY_SECONDS)


class _Facts(dict[str, str]):
    """Facts of a refusal. A missing one renders as "?" instead of turning an answer into a failure."""

    def __missing__(self, key: str) -> str:
        return "?"


def _pack(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed

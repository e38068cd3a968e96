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


@dataclass(frozen=True, kw_only=True)
class ErrorRow:
    """The description of one reason."""

    code: Code
    field: str | None  # request field, or the name of the fact that holds it; set exactly if INVALID_ARGUMENT
    message: str
    remedy: str
    retry: bool = False  # add RetryInfo
    own_http: int | None = None  # HTTP status; None: that of the code

    @property
    def http(self) -> int:
        """The HTTP status."""
        return self.own_http or _HTTP[self.code]


# As Google's APIs map them.
_HTTP = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ABORTED: 409,
    Code.ALREADY_EXISTS: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
_INVALID, _MISSING, _BUSY = Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAVAILABLE

TABLE: dict[Reason, ErrorRow] = {
    Reason.IMAGE_MISSING: ErrorRow(
        code=_INVALID,
        field="image",
        message="The request has no image, or an empty one.",
        remedy="Set image.encoded.data to a file's bytes, or image.raw.data to pixels with their format. In the Open "
        "Inference Protocol, send one of the inputs ENCODED and IMAGE.",
    ),
    Reason.IMAGE_TOO_MANY_BYTES: ErrorRow(
        code=_INVALID,
        field="image",
        message="The image has {bytes} bytes; this model takes at most {max_bytes}.",
        remedy="Send a compressed or smaller image, or have the operator raise limits.max_bytes in model.toml.",
    ),
    Reason.IMAGE_UNREADABLE: ErrorRow(
        code=_INVALID,
        field="image.encoded.data",
        message="The data is not a supported image: {seen}.",
        remedy="Send JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF with 8 bits a sample; in this case: {remedy}.",
    ),
    Reason.IMAGE_TRUNCATED: ErrorRow(
        code=_INVALID,
        field="image.encoded.data",
        message="The {codec} file is corrupt or truncated: its {bytes} bytes cannot be fully decoded.",
        remedy="Send the complete file; compare its size with the original's.",
    ),
    Reason.IMAGE_TOO_DEEP: ErrorRow(
        code=_INVALID,
        field="image.encoded.data",
        message="The {codec} file has more than 8 bits a sample; there is no single right way to reduce them.",
        remedy="Convert it to 8 bits a sample the way the model's training images were converted.",
    ),
    Reason.IMAGE_NOT_UPRIGHT: ErrorRow(
        code=_INVALID,
        field="image.encoded.data",
        message="The picture is not stored upright (EXIF orientation {orientation}), and the request refuses such "
        "pictures.",
        remedy="Rotate the pixels before saving, or set ORIENTATION_APPLY to rotate the picture by its EXIF data.",
    ),
    Reason.IMAGE_ANIMATED: ErrorRow(
        code=_INVALID,
        field="image.encoded.data",
        message="The file holds {frames} frames or pages; the server does not guess which one is meant.",
        remedy="Send a single frame as an image.",
    ),
    Reason.IMAGE_TOO_LARGE: ErrorRow(
        code=_INVALID,
        field="image",
        message="The image is {width} x {height} pixels; this model takes at most {max_pixels} in all and {max_edge} "
        "per edge.",
        remedy="Scale it down, or have the operator raise [limits] in model.toml.",
    ),
    Reason.IMAGE_TOO_NARROW: ErrorRow(
        code=_INVALID,
        field="image",
        message="The image is {width} x {height} pixels, and the model's resizing (shortest edge {shortest_edge}, "
        "longest "
        "{longest_edge}) makes it {resized_width} x {resized_height}: no edge may become 0, nor the area exceed "
        "{max_pixels}.",
        remedy="Cut it into pieces with less extreme proportions, and send each; scaling it down does not help.",
    ),
    Reason.IMAGE_TOO_COSTLY: ErrorRow(
        code=_INVALID,
        field="image.encoded.data",
        message="The JPEG has {scans} scans of {width}x{height} pixels, and each must be decoded; the limit is {most}.",
        remedy="Save it again as a baseline JPEG.",
    ),
    Reason.PIXEL_FORMAT_MISSING: ErrorRow(
        code=_INVALID,
        field="image.raw.pixel_format",
        message="Raw pixels were sent without their format, or with an unknown one ({seen}).",
        remedy="Set PIXEL_FORMAT_BGR8 (OpenCV's order), PIXEL_FORMAT_RGB8 (Pillow's order), or the actual format.",
    ),
    Reason.SIZE_INVALID: ErrorRow(
        code=_INVALID,
        field="image",
        message="The pixels were sent with width {width} and height {height}.",
        remedy="Set both to the image's size in pixels, each at least 1.",
    ),
    Reason.ROW_STRIDE_INVALID: ErrorRow(
        code=_INVALID,
        field="image.raw.row_stride",
        message="The row stride is {row_stride} bytes; a row of {width} pixels needs at least {least}.",
        remedy="Leave row_stride unset for packed rows, or set it to the bytes from one row to the next.",
    ),
    Reason.RAW_LENGTH_MISMATCH: ErrorRow(
        code=_INVALID,
        field="image.raw.data",
        message="{bytes} bytes were sent; {width} x {height} {pixel_format} at {row_stride} bytes per row needs "
        "{expected}.",
        remedy="Check width and height (are they swapped?), the pixel format, and the dtype, which must be 8-bit.",
    ),
    Reason.YUV_UNDECLARED: ErrorRow(
        code=_INVALID,
        field="image.raw.yuv_matrix",
        message="The format is {pixel_format}: NV12 and I420 require both yuv_matrix and yuv_range, and others allow "
        "neither.",
        remedy="Use the values of the decoder or the stream's header; high-definition video is mostly BT709, LIMITED.",
    ),
    Reason.ALPHA_NOT_DROPPED: ErrorRow(
        code=_INVALID,
        field="{field}",
        message="The image is {format} with an alpha channel, which the model cannot see.",
        remedy="Set drop_alpha to ignore it, or composite the image onto its background.",
    ),
    Reason.INPUT_NOT_ALLOWED: ErrorRow(
        code=_INVALID,
        field="image",
        message="The image was sent as {kind}, which this model's contract does not allow.",
        remedy="Send one of {allowed}, or have the operator add it to inputs in model.toml, if the model's channels "
        "allow it.",
    ),
    Reason.TENSOR_UNDECLARED: ErrorRow(
        code=_INVALID,
        field="image.tensor.{field}",
        message="A tensor was sent without its {field}, or with an unknown one ({seen}).",
        remedy="Set the channel order, the layout and the value range: there are no defaults.",
    ),
    Reason.CHANNELS_NOT_THE_MODELS: ErrorRow(
        code=_INVALID,
        field="image.tensor.channel_order",
        message="The tensor's channels were declared as {channel_order}; this model takes {channels}, declared as "
        "{allowed}.",
        remedy="Send the channels that the model was trained on; files and raw colours are converted to grey for grey "
        "models.",
    ),
    Reason.TENSOR_LENGTH_MISMATCH: ErrorRow(
        code=_INVALID,
        field="image.tensor.data",
        message="{bytes} bytes were sent; {width} x {height} pixels of {channels} 32-bit floats require {expected}.",
        remedy="Check width and height (are they swapped?) and the dtype, which must be 32-bit float.",
    ),
    Reason.VALUES_NOT_FINITE: ErrorRow(
        code=_INVALID,
        field="image.tensor.data",
        message="{count} values are NaN or infinite.",
        remedy="Find out where they come from; a model silently drops whatever it computes from them.",
    ),
    Reason.VALUES_NORMALISED: ErrorRow(
        code=_INVALID,
        field="image.tensor.data",
        message="Values range from {lowest} to {highest}, below the declared {value_range}: was a mean subtracted?",
        remedy="Send the original pixels: the model itself subtracts its mean and divides by its standard deviation.",
    ),
    Reason.VALUES_IN_UNIT_RANGE: ErrorRow(
        code=_INVALID,
        field="image.tensor.value_range",
        message="All values are from {lowest} to {highest}, but {value_range} was declared: they seem to be scaled to "
        "[0, 1].",
        remedy="Declare VALUE_RANGE_0_1, or send the pixels unscaled.",
    ),
    Reason.VALUES_OUT_OF_RANGE: ErrorRow(
        code=_INVALID,
        field="image.tensor.value_range",
        message="Values range from {lowest} to {highest}, beyond the declared {value_range}.",
        remedy="Declare VALUE_RANGE_0_255, or scale the values to the declared range.",
    ),
    Reason.LAYOUT_CONTRADICTED: ErrorRow(
        code=_INVALID,
        field="{field}",
        message="The pixels were declared as {declared}, but neighbouring values show that they are {seen}.",
        remedy="Declare their actual layout (height, width, channel is HWC), or transpose them.",
    ),
    Reason.CONTRACT_CHANGED: ErrorRow(
        code=Code.FAILED_PRECONDITION,
        field=None,
        message="The request requires the contract {asked}, but the server has {served}.",
        remedy="Check what changed with GetModel; then require the new fingerprint, or the version that has the old "
        "one.",
    ),
    Reason.OUTPUT_NOT_PRODUCED: ErrorRow(
        code=_INVALID,
        field="options.outputs",
        message="This model does not produce {output}; it produces {produced}.",
        remedy="Request one that it produces; its config determines them through {key}.",
    ),
    Reason.CLASS_UNKNOWN: ErrorRow(
        code=_INVALID,
        field="options.class_names",
        message="This model has no class {asked!r}.",
        remedy="Its classes are {classes}.",
    ),
    Reason.MAX_DETECTIONS_INVALID: ErrorRow(
        code=_INVALID,
        field="options.max_detections",
        message="{asked} detections were requested; this model returns 1 to {most}.",
        remedy="Request a number in that range, or leave it unset.",
    ),
    Reason.THRESHOLD_OUT_OF_RANGE: ErrorRow(
        code=_INVALID,
        field="{field}",
        message="The threshold is {threshold}; scores lie between 0 and 1.",
        remedy="Send a fraction, such as 0.5 for 50 %, or leave it unset for the model's default.",
    ),
    Reason.THRESHOLD_BELOW_FLOOR: ErrorRow(
        code=_INVALID,
        field="options.threshold",
        message="The threshold is {threshold}; this model computes no candidates below its floor of {floor}.",
        remedy="Send at least the floor.",
    ),
    Reason.INPUT_TENSOR_INVALID: ErrorRow(
        code=_INVALID,
        field="inputs",
        message="The input tensors do not fit: {seen}.",
        remedy="Send {expected}; ModelMetadata lists the inputs.",
    ),
    Reason.PARAMETER_INVALID: ErrorRow(
        code=_INVALID,
        field="parameters",
        message="The parameter {parameter} is {seen}.",
        remedy="Send {expected}.",
    ),
    Reason.REQUEST_ID_INVALID: ErrorRow(
        code=_INVALID,
        field="request_id",
        message="The request id has {length} characters; up to {most} printable ones are allowed.",
        remedy="Send a shorter one, or none: the server then generates one.",
    ),
    Reason.REQUEST_UNREADABLE: ErrorRow(
        code=_INVALID,
        field="request",
        message="The {bytes} bytes sent are not the Protobuf message that this method takes.",
        remedy="Build requests with code generated from the .proto files of this server's version.",
    ),
    Reason.REQUEST_TOO_LARGE: ErrorRow(
        code=_INVALID,
        field="request",
        message="The request has {bytes} bytes; besides its image, at most {most} bytes in {fields} fields are "
        "allowed.",
        remedy="Put the pixels into the image's data, and send only fields and names that the API has.",
    ),
    Reason.BODY_INVALID: ErrorRow(
        code=_INVALID,
        field="request",
        message="The body does not fit: {seen}.",
        remedy="Send {expected}.",
    ),
    Reason.BODY_TOO_LARGE: ErrorRow(
        code=_INVALID,
        field="request",
        message="The body has {bytes} bytes or more; at most {most} are allowed.",
        remedy="Send a compressed or smaller image, or have the operator raise limits.max_bytes in model.toml.",
        own_http=413,
    ),
    Reason.BODY_COMPRESSED: ErrorRow(
        code=_INVALID,
        field="request",
        message="The body is compressed as {encoding}, which this server does not accept.",
        remedy="Send it uncompressed, without Content-Encoding: pictures are compressed already.",
        own_http=415,
    ),
    Reason.PATH_NOT_FOUND: ErrorRow(
        code=_MISSING,
        field=None,
        message="There is no {method} {path}.",
        remedy="See the paths of the Open Inference Protocol that this server has, in its guide to Triton's clients.",
    ),
    Reason.ORIGIN_REFUSED: ErrorRow(
        code=Code.PERMISSION_DENIED,
        field=None,
        message="The request comes from a page of {origin}, and pages in browsers may not use this server.",
        remedy="Call the server from a program, without the header Origin.",
    ),
    Reason.REQUEST_STALLED: ErrorRow(
        code=Code.DEADLINE_EXCEEDED,
        field=None,
        message="The request had not arrived completely after {seconds} seconds.",
        remedy="Use a faster connection, or send a smaller image.",
    ),
    Reason.INTAKE_FULL: ErrorRow(
        code=Code.RESOURCE_EXHAUSTED,
        field=None,
        message="The server holds too much incomplete input, and this request has been arriving for longest.",
        remedy="Try again after the delay in RetryInfo; send smaller images, or fewer at once.",
        retry=True,
    ),
    Reason.REGION_NOT_LOCAL: ErrorRow(
        code=Code.PERMISSION_DENIED,
        field=None,
        message="Shared memory is for callers on the server's own machine; this call came from {host}.",
        remedy="Send the tensors in the request, or connect to the server's loopback address or Unix socket.",
    ),
    Reason.REGION_INVALID: ErrorRow(
        code=_INVALID,
        field="region",
        message="The region {region!r} cannot be registered: {seen}.",
        remedy="Name {expected}.",
    ),
    Reason.REGION_EXISTS: ErrorRow(
        code=Code.ALREADY_EXISTS,
        field=None,
        message="The region {region!r} is registered already, for the key {key!r}.",
        remedy="Unregister it first, or use another name.",
    ),
    Reason.REGIONS_EXCEEDED: ErrorRow(
        code=Code.RESOURCE_EXHAUSTED,
        field=None,
        message="{who} has {has} regions registered; one caller may have {most}, and all together {all}.",
        remedy="Unregister those that are not in use; one region can hold many tensors, at different offsets.",
        retry=True,
    ),
    Reason.REGION_NOT_FOUND: ErrorRow(
        code=_MISSING,
        field=None,
        message="The caller has no region {region!r} registered.",
        remedy="Register it; SystemSharedMemoryStatus lists those that are. A server that restarts forgets them.",
    ),
    Reason.REGION_CHANGED: ErrorRow(
        code=Code.FAILED_PRECONDITION,
        field=None,
        message="The memory of a region is no longer as it was registered: {seen}.",
        remedy="Keep memory as it is while it is in use; if it was made anew, unregister and register its region.",
    ),
    Reason.REGION_TOO_SMALL: ErrorRow(
        code=_INVALID,
        field="outputs",
        message="The output {output} has {needed} bytes, and its place in the region {region!r} has {given}.",
        remedy="Reserve more; an answer grows with its detections, so leave room for the most that you expect.",
    ),
    Reason.FEATURE_NOT_SERVED: ErrorRow(
        code=Code.UNIMPLEMENTED,
        field=None,
        message="This server has {feature} switched off.",
        remedy="Start the server with {setting}.",
    ),
    Reason.MODEL_NAME_MISSING: ErrorRow(
        code=_INVALID,
        field="model_name",
        message="The request names no model, but the server has more than one.",
        remedy="Name one of: {served}.",
    ),
    Reason.SAMPLE_MISSING: ErrorRow(
        code=_MISSING,
        field=None,
        message="No empty frame of {stream!r} of {model!r} has been sampled.",
        remedy="Send the image itself; frames are sampled once a stream is empty more often than usual.",
    ),
    Reason.MODEL_NOT_FOUND: ErrorRow(
        code=_MISSING, field=None, message="There is no model {model!r}.", remedy="Name one of: {served}."
    ),
    Reason.MODEL_VERSION_NOT_FOUND: ErrorRow(
        code=_MISSING,
        field=None,
        message="Model {model!r} has no version {version!r}.",
        remedy="Name one of: {served}; or leave model_version unset for the newest ready version.",
    ),
    Reason.MODEL_NOT_READY: ErrorRow(
        code=_BUSY,
        field=None,
        message="Model {model!r} is not ready: {why}.",
        remedy="Try again, or watch grpc.health.v1 or /readyz.",
        retry=True,
    ),
    Reason.LOAD_REFUSED: ErrorRow(
        code=Code.FAILED_PRECONDITION,
        field=None,
        message="Model {model!r} is not loaded; its newest version is {version}: {why}",
        remedy="Correct it in the repository, or remove it, and load the model again.",
    ),
    Reason.OVERLOADED: ErrorRow(
        code=Code.RESOURCE_EXHAUSTED,
        field=None,
        message="{queued} requests wait for model {model!r}: an answer would take {expected} seconds; {limit} leaves "
        "{left}.",
        remedy="Try again after the delay in RetryInfo, send fewer at once, raise that limit, or add workers.",
        retry=True,
    ),
    Reason.DEADLINE_EXCEEDED: ErrorRow(
        code=Code.DEADLINE_EXCEEDED,
        field=None,
        message="The request was not answered within {seconds} seconds, the time that {limit} allows.",
        remedy="Send fewer at once, raise that limit, or add workers.",
    ),
    Reason.IMAGE_POISONOUS: ErrorRow(
        code=Code.ABORTED,
        field=None,
        message="{losses} workers failed while processing this image; it is not retried.",
        remedy="Do not send it again. Report it, with the image, to the server's operator.",
    ),
    Reason.WORKERS_LOST: ErrorRow(
        code=_BUSY,
        field=None,
        message="{losses} workers were killed from outside while processing this image.",
        remedy="Try again. The server's log names them; the system's log may say why, such as a lack of memory.",
        retry=True,
    ),
    Reason.WORKER_OUT_OF_MEMORY: ErrorRow(
        code=Code.ABORTED,
        field=None,
        message="{losses} workers ran out of memory while processing this image; it is not retried.",
        remedy="Send a smaller image, or have the server's operator give its workers more memory.",
    ),
    Reason.STREAM_NOT_CONFIGURED: ErrorRow(
        code=_INVALID,
        field="config.{field}",
        message="A stream must begin with its configuration; {field} was {seen}.",
        remedy="Send a StreamConfig first, with a drop policy, a stream_id of up to 128 printable characters, and "
        "max_in_flight unset or from 1 to {most}.",
    ),
    Reason.STREAM_CHANGED: ErrorRow(
        code=_INVALID,
        field="config.{field}",
        message="The stream was reconfigured with another {field}; only its options can change while it is open.",
        remedy="Open another stream.",
    ),
    Reason.FRAME_OUT_OF_ORDER: ErrorRow(
        code=_INVALID,
        field="frame.frame_id",
        message="Frame {frame_id} came after frame {last}.",
        remedy="Number the frames of a stream in increasing order.",
    ),
    Reason.CAPTURE_TIME_INVALID: ErrorRow(
        code=_INVALID,
        field="frame.capture_time",
        message="The capture time of {seconds} seconds and {nanos} nanoseconds is not in the years 1 to 9999.",
        remedy="Send the time since 1970, in UTC, or leave it unset to use the frame's arrival time.",
    ),
    Reason.TOO_MANY_STREAMS: ErrorRow(
        code=Code.RESOURCE_EXHAUSTED,
        field=None,
        message="{most} streams are already open.",
        remedy="Close one, or have the operator raise max_streams.",
        retry=True,
    ),
    Reason.STREAM_RESTED: ErrorRow(
        code=_BUSY,
        field=None,
        message="This stream had no frame for {seconds} s, and another stream needed its place.",
        remedy="Open it again when there are frames, or have the operator raise max_streams.",
        retry=True,
    ),
    Reason.CREDENTIALS_MISSING: ErrorRow(
        code=Code.UNAUTHENTICATED,
        field=None,
        message="The call has no credentials, which {verb} requires here.",
        remedy="Send a token as 'authorization: Bearer TOKEN', or use a client certificate; the operator issues both.",
    ),
    Reason.CREDENTIALS_REFUSED: ErrorRow(
        code=Code.UNAUTHENTICATED,
        field=None,
        message="The call's credentials are not accepted: {why}.",
        remedy="Ask the operator for another token or certificate; omit credentials that are not meant for this "
        "server.",
    ),
    Reason.NOT_PERMITTED: ErrorRow(
        code=Code.PERMISSION_DENIED,
        field=None,
        message="{who} may not {verb}{what} here.",
        remedy="Ask the operator to allow it with a rule in the policy file.",
    ),
    Reason.RATE_EXCEEDED: ErrorRow(
        code=Code.RESOURCE_EXHAUSTED,
        field=None,
        message="{who} has used up its {rate} requests per second.",
        remedy="Try again after the delay in RetryInfo, or have the operator raise rate in the policy file.",
        retry=True,
    ),
    Reason.STREAMS_EXCEEDED: ErrorRow(
        code=Code.RESOURCE_EXHAUSTED,
        field=None,
        message="{who} already has its maximum of {most} streams open.",
        remedy="Close one, or have the operator raise max_streams in the policy file.",
        retry=True,
    ),
    Reason.SHUTTING_DOWN: ErrorRow(
        code=_BUSY,
        field=None,
        message="The server is shutting down.",
        remedy="Try again, on another server.",
        retry=True,
    ),
    Reason.INTERNAL: ErrorRow(
        code=Code.INTERNAL,
        field=None,
        message="An internal error occurred in the server.",
        remedy="Report the request id {request_id} to the operator.",
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

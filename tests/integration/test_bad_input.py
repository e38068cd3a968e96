"""What is wrong with a request is said precisely, over a real connection; the server answers the next."""

import io
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image
from vedette.v1 import answer_pb2, image_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture

from tests import running


@pytest.fixture
def stub(bundled: running.Server) -> Iterator[DetectionServiceStub]:
    with grpc.insecure_channel(bundled.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield DetectionServiceStub(channel)


def file(codec: str, mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, codec)
    return buffer.getvalue()


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def encoded(data: bytes) -> pb.DetectRequest:
    return pb.DetectRequest(image=image_pb2.Image(encoded=image_pb2.EncodedImage(data=data)))


def raw(**fields: object) -> pb.DetectRequest:
    given = {"data": bytes(4 * 4 * 3), "height": 4, "width": 4, "pixel_format": image_pb2.PIXEL_FORMAT_BGR8, **fields}
    return pb.DetectRequest(image=image_pb2.Image(raw=image_pb2.RawImage(**given)))  # type: ignore[arg-type]


def with_options(**options: object) -> pb.DetectRequest:
    request = encoded(file("PNG"))
    request.options.MergeFrom(pb.DetectOptions(**options))  # type: ignore[arg-type]
    return request


def to(model: str = "", version: str = "") -> pb.DetectRequest:
    request = encoded(file("PNG"))
    request.model_name, request.model_version = model, version
    return request


INVALID = grpc.StatusCode.INVALID_ARGUMENT
CASES = {
    "no image at all": (pb.DetectRequest(), INVALID, "IMAGE_MISSING", "image"),
    "an empty file": (encoded(b""), INVALID, "IMAGE_MISSING", "image"),
    "a file that is no image": (encoded(b"#!/bin/sh\necho hello"), INVALID, "IMAGE_UNREADABLE", "image.encoded.data"),
    "a codec that is not taken": (encoded(file("GIF")), INVALID, "IMAGE_UNREADABLE", "image.encoded.data"),
    "a truncated JPEG": (
        encoded(file("JPEG", size=(640, 480))[:-800]),
        INVALID,
        "IMAGE_TRUNCATED",
        "image.encoded.data",
    ),
    "a truncated PNG": (encoded(file("PNG", size=(640, 480))[:-60]), INVALID, "IMAGE_TRUNCATED", "image.encoded.data"),
    "16 bits a sample": (encoded(file("PNG", mode="I;16")), INVALID, "IMAGE_MODE_UNSUPPORTED", "image.encoded.data"),
    "an animation": (encoded(animation()), INVALID, "IMAGE_ANIMATED", "image.encoded.data"),
    "too many bytes": (encoded(bytes(32 * 2**20 + 1)), INVALID, "IMAGE_TOO_MANY_BYTES", "image"),
    "too many pixels": (encoded(file("PNG", mode="1", size=(9000, 9000))), INVALID, "IMAGE_TOO_LARGE", "image"),
    "too long an edge": (encoded(file("PNG", mode="1", size=(20_000, 1))), INVALID, "IMAGE_TOO_LARGE", "image"),
    "raw pixels of no format": (raw(pixel_format=0), INVALID, "PIXEL_FORMAT_MISSING", "image.raw.pixel_format"),
    "raw pixels of an unknown format": (
        raw(pixel_format=99),
        INVALID,
        "PIXEL_FORMAT_MISSING",
        "image.raw.pixel_format",
    ),
    "raw pixels of no size": (raw(height=0), INVALID, "RAW_SIZE_INVALID", "image.raw.height"),
    "raw pixels of a negative size": (raw(width=-4), INVALID, "RAW_SIZE_INVALID", "image.raw.height"),
    "too few raw pixels": (raw(data=bytes(47)), INVALID, "RAW_LENGTH_MISMATCH", "image.raw.data"),
    "raw pixels of a huge size": (raw(height=2**31 - 1, width=2**31 - 1), INVALID, "IMAGE_TOO_LARGE", "image"),
    "rows that overlap": (raw(row_stride=11), INVALID, "ROW_STRIDE_INVALID", "image.raw.row_stride"),
    "a negative row stride": (raw(row_stride=-12), INVALID, "ROW_STRIDE_INVALID", "image.raw.row_stride"),
    "a threshold above 1": (with_options(threshold=50), INVALID, "THRESHOLD_OUT_OF_RANGE", "options.threshold"),
    "a negative threshold": (with_options(threshold=-0.1), INVALID, "THRESHOLD_OUT_OF_RANGE", "options.threshold"),
    "no number as threshold": (
        with_options(threshold=float("nan")),
        INVALID,
        "THRESHOLD_OUT_OF_RANGE",
        "options.threshold",
    ),
    "a threshold below the floor": (
        with_options(threshold=0.01),
        INVALID,
        "THRESHOLD_BELOW_FLOOR",
        "options.threshold",
    ),
    "too long a request id": (pb.DetectRequest(request_id="x" * 129), INVALID, "REQUEST_ID_TOO_LONG", "request_id"),
    "an unknown model": (to("roadsings"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", None),
    "an unknown version": (to("roadsigns", "7"), grpc.StatusCode.NOT_FOUND, "MODEL_VERSION_NOT_FOUND", None),
    "a feature of later": (
        with_options(class_names=["stop"]),
        grpc.StatusCode.UNIMPLEMENTED,
        "FEATURE_NOT_SERVED",
        None,
    ),
    "a mask format of later": (
        with_options(mask_format=answer_pb2.MASK_FORMAT_PNG),
        grpc.StatusCode.UNIMPLEMENTED,
        "FEATURE_NOT_SERVED",
        None,
    ),
    "a pixel format of later": (
        raw(pixel_format=image_pb2.PIXEL_FORMAT_NV12),
        grpc.StatusCode.UNIMPLEMENTED,
        "FEATURE_NOT_SERVED",
        None,
    ),
    "an orientation of later": (
        pb.DetectRequest(
            image=image_pb2.Image(encoded=image_pb2.EncodedImage(data=b"x", orientation=image_pb2.ORIENTATION_REFUSE))
        ),
        grpc.StatusCode.UNIMPLEMENTED,
        "FEATURE_NOT_SERVED",
        None,
    ),
    "a tensor": (
        pb.DetectRequest(image=image_pb2.Image(tensor=image_pb2.TensorImage(data=b"x"))),
        grpc.StatusCode.UNIMPLEMENTED,
        "FEATURE_NOT_SERVED",
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_precisely(
    case: str, stub: DetectionServiceStub, bundled: running.Server, scene: Picture
) -> None:
    request, code, reason, field = CASES[case]
    workers = bundled.worker_pids()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detect(request, timeout=30)
    assert caught.value.code() is code
    info, violations = details(caught.value)
    assert (info.reason, info.domain) == (reason, "vedette")
    assert [violation.field for violation in violations] == ([field] if field else [])
    assert "?" not in caught.value.details().replace("exchanged?", ""), "a fact is missing from the message"
    answered = stub.Detect(encoded(jpeg(scene.pixels)), timeout=60)
    assert answered.answer.detections
    assert bundled.worker_pids() == workers


def details(
    error: grpc.RpcError,
) -> tuple[error_details_pb2.ErrorInfo, list[error_details_pb2.BadRequest.FieldViolation]]:
    status = rpc_status.from_call(error)
    assert status is not None
    infos, violations = [], []
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            infos.append(info)
        elif detail.Unpack(bad):
            violations.extend(bad.field_violations)
    (info,) = infos  # exactly one
    return info, violations


CALLS: dict[str, Callable[[DetectionServiceStub], object]] = {
    "StreamDetect": lambda stub: next(stub.StreamDetect(iter([pb.StreamDetectRequest()]), timeout=30)),
    "Diagnose": lambda stub: stub.Diagnose(pb.DiagnoseRequest(), timeout=30),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_of_later_say_so(call: str, stub: DetectionServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[call](stub)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert details(caught.value)[0].reason == "FEATURE_NOT_SERVED"


def test_padded_rows_are_the_same_picture(stub: DetectionServiceStub, scene: Picture) -> None:
    height, width = scene.pixels.shape[:2]
    padded = np.pad(scene.pixels.reshape(height, width * 3), ((0, 0), (0, 20)), constant_values=99)
    fields = {"pixel_format": image_pb2.PIXEL_FORMAT_RGB8, "height": height, "width": width}
    plain = stub.Detect(raw(data=scene.pixels.tobytes(), **fields))
    strided = stub.Detect(raw(data=padded.tobytes(), row_stride=width * 3 + 20, **fields))
    assert plain.answer.detections
    assert list(plain.answer.detections) == list(strided.answer.detections)

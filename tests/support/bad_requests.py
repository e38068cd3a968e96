"""Requests that are wrong in one thing each, and what is said about it."""

import dataclasses
import io
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import answer_pb2, image_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_server.demo import scenes


def file(codec: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, codec, **options)
    return buffer.getvalue()


def scanned(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs its reader as much as the whole picture."""
    whole = file("JPEG", size=(640, 480), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + scans * whole[last:-2] + whole[-2:]


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


def lying() -> bytes:
    """A picture that is stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


PIXELS = scenes.draw(dataclasses.replace(scenes.describe(3_000_022), weather=scenes.Weather())).pixels


def tensor(values: NDArray[Any] = PIXELS, **fields: Any) -> pb.DetectRequest:
    given = {
        "data": values.astype("<f4").tobytes(),
        "channel_order": image_pb2.CHANNEL_ORDER_RGB,
        "layout": image_pb2.TENSOR_LAYOUT_HWC,
        "value_range": image_pb2.VALUE_RANGE_0_255,
        "height": PIXELS.shape[0],
        "width": PIXELS.shape[1],
        **fields,
    }
    return pb.DetectRequest(image=image_pb2.Image(tensor=image_pb2.TensorImage(**given)))


INVALID = grpc.StatusCode.INVALID_ARGUMENT
YUV = (INVALID, "YUV_UNDECLARED", "image.raw.yuv_matrix")
CASES = {
    "no image at all": (pb.DetectRequest(), INVALID, "IMAGE_MISSING", "image"),
    "an empty file": (encoded(b""), INVALID, "IMAGE_MISSING", "image"),
    "a file that is no image": (encoded(b"#!/bin/sh\necho hello"), INVALID, "IMAGE_UNREADABLE", "image.encoded.data"),
    "a codec that is not taken": (encoded(file("JPEG2000")), INVALID, "IMAGE_UNREADABLE", "image.encoded.data"),
    "a truncated JPEG": (
        encoded(file("JPEG", size=(640, 480))[:-800]),
        INVALID,
        "IMAGE_TRUNCATED",
        "image.encoded.data",
    ),
    "a truncated PNG": (encoded(file("PNG", size=(640, 480))[:-60]), INVALID, "IMAGE_TRUNCATED", "image.encoded.data"),
    "16 bits a sample": (encoded(file("PNG", mode="I;16")), INVALID, "IMAGE_TOO_DEEP", "image.encoded.data"),
    "an animation": (encoded(animation()), INVALID, "IMAGE_ANIMATED", "image.encoded.data"),
    "too many bytes": (encoded(bytes(32 * 2**20 + 1)), INVALID, "IMAGE_TOO_MANY_BYTES", "image"),
    "too many pixels": (encoded(file("PNG", mode="1", size=(9000, 9000))), INVALID, "IMAGE_TOO_LARGE", "image"),
    "too long an edge": (encoded(file("PNG", mode="1", size=(20_000, 1))), INVALID, "IMAGE_TOO_LARGE", "image"),
    "a strip that resizing leaves without an edge": (
        raw(height=1, width=1100, data=bytes(3300)),
        INVALID,
        "IMAGE_TOO_NARROW",
        "image",
    ),
    "the same as a file": (encoded(file("PNG", size=(4200, 4))), INVALID, "IMAGE_TOO_NARROW", "image"),
    "a JPEG of a thousand scans": (encoded(scanned(1_000)), INVALID, "IMAGE_TOO_COSTLY", "image.encoded.data"),
    "raw pixels of no format": (raw(pixel_format=0), INVALID, "PIXEL_FORMAT_MISSING", "image.raw.pixel_format"),
    "raw pixels of an unknown format": (
        raw(pixel_format=99),
        INVALID,
        "PIXEL_FORMAT_MISSING",
        "image.raw.pixel_format",
    ),
    "raw pixels of no size": (raw(height=0), INVALID, "SIZE_INVALID", "image"),
    "raw pixels of a negative size": (raw(width=-4), INVALID, "SIZE_INVALID", "image"),
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
    "too long a request id": (pb.DetectRequest(request_id="x" * 129), INVALID, "REQUEST_ID_INVALID", "request_id"),
    "an id that breaks the log": (pb.DetectRequest(request_id="a\nb"), INVALID, "REQUEST_ID_INVALID", "request_id"),
    "an unknown model": (to("roadsings"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", None),
    "an unknown version": (to("roadsigns", "7"), grpc.StatusCode.NOT_FOUND, "MODEL_VERSION_NOT_FOUND", None),
    "YUV that does not say which": (raw(pixel_format=image_pb2.PIXEL_FORMAT_NV12, data=bytes(24)), *YUV),
    "BGR that says which YUV": (raw(yuv_matrix=image_pb2.YUV_MATRIX_BT709), *YUV),
    "raw alpha": (
        raw(pixel_format=image_pb2.PIXEL_FORMAT_BGRA8, data=bytes(64)),
        INVALID,
        "ALPHA_NOT_DROPPED",
        "image.raw.drop_alpha",
    ),
    "a transparent file": (encoded(file("PNG", mode="RGBA")), INVALID, "ALPHA_NOT_DROPPED", "image.encoded.drop_alpha"),
    "grey samples": (
        raw(pixel_format=image_pb2.PIXEL_FORMAT_GRAY8, data=bytes(16)),
        INVALID,
        "INPUT_NOT_ALLOWED",
        "image",
    ),
    "a file that is not upright": (
        pb.DetectRequest(
            image=image_pb2.Image(
                encoded=image_pb2.EncodedImage(data=lying(), orientation=image_pb2.ORIENTATION_REFUSE)
            )
        ),
        INVALID,
        "IMAGE_NOT_UPRIGHT",
        "image.encoded.data",
    ),
    "planes sent as interleaved samples": (
        raw(data=np.ascontiguousarray(PIXELS.transpose(2, 0, 1)).tobytes(), height=384, width=512),
        INVALID,
        "LAYOUT_CONTRADICTED",
        "image.raw.data",
    ),
    "a tensor of no channel order": (
        tensor(channel_order=0),
        INVALID,
        "TENSOR_UNDECLARED",
        "image.tensor.channel_order",
    ),
    "a tensor of no layout": (tensor(layout=0), INVALID, "TENSOR_UNDECLARED", "image.tensor.layout"),
    "a tensor of no range": (tensor(value_range=0), INVALID, "TENSOR_UNDECLARED", "image.tensor.value_range"),
    "a grey tensor for a model of colours": (
        tensor(channel_order=image_pb2.CHANNEL_ORDER_GRAY),
        INVALID,
        "CHANNELS_NOT_THE_MODELS",
        "image.tensor.channel_order",
    ),
    "samples of no fixed meaning for a model of colours": (
        raw(pixel_format=image_pb2.PIXEL_FORMAT_8UCN),
        INVALID,
        "INPUT_NOT_ALLOWED",
        "image",
    ),
    "a tensor of doubles": (
        tensor(data=PIXELS.astype("<f8").tobytes()),
        INVALID,
        "TENSOR_LENGTH_MISMATCH",
        "image.tensor.data",
    ),
    "a tensor with NaN": (tensor(PIXELS * np.float32("nan")), INVALID, "VALUES_NOT_FINITE", "image.tensor.data"),
    "a normalised tensor": (tensor((PIXELS - 110.0) / 58), INVALID, "VALUES_NORMALISED", "image.tensor.data"),
    "a tensor scaled to [0, 1]": (tensor(PIXELS / 255), INVALID, "VALUES_IN_UNIT_RANGE", "image.tensor.value_range"),
    "a tensor beyond its range": (
        tensor(value_range=image_pb2.VALUE_RANGE_0_1),
        INVALID,
        "VALUES_OUT_OF_RANGE",
        "image.tensor.value_range",
    ),
    "another contract": (
        with_options(contract_fingerprint="0" * 64),
        grpc.StatusCode.FAILED_PRECONDITION,
        "CONTRACT_CHANGED",
        None,
    ),
    "keypoints of a model without": (
        with_options(outputs=[answer_pb2.OUTPUT_KIND_KEYPOINTS]),
        INVALID,
        "OUTPUT_NOT_PRODUCED",
        "options.outputs",
    ),
    "an unknown class": (with_options(class_names=["stpo"]), INVALID, "CLASS_UNKNOWN", "options.class_names"),
    "an unknown class id": (with_options(class_ids=[6]), INVALID, "CLASS_UNKNOWN", "options.class_names"),
    "no detections wanted": (
        with_options(max_detections=0),
        INVALID,
        "MAX_DETECTIONS_INVALID",
        "options.max_detections",
    ),
}

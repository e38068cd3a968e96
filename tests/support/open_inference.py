"""Requests of the Open Inference Protocol for either transport, right and wrong, and answers compared to ours."""

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from tritonclient.grpc import service_pb2 as pb
from vedette_client import Client, Result, Tensor
from vedette_server.demo import scenes

PICTURES = [scenes.draw(scenes.describe(seed, quiet=False)).pixels for seed in (3_000_001, 3_000_022)]
BLACK = np.zeros((48, 64, 3), np.uint8)
MODEL = "roadsigns"


def file(pixels: NDArray[Any], codec: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, codec)
    return buffer.getvalue()


class Sent(NamedTuple):
    """An input of Triton's clients."""

    name: str
    array: NDArray[Any]
    datatype: str


def sent(name: str, array: NDArray[Any], datatype: str) -> Any:
    """An input of Triton's client over gRPC."""
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def as_bytes(data: bytes) -> Sent:
    return Sent("ENCODED", np.array([data], np.object_), "BYTES")


def floats(pixels: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(pixels, np.float32)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to send a picture by either client."""

    theirs: Callable[[NDArray[Any]], Sent]
    parameters: dict[str, str]
    ours: Callable[[Client, NDArray[Any]], Result]


WAYS = {
    "a file": Way(lambda one: as_bytes(file(one)), {}, lambda client, one: client.detect(file(one))),
    "a JPEG in UINT8": Way(
        lambda one: Sent("ENCODED", np.frombuffer(file(one, "JPEG"), np.uint8), "UINT8"),
        {},
        lambda client, one: client.detect(file(one, "JPEG")),
    ),
    "RGB": Way(
        lambda one: Sent("IMAGE", one, "UINT8"),
        {"pixel_format": "RGB8"},
        lambda client, one: client.detect(one, pixel_format="RGB8"),
    ),
    "BGR": Way(
        lambda one: Sent("IMAGE", np.ascontiguousarray(one[:, :, ::-1]), "UINT8"),
        {"pixel_format": "PIXEL_FORMAT_BGR8"},
        lambda client, one: client.detect(np.ascontiguousarray(one[:, :, ::-1]), pixel_format="BGR8"),
    ),
    "floats to 255": Way(
        lambda one: Sent("IMAGE", floats(one), "FP32"),
        {"channel_order": "RGB", "layout": "HWC", "value_range": "0-255"},
        lambda client, one: client.detect(Tensor(floats(one), "RGB", "HWC", "0-255")),
    ),
    "planes of floats to 1": Way(
        lambda one: Sent("IMAGE", floats(one.transpose(2, 0, 1) / 255), "FP32"),
        {"channel_order": "RGB", "layout": "CHW", "value_range": "VALUE_RANGE_0_1"},
        lambda client, one: client.detect(Tensor(floats(one.transpose(2, 0, 1) / 255), "RGB", "CHW", "0-1")),
    ),
}


def texts(result: Any, name: str) -> list[str]:
    return [one.decode() for one in result.as_numpy(name)]


def assert_equal(result: Any, expected: Result) -> None:
    """Compare an answer of Triton's client to one of ours."""
    assert result.as_numpy("BOXES").tolist() == expected.boxes.tolist()
    assert result.as_numpy("BOXES").shape == (len(expected), 4)
    assert result.as_numpy("SCORES").tolist() == pytest.approx(expected.scores.tolist(), abs=1e-7)
    assert result.as_numpy("CLASSES").dtype == np.int64
    assert result.as_numpy("CLASSES").tolist() == expected.class_ids.tolist()
    assert texts(result, "CLASS_NAMES") == [one.class_name for one in expected]
    masks = [json.loads(one) for one in texts(result, "MASKS_RLE")]
    assert masks == [{**one.mask.coco(), "counts": as_text(one.mask.coco()["counts"])} for one in expected if one.mask]
    assert len(masks) == len(expected)
    assert all(np.array_equal(rle.decode(one), two) for one, two in zip(masks, pasted(result, masks), strict=True))
    findings = [
        {"code": one.code, "confidence": one.confidence, "evidence": one.evidence, "remedy": one.remedy}
        for one in expected.findings
    ]
    assert json.loads(texts(result, "FINDINGS")[0]) == findings
    assert texts(result, "EMPTY_REASON") == [expected.empty.reason if expected.empty else ""]
    response = result.get_response()  # of gRPC, or of HTTP
    parameters = response["parameters"] if isinstance(response, dict) else values(response.parameters)
    assert parameters["contract_fingerprint"] == expected.contract_fingerprint
    assert parameters["threshold"] == pytest.approx(expected.threshold)


def pasted(result: Any, masks: Sequence[Any]) -> NDArray[np.bool_]:
    """The masks that Detectron2 makes of those in the boxes, of the image's size."""
    if not masks:
        return np.zeros((0, 1, 1), np.bool_)
    boxed, boxes = (torch.from_numpy(result.as_numpy(name)) for name in ("MASKS_28", "BOXES"))
    made: NDArray[np.bool_] = paste_masks_in_image(boxed, Boxes(boxes), masks[0]["size"], threshold=0.5).numpy()
    return made


def as_text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts


def values(parameters: Any) -> dict[str, Any]:
    return {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in parameters.items()}


# What is wrong, in one thing each.


@dataclasses.dataclass(frozen=True)
class Given:
    """An input as a request has it, right or wrong."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes
    parameters: tuple[tuple[str, str], ...] = ()


def element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


PNG = Given("ENCODED", "BYTES", (1,), element(file(BLACK)))
PIXELS = Given("IMAGE", "UINT8", BLACK.shape, BLACK.tobytes())
FLOATS = Given("IMAGE", "FP32", BLACK.shape, floats(BLACK).tobytes())
DECLARED = {"channel_order": "RGB", "layout": "HWC", "value_range": "0-255"}
ONE = np.float32(1).tobytes()


def request(*inputs: Given, **parameters: Any) -> Any:
    message = pb.ModelInferRequest(model_name=MODEL)
    for given in inputs:
        tensor = message.inputs.add(name=given.name, datatype=given.datatype, shape=given.shape)
        for name, value in given.parameters:
            tensor.parameters[name].string_param = value
        message.raw_input_contents.append(given.data)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], kinds[type(value)], value)
    return message


def changed(message: Any, change: Callable[[Any], object]) -> Any:
    change(message)
    return message


REFUSED = {
    "no input": (request(), "IMAGE_MISSING"),
    "an empty file": (request(dataclasses.replace(PNG, data=element(b""))), "IMAGE_MISSING"),
    "no picture": (request(dataclasses.replace(PNG, data=element(b"no picture"))), "IMAGE_UNREADABLE"),
    "two pictures": (request(PNG, PIXELS, pixel_format="RGB8"), "INPUT_TENSOR_INVALID"),
    "the same twice": (request(PNG, PNG), "INPUT_TENSOR_INVALID"),
    "an unknown input": (request(PNG, dataclasses.replace(PNG, name="PICTURE")), "INPUT_TENSOR_INVALID"),
    "the wrong type": (request(dataclasses.replace(PNG, datatype="FP16")), "INPUT_TENSOR_INVALID"),
    "a batch": (request(dataclasses.replace(PIXELS, shape=(1, 48, 64, 3))), "INPUT_TENSOR_INVALID"),
    "a scalar": (request(dataclasses.replace(PNG, shape=())), "INPUT_TENSOR_INVALID"),
    "two files": (request(dataclasses.replace(PNG, shape=(2,), data=2 * PNG.data)), "INPUT_TENSOR_INVALID"),
    "two files in one": (request(dataclasses.replace(PNG, data=2 * PNG.data)), "INPUT_TENSOR_INVALID"),
    "a file without its length": (request(dataclasses.replace(PNG, data=file(BLACK))), "INPUT_TENSOR_INVALID"),
    "a file that is cut off": (request(dataclasses.replace(PNG, data=PNG.data[:-1])), "INPUT_TENSOR_INVALID"),
    "half a length": (request(dataclasses.replace(PNG, data=b"ab")), "INPUT_TENSOR_INVALID"),
    "a missing row": (
        request(dataclasses.replace(PIXELS, data=PIXELS.data[64 * 3 :]), pixel_format="RGB8"),
        "INPUT_TENSOR_INVALID",
    ),
    "a negative size": (
        request(dataclasses.replace(PIXELS, shape=(-48, -64, 3)), pixel_format="RGB8"),
        "SIZE_INVALID",
    ),
    "a huge size": (
        request(dataclasses.replace(PIXELS, shape=(2**62, 2**62, 3)), pixel_format="RGB8"),
        "INPUT_TENSOR_INVALID",
    ),
    "four channels of three": (
        request(dataclasses.replace(PIXELS, shape=(48, 48, 4)), pixel_format="RGB8"),
        "INPUT_TENSOR_INVALID",
    ),
    "planes declared as interleaved": (request(FLOATS, **{**DECLARED, "layout": "CHW"}), "INPUT_TENSOR_INVALID"),
    "pixels without a format": (request(PIXELS), "PIXEL_FORMAT_MISSING"),
    "pixels of an unknown format": (request(PIXELS, pixel_format="RGB"), "PIXEL_FORMAT_MISSING"),
    "pixels of a planar format": (request(PIXELS, pixel_format="NV12"), "PARAMETER_INVALID"),
    "alpha": (request(dataclasses.replace(PIXELS, shape=(48, 48, 4)), pixel_format="RGBA8"), "ALPHA_NOT_DROPPED"),
    "alpha that is dropped by a number": (
        request(dataclasses.replace(PIXELS, shape=(48, 48, 4)), pixel_format="RGBA8", drop_alpha=1),
        "PARAMETER_INVALID",
    ),
    "floats without an order": (request(FLOATS, layout="HWC", value_range="0-255"), "TENSOR_UNDECLARED"),
    "floats without a layout": (request(FLOATS, channel_order="RGB", value_range="0-255"), "TENSOR_UNDECLARED"),
    "floats without a range": (request(FLOATS, channel_order="RGB", layout="HWC"), "TENSOR_UNDECLARED"),
    "a threshold above 1": (
        request(PNG, Given("SCORE_THRESHOLD", "FP32", (1,), np.float32(50).tobytes())),
        "THRESHOLD_OUT_OF_RANGE",
    ),
    "two thresholds": (request(PNG, Given("SCORE_THRESHOLD", "FP32", (2,), 2 * ONE)), "INPUT_TENSOR_INVALID"),
    "an unknown class": (request(PNG, Given("CLASSES_FILTER", "BYTES", (1,), element(b"stpo"))), "CLASS_UNKNOWN"),
    "a class that is no text": (
        request(PNG, Given("CLASSES_FILTER", "BYTES", (1,), element(b"\xff"))),
        "INPUT_TENSOR_INVALID",
    ),
    "an unknown class id": (
        request(PNG, Given("CLASSES_FILTER", "INT32", (1,), np.int32(6).tobytes())),
        "CLASS_UNKNOWN",
    ),
    "too many classes": (
        request(PNG, Given("CLASSES_FILTER", "BYTES", (5_000_000,), bytes(20_000_000))),
        "REQUEST_TOO_LARGE",
    ),
    "an output that no model has": (
        changed(request(PNG), lambda one: one.outputs.add(name="MASKS")),
        "OUTPUT_NOT_PRODUCED",
    ),
    "an output that this model has not": (
        changed(request(PNG), lambda one: one.outputs.add(name="KEYPOINTS")),
        "OUTPUT_NOT_PRODUCED",
    ),
    "an unknown model": (
        changed(request(PNG), lambda one: setattr(one, "model_name", "roadsings")),
        "MODEL_NOT_FOUND",
    ),
    "an unknown version": (
        changed(request(PNG), lambda one: setattr(one, "model_version", "7")),
        "MODEL_VERSION_NOT_FOUND",
    ),
    "an id that breaks the log": (changed(request(PNG), lambda one: setattr(one, "id", "a\nb")), "REQUEST_ID_INVALID"),
    "a reserved parameter": (request(PNG, triton_final=True), "PARAMETER_INVALID"),
    "a priority below 0": (request(PNG, priority=-1), "PARAMETER_INVALID"),
    "a timeout in words": (request(PNG, timeout="soon"), "PARAMETER_INVALID"),
    "a timeout of a microsecond": (request(PNG, timeout=1), "DEADLINE_EXCEEDED"),
    "shared memory": (
        request(dataclasses.replace(PNG, parameters=(("shared_memory_region", "x"),))),
        "PARAMETER_INVALID",
    ),
    "fewer contents than inputs": (
        changed(request(PNG, PIXELS), lambda one: one.raw_input_contents.pop()),
        "INPUT_TENSOR_INVALID",
    ),
    "more contents than inputs": (
        changed(request(PNG), lambda one: one.raw_input_contents.append(b"")),
        "INPUT_TENSOR_INVALID",
    ),
    "contents in both ways": (
        changed(request(PNG), lambda one: one.inputs[0].contents.bytes_contents.append(b"")),
        "INPUT_TENSOR_INVALID",
    ),
    "typed contents above a byte": (
        changed(
            request(dataclasses.replace(PIXELS, shape=(1, 1, 3)), pixel_format="RGB8"),
            lambda one: (
                one.ClearField("raw_input_contents"),
                one.inputs[0].contents.uint_contents.extend([0, 256, 0]),
            ),
        ),
        "INPUT_TENSOR_INVALID",
    ),
    "megabytes of typed contents": (
        changed(
            request(PIXELS, pixel_format="RGB8"),
            lambda one: (
                one.ClearField("raw_input_contents"),
                one.inputs[0].contents.uint_contents.extend(300_000 * [0]),
            ),
        ),
        "REQUEST_TOO_LARGE",
    ),
}

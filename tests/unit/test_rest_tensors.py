"""Responses of inference as bodies of HTTP, and messages as JSON."""

import base64
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb
from tritonclient.http import InferResult
from vedette_server.rpc import rest_json, rest_tensors
from vedette_server.rpc.input_tensors import packed
from vedette_server.rpc.rest_tensors import RestRequest
from vedette_server.rpc.wire import Gathered

FILE = b"\x89PNG\xff"
POINTS = np.array([[[1.5, 2.5, np.nan], [np.inf, 0.1, 1.0]]], "<f4")


def response() -> pb.ModelInferResponse:
    given = pb.ModelInferResponse(model_name="all", model_version="3")
    given.parameters["threshold"].double_param = 0.5
    for name, datatype, shape, raw in (
        ("KEYPOINTS", "FP32", POINTS.shape, POINTS.tobytes()),
        ("BOXES", "FP32", (0, 4), b""),
        ("CLASSES", "INT64", (2,), np.array([2**53 + 1, -1], "<i8").tobytes()),
        ("CLASS_NAMES", "BYTES", (2,), packed([b"zebra", "Müll".encode()])),
        ("PANOPTIC", "BYTES", (1,), packed([FILE])),
    ):
        given.outputs.add(name=name, datatype=datatype, shape=shape)
        given.raw_output_contents.append(raw)
    return given


def asked(binary: Mapping[str, bool], *, all_binary: bool = False) -> RestRequest:
    return RestRequest(Gathered(pb.ModelInferRequest(), []), all_binary, binary)


def test_json_holds_everything_exactly() -> None:
    body, length = rest_tensors.written(response(), asked({}))
    assert length is None
    told = json.loads(body, parse_constant=pytest.fail)  # called for NaN
    assert (told["model_name"], told["model_version"], told["parameters"]) == ("all", "3", {"threshold": 0.5})
    assert "id" not in told
    data = {one["name"]: one["data"] for one in told["outputs"]}
    points = [math.nan if one is None else one for one in data["KEYPOINTS"]]
    assert np.array_equal(
        np.array(points, np.float32).reshape(POINTS.shape), np.where(np.isinf(POINTS), np.nan, POINTS), equal_nan=True
    )
    assert data["BOXES"] == []
    assert data["CLASSES"] == [2**53 + 1, -1]
    assert data["CLASS_NAMES"] == ["zebra", "Müll"]
    assert base64.b64decode(data["PANOPTIC"][0]) == FILE
    assert told["outputs"][-1]["parameters"] == {"content_type": "base64"}


def test_binary_data_follow_the_json_in_the_order_of_the_outputs() -> None:
    body, length = rest_tensors.written(response(), asked({"CLASSES": False}, all_binary=True))
    result = InferResult.from_response_body(body, header_length=length)
    assert np.array_equal(result.as_numpy("KEYPOINTS"), POINTS, equal_nan=True)
    assert result.as_numpy("BOXES").shape == (0, 4)
    assert result.as_numpy("CLASSES").tolist() == [2**53 + 1, -1]
    assert "data" in result.get_output("CLASSES")
    assert result.as_numpy("PANOPTIC").tolist() == [FILE]


def test_a_message_is_json_with_numbers_as_numbers() -> None:
    config = model_config_pb2.ModelConfig(name="all", max_batch_size=0)
    config.input.add(name="IMAGE", data_type=model_config_pb2.TYPE_UINT8, dims=[-1, 3])
    config.parameters["key"].string_value = "value"
    told = json.loads(rest_json.written(rest_json.plain(config)))
    assert (told["name"], told["max_batch_size"], told["output"]) == ("all", 0, [])
    assert (told["input"][0]["data_type"], told["input"][0]["dims"]) == ("TYPE_UINT8", [-1, 3])
    assert told["parameters"] == {"key": {"string_value": "value"}}
    assert "dynamic_batching" not in told

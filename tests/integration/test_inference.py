"""The Open Inference Protocol through Triton's own client: the answers of our client, and refusals with reasons."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from tritonclient.grpc import service_pb2 as pb
from vedette_client import Client
from vedette_server.addresses import Tcp
from vedette_server.engine.engine import Engine
from vedette_server.rpc.errors import TABLE
from vedette_server.rpc.guard import INFERENCE, SERVICE
from vedette_server.rpc.server import RpcServer
from vedette_server.watch.probe import Probe

from tests.support import running
from tests.support.open_inference import (
    BLACK,
    MODEL,
    PICTURES,
    PIXELS,
    PNG,
    REFUSED,
    WAYS,
    as_bytes,
    assert_equal,
    file,
    request,
    sent,
    texts,
)
from tests.support.scripted import SETTINGS, Silent


def picture_of(data: bytes) -> Any:
    return sent(*as_bytes(data))


@pytest.mark.parametrize("way", WAYS)
def test_triton_s_client_gets_the_answers_of_ours(way: str, theirs: Any, client: Client) -> None:
    for pixels in PICTURES:
        result = theirs.infer(MODEL, [sent(*WAYS[way].theirs(pixels))], parameters=WAYS[way].parameters)
        expected = WAYS[way].ours(client, pixels)
        assert len(expected)
        assert_equal(result, expected)


def test_an_empty_answer_is_no_error_and_says_why(theirs: Any, client: Client) -> None:
    result = theirs.infer(MODEL, [picture_of(file(BLACK))])
    expected = client.detect(file(BLACK))
    assert expected.empty
    assert result.as_numpy("BOXES").shape == (0, 4)
    assert_equal(result, expected)


async def test_triton_s_asyncio_client_is_served_alike(bundled: running.Server, client: Client) -> None:
    async with triton_aio.InferenceServerClient(bundled.address) as theirs:
        assert await theirs.is_server_live()
        assert await theirs.is_server_ready()
        assert await theirs.is_model_ready(MODEL)
        assert (await theirs.get_model_metadata(MODEL)).name == MODEL
        result = await theirs.infer(MODEL, [picture_of(file(PICTURES[0]))], request_id="seven")
    assert result.get_response().id == "seven"
    logged = running.wait_for(
        lambda: [one for one in bundled.events("detect") if one["request_id"] == "seven"], "the line of its call"
    )
    assert (logged[0]["model"], logged[0]["version"]) == (MODEL, "1")
    assert_equal(result, client.detect(file(PICTURES[0])))


def test_options_are_those_of_our_client(theirs: Any, client: Client) -> None:
    picture = picture_of(file(PICTURES[0]))
    (found, *_) = client.detect(file(PICTURES[0]))
    high = sent("SCORE_THRESHOLD", np.array([0.995], np.float32), "FP32")
    assert_equal(theirs.infer(MODEL, [high, picture]), client.detect(file(PICTURES[0]), threshold=0.995))
    for names in ([found.class_name], ["yield"]):
        of_names = sent("CLASSES_FILTER", np.array([name.encode() for name in names], np.object_), "BYTES")
        assert_equal(theirs.infer(MODEL, [of_names, picture]), client.detect(file(PICTURES[0]), classes=names))
    for datatype, kind in (("INT32", np.int32), ("INT64", np.int64)):
        of_ids = sent("CLASSES_FILTER", np.array([found.class_id], kind), datatype)
        expected = client.detect(file(PICTURES[0]), classes=[found.class_name])
        assert_equal(theirs.infer(MODEL, [of_ids, picture]), expected)


def test_only_the_requested_outputs_are_sent_in_their_order(theirs: Any) -> None:
    names = ["EMPTY_REASON", "SCORES", "BOXES"]
    outputs = [triton.InferRequestedOutput(name) for name in names]
    response = theirs.infer(MODEL, [picture_of(file(BLACK))], outputs=outputs).get_response()
    assert [output.name for output in response.outputs] == names
    assert len(response.raw_output_contents) == len(names)
    assert not any(output.HasField("contents") for output in response.outputs)


def test_small_contents_may_be_typed(stub: Any, client: Client) -> None:
    data = file(PICTURES[0], "JPEG")
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="ENCODED", datatype="BYTES", shape=[1]).contents.bytes_contents.append(data)
    request.inputs.add(name="SCORE_THRESHOLD", datatype="FP32", shape=[1]).contents.fp32_contents.append(0.3)
    request.inputs.add(name="CLASSES_FILTER", datatype="INT64", shape=[2]).contents.int64_contents.extend([0, 1])
    assert_equal(
        triton.InferResult(stub.ModelInfer(request)), client.detect(data, threshold=0.3, classes=names(client))
    )
    tiny = pb.ModelInferRequest(model_name=MODEL)
    tiny.parameters["pixel_format"].string_param = "RGB8"
    image = tiny.inputs.add(name="IMAGE", datatype="UINT8", shape=BLACK.shape)
    image.contents.uint_contents.extend(BLACK.flatten().tolist())
    assert_equal(triton.InferResult(stub.ModelInfer(tiny)), client.detect(BLACK, pixel_format="RGB8"))


def names(client: Client) -> list[str]:
    return list(client.model(MODEL).contract.class_names[:2])


def test_a_model_describes_itself_for_triton_s_tools(theirs: Any, bundled: running.Server) -> None:
    assert theirs.is_server_live()
    assert theirs.is_server_ready()
    assert [theirs.is_model_ready(*which) for which in ((MODEL,), (MODEL, "1"), (MODEL, "7"), ("none",))] == [
        True,
        True,
        False,
        False,
    ]
    server = theirs.get_server_metadata()
    assert server.name == "vedette"
    extensions = ["model_configuration", "parameters", "schedule_policy", "statistics", "system_shared_memory"]
    assert list(server.extensions) == extensions
    metadata = theirs.get_model_metadata(MODEL)
    assert (metadata.name, list(metadata.versions), metadata.platform) == (MODEL, ["1"], "detectron2")
    inputs = {one.name: (one.datatype, list(one.shape)) for one in metadata.inputs}
    assert inputs == {
        "IMAGE": ("UINT8", [-1, -1, -1]),
        "ENCODED": ("BYTES", [1]),
        "SCORE_THRESHOLD": ("FP32", [1]),
        "CLASSES_FILTER": ("BYTES", [-1]),
    }
    config = theirs.get_model_config(MODEL).config
    assert (config.name, config.max_batch_size) == (MODEL, 0)
    assert not config.model_transaction_policy.decoupled
    assert all(one.optional for one in config.input)
    assert {one.name: list(one.dims) for one in config.input} == {name: shape for name, (_, shape) in inputs.items()}
    result = theirs.infer(MODEL, [picture_of(file(PICTURES[0]))]).get_response()
    described = {one.name: (one.datatype, list(one.shape)) for one in metadata.outputs}
    assert [one.name for one in result.outputs] == list(described) == [one.name for one in config.output]
    for output in result.outputs:
        datatype, shape = described[output.name]
        assert output.datatype == datatype
        assert [-1 if wanted == -1 else got for wanted, got in zip(shape, output.shape, strict=True)] == shape
    (index,) = theirs.get_model_repository_index().models
    assert (index.name, index.version, index.state, index.reason) == (MODEL, "1", "READY", "")
    assert bundled.events("listening")[0]["services"] == [SERVICE, INFERENCE]


def test_reflection_and_health_know_the_service(bundled: running.Server) -> None:
    with grpc.insecure_channel(bundled.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=INFERENCE))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest
        asked = [request(list_services=""), request(file_containing_symbol=INFERENCE)]
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed, described = reflection.ServerReflectionInfo(iter(asked))
        assert INFERENCE in [one.name for one in listed.list_services_response.service]
        assert described.file_descriptor_response.file_descriptor_proto


def test_what_is_not_served_yet_is_unimplemented(theirs: Any) -> None:
    for call in (
        lambda: theirs.load_model(MODEL),
        lambda: theirs.unload_model(MODEL),
        theirs.get_trace_settings,
        theirs.get_log_settings,
        theirs.get_cuda_shared_memory_status,
    ):
        with pytest.raises(triton.InferenceServerException) as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_statistics_add_up(theirs: Any) -> None:
    before = theirs.get_inference_statistics(MODEL, "1").model_stats[0]
    for _ in range(3):
        theirs.infer(MODEL, [picture_of(file(BLACK))])
    for _ in range(2):
        with pytest.raises(triton.InferenceServerException):
            theirs.infer(MODEL, [picture_of(b"no picture")])
    (after,) = theirs.get_inference_statistics().model_stats
    assert (after.name, after.version) == (MODEL, "1")
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 3
    assert abs(after.last_inference / 1000 - time.time()) < 60
    gained = {
        field.name: (
            getattr(after.inference_stats, field.name).count - getattr(before.inference_stats, field.name).count,
            getattr(after.inference_stats, field.name).ns - getattr(before.inference_stats, field.name).ns,
        )
        for field in after.inference_stats.DESCRIPTOR.fields
    }
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert gained["fail"][0] == 2
    assert {gained[name][0] for name in ("success", *parts)} == {3}
    assert all(gained[name][1] > 0 for name in ("fail", "success", *parts))
    assert sum(gained[name][1] for name in parts) <= gained["success"][1]
    (batch,) = after.batch_stats
    assert batch.batch_size == 1
    assert batch.compute_infer == after.inference_stats.compute_infer


def reason(error: Any) -> str:
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert "?" not in status.message
    assert error.code() is TABLE[info.reason].code
    found: str = info.reason
    return found


def called(channel: Any, method: str) -> Any:
    """A method as it takes bytes of any kind."""
    return channel.unary_unary(f"/{INFERENCE}/{method}", bytes, bytes)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_with_its_reason(case: str, stub: Any) -> None:
    message, expected = REFUSED[case]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=30)
    assert reason(caught.value) == expected


def test_a_refusal_counts_once_as_one_of_its_model(bundled: running.Server, stub: Any) -> None:
    counters = {"vedette_contract_violations_total": "reason", "vedette_requests_total": "outcome"}
    series = [
        f'{name}{{model="{MODEL}",{label}="PIXEL_FORMAT_MISSING",version="1"}}' for name, label in counters.items()
    ]
    before = [running.sample(bundled, one) for one in series]
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(request(PIXELS), timeout=30)
    assert [running.sample(bundled, one) for one in series] == [one + 1 for one in before]


def test_triton_s_client_shows_what_to_do(theirs: Any) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        theirs.infer(MODEL, [sent("IMAGE", PICTURES[0], "UINT8")])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "PIXEL_FORMAT_BGR8 (OpenCV's order)" in caught.value.message()


@pytest.fixture(scope="module")
def zoo(families: Path) -> Iterator[running.Server]:
    with running.server("--repository", str(families), "--threads", "1") as server:
        yield server


@pytest.mark.parametrize("model", ["keypoint_rcnn", "panoptic_fpn"])
def test_keypoints_and_segments_are_those_of_our_client(model: str, zoo: running.Server) -> None:
    data, low = file(PICTURES[0]), np.array([0.06], np.float32)
    with triton.InferenceServerClient(zoo.address) as theirs, Client(zoo.address) as ours:
        expected = ours.detect(data, model=model, threshold=0.06)
        result = theirs.infer(model, [picture_of(data), sent("SCORE_THRESHOLD", low, "FP32")])
        described = {one.name: list(one.shape) for one in theirs.get_model_metadata(model).outputs}
    assert result.as_numpy("BOXES").tolist() == expected.boxes.tolist()
    if model == "keypoint_rcnn":
        points = result.as_numpy("KEYPOINTS")
        assert list(points.shape[1:]) == described["KEYPOINTS"][1:]
        assert points.tolist() == [[[one.x, one.y, one.score] for one in found.keypoints] for found in expected]
        return
    assert expected.panoptic
    assert result.as_numpy("PANOPTIC").tolist() == [expected.panoptic.segment_map_png]
    assert json.loads(texts(result, "SEGMENTS")[0]) == [dataclasses.asdict(one) for one in expected.panoptic.segments]
    assert result.as_numpy("SEMANTIC").tolist() == [expected.class_map_png]
    assert described["SEGMENTS"] == described["SEMANTIC"] == [1]


def test_parameters_of_others_are_ignored(stub: Any) -> None:
    own = {"sequence_id": 3, "my_label": "x", "priority": 1, "timeout": 30_000_000}
    assert stub.ModelInfer(request(PNG, **own), timeout=30).model_name == MODEL


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "RepositoryIndex"])
@pytest.mark.parametrize("field", [b"\x80\x7d\x01", b"\x3a\x00"], ids=["unknown fields", "raw contents"])
def test_millions_of_tiny_fields_are_refused_quickly(bundled: running.Server, method: str, field: bytes) -> None:
    with grpc.insecure_channel(bundled.address, [("grpc.max_send_message_length", -1)]) as channel:
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            called(channel, method)(field * 5_000_000, timeout=30)
        assert reason(caught.value) == "REQUEST_TOO_LARGE"
        assert time.monotonic() - started < 5


async def test_without_the_extra_the_service_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    server = RpcServer(Engine(SETTINGS, Silent(), Probe(Silent()), max_seconds=60), 1_000_000, 1)
    assert server.services == (SERVICE,)
    assert server.rest is None, "nor over HTTP"
    address = await server.start(Tcp("127.0.0.1", 0))
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await called(channel, "ServerLive")(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        await server.stop(0)

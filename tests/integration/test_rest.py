"""The Open Inference Protocol over HTTP: the answers of our client, and the refusals of gRPC with their statuses."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from vedette_client import Client

from tests.support import rest, running
from tests.support.open_inference import (
    BLACK,
    MODEL,
    PICTURES,
    PNG,
    WAYS,
    as_bytes,
    assert_equal,
    file,
    request,
)
from tests.support.rest import INFER, LENGTH, asked, listed

TINY = PICTURES[0][:80, :100]


def sent(name: str, array: NDArray[Any], datatype: str, *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.fixture
def theirs(bundled: running.Server) -> Iterator[Any]:
    with triton.InferenceServerClient(urlsplit(bundled.http).netloc) as client:
        yield client


@pytest.mark.parametrize("way", WAYS)
def test_triton_s_client_gets_the_answers_of_ours(way: str, theirs: Any, client: Client) -> None:
    for pixels in PICTURES:
        result = theirs.infer(MODEL, [sent(*WAYS[way].theirs(pixels))], parameters=WAYS[way].parameters)
        expected = WAYS[way].ours(client, pixels)
        assert len(expected)
        assert_equal(result, expected)


@pytest.mark.parametrize("binary", [True, False])
def test_an_empty_answer_is_no_error_and_says_why(binary: bool, theirs: Any, client: Client) -> None:  # noqa: FBT001
    outputs = [triton.InferRequestedOutput(one["name"], binary) for one in theirs.get_model_metadata(MODEL)["outputs"]]
    result = theirs.infer(MODEL, [sent(*as_bytes(file(BLACK)))], outputs=outputs)
    assert result.as_numpy("BOXES").shape == (0, 4)
    assert_equal(result if binary else as_texts(result), client.detect(file(BLACK)))


def as_texts(result: Any) -> Any:
    """The result of Triton's client, whose elements of BYTES are texts where they come in JSON."""

    class Texts:
        get_response = result.get_response

        @staticmethod
        def as_numpy(name: str) -> NDArray[Any]:
            array: NDArray[Any] = result.as_numpy(name)
            return np.array([one.encode() for one in array], object) if array.dtype == object else array

    return Texts()


async def test_triton_s_asyncio_client_is_served_alike(bundled: running.Server, client: Client) -> None:
    async with triton_aio.InferenceServerClient(urlsplit(bundled.http).netloc) as theirs:
        assert await theirs.is_server_live()
        assert await theirs.is_server_ready()
        assert await theirs.is_model_ready(MODEL)
        for pixels in PICTURES:
            result = await theirs.infer(MODEL, [sent(*as_bytes(file(pixels)))], request_id="eight")
            assert result.get_response()["id"] == "eight"
            assert_equal(result, client.detect(file(pixels)))
    running.wait_for(lambda: [one for one in bundled.events("detect") if one["request_id"] == "eight"], "its line")


def test_options_are_those_of_our_client(theirs: Any, client: Client) -> None:
    picture = sent(*as_bytes(file(PICTURES[0])))
    (found, *_) = client.detect(file(PICTURES[0]))
    for binary in (True, False):
        high = sent("SCORE_THRESHOLD", np.array([0.995], np.float32), "FP32", binary=binary)
        assert_equal(theirs.infer(MODEL, [high, picture]), client.detect(file(PICTURES[0]), threshold=0.995))
        for name in (found.class_name, "yield"):
            of_name = sent("CLASSES_FILTER", np.array([name.encode()], np.object_), "BYTES", binary=binary)
            assert_equal(theirs.infer(MODEL, [picture, of_name]), client.detect(file(PICTURES[0]), classes=[name]))
        for datatype, kind in (("INT32", np.int32), ("INT64", np.int64)):
            of_id = sent("CLASSES_FILTER", np.array([found.class_id], kind), datatype, binary=binary)
            expected = client.detect(file(PICTURES[0]), classes=[found.class_name])
            assert_equal(theirs.infer(MODEL, [of_id, picture]), expected)


def test_outputs_come_in_their_order_and_each_in_its_form(bundled: running.Server, theirs: Any) -> None:
    forms = {"EMPTY_REASON": False, "SCORES": True, "BOXES": False, "CLASS_NAMES": True}
    outputs = [triton.InferRequestedOutput(name, binary) for name, binary in forms.items()]
    result = theirs.infer(MODEL, [sent(*as_bytes(file(PICTURES[0])))], outputs=outputs)
    told = result.get_response()["outputs"]
    assert [(one["name"], "data" not in one) for one in told] == list(forms.items())
    everything = theirs.infer(MODEL, [sent(*as_bytes(file(PICTURES[0])))])
    for name in ("SCORES", "BOXES", "CLASS_NAMES"):
        assert result.as_numpy(name).tolist() == everything.as_numpy(name).tolist()
    reply = rest.binary(request(PNG)).send(bundled.http)
    assert reply.headers["Content-Type"] == "application/json"
    assert LENGTH not in reply.headers


def test_json_alone_will_do(bundled: running.Server, client: Client) -> None:
    jpeg = file(PICTURES[0], "JPEG")
    in_base64 = listed("ENCODED", "BYTES", [1], [base64.b64encode(jpeg).decode()], content_type="base64")
    in_numbers = listed("ENCODED", "UINT8", [len(jpeg)], list(jpeg))
    threshold = listed("SCORE_THRESHOLD", "FP32", [1], [0.3])
    expected = client.detect(jpeg, threshold=0.3)
    assert len(expected)
    for picture in (in_base64, in_numbers):
        reply = rest.call(bundled.http, INFER, asked(threshold, picture, id="nine"))
        assert reply.status == 200, reply.body
        outputs = {one["name"]: one for one in reply.json["outputs"]}
        assert reply.json["id"] == "nine"
        assert outputs["BOXES"]["shape"] == [len(expected), 4]
        assert np.reshape(outputs["BOXES"]["data"], (-1, 4)).tolist() == expected.boxes.tolist()
        assert outputs["CLASS_NAMES"]["data"] == [one.class_name for one in expected]
        assert outputs["EMPTY_REASON"]["data"] == [""]


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_may_be_nested_as_their_shape_or_flat(
    nested: bool,  # noqa: FBT001
    bundled: running.Server,
    client: Client,
) -> None:
    pixels = TINY.tolist() if nested else TINY.flatten().tolist()
    small = listed("IMAGE", "UINT8", list(TINY.shape), pixels, pixel_format="RGB8")
    reply = rest.call(bundled.http, INFER, asked(small))
    evidence = json.loads(next(one for one in reply.json["outputs"] if one["name"] == "FINDINGS")["data"][0])
    assert [one["evidence"] for one in evidence] == [
        one.evidence for one in client.detect(TINY, pixel_format="RGB8").findings
    ]


def test_null_is_as_good_as_absent(bundled: running.Server) -> None:
    picture = {"name": "ENCODED", "datatype": "UINT8", "shape": [3], "data": [1, 2, 3], "parameters": None}
    reply = rest.call(bundled.http, INFER, asked(picture, id=None, outputs=None, parameters=None))
    assert reply.reason == "IMAGE_UNREADABLE"


def test_a_model_describes_itself_as_over_grpc(theirs: Any, bundled: running.Server) -> None:
    with triton_grpc.InferenceServerClient(bundled.address) as over_grpc:
        metadata = over_grpc.get_model_metadata(MODEL)
        config = over_grpc.get_model_config(MODEL).config
        extensions = list(over_grpc.get_server_metadata().extensions)
    assert theirs.is_server_live()
    assert theirs.is_server_ready()
    ready = [theirs.is_model_ready(*which) for which in ((MODEL,), (MODEL, "1"), (MODEL, "7"), ("none",))]
    assert ready == [True, True, False, False]
    assert theirs.get_server_metadata()["extensions"] == [*extensions, "binary_tensor_data"]
    told = theirs.get_model_metadata(MODEL)
    assert (told["name"], told["versions"], told["platform"]) == (MODEL, ["1"], "detectron2")
    for kind in ("inputs", "outputs"):
        assert told[kind] == [
            {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in getattr(metadata, kind)
        ]
    assert theirs.get_model_metadata(MODEL, "1") == told
    configured = theirs.get_model_config(MODEL, "1")
    assert configured["max_batch_size"] == 0
    assert [(one["name"], one["dims"]) for one in configured["input"]] == [
        (one.name, list(one.dims)) for one in config.input
    ]
    assert configured["parameters"]["contract_fingerprint"] == {
        "string_value": config.parameters["contract_fingerprint"].string_value
    }
    (index,) = theirs.get_model_repository_index()
    assert index == {"name": MODEL, "version": "1", "state": "READY", "reason": ""}
    assert rest.call(bundled.http, "/v2/repository/index", b'{"ready": true}').json == [index]


def test_statistics_count_both_transports(theirs: Any) -> None:
    def counts(*which: str) -> tuple[int, int]:
        (of,) = theirs.get_inference_statistics(*which)["model_stats"]
        return of["inference_stats"]["success"]["count"], of["inference_stats"]["fail"]["count"]

    before = counts(MODEL, "1")
    theirs.infer(MODEL, [sent(*as_bytes(file(BLACK)))])
    with pytest.raises(triton.InferenceServerException):
        theirs.infer(MODEL, [sent(*as_bytes(b"no picture"))])
    assert counts() == counts(MODEL) == (before[0] + 1, before[1] + 1)


def test_triton_s_client_shows_what_to_do(theirs: Any) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        theirs.infer(MODEL, [sent("IMAGE", PICTURES[0], "UINT8")])
    assert caught.value.status() == "400"
    assert "PIXEL_FORMAT_BGR8 (OpenCV's order)" in caught.value.message()
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(triton.InferenceServerException, match="pictures are compressed already"):
            theirs.infer(MODEL, [sent(*as_bytes(file(BLACK)))], request_compression_algorithm=algorithm)

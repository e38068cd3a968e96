"""Refusals over HTTP: those of gRPC with their statuses, and those of bodies and paths."""

import gzip
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vedette_server.contract.refusal import Reason
from vedette_server.rpc import wire
from vedette_server.rpc.errors import TABLE

from tests.support import rest, running
from tests.support.open_inference import (
    BLACK,
    MODEL,
    PIXELS,
    REFUSED,
    file,
    request,
)
from tests.support.rest import INFER, LENGTH, asked, assert_refused, listed

SHARED = {
    case: (message, reason)
    for case, (message, reason) in REFUSED.items()
    if case != "a timeout of a microsecond"  # OVERLOADED, where the worker is busy
    and len(message.inputs) == len(message.raw_input_contents)
    and not any(one.HasField("contents") or "shared_memory_region" in one.parameters for one in message.inputs)
}


@pytest.mark.parametrize("case", SHARED)
def test_what_is_wrong_is_refused_for_the_reason_of_grpc(case: str, bundled: running.Server) -> None:
    message, reason = SHARED[case]
    assert_refused(rest.binary(message).send(bundled.http), reason)


TRUE_PIXELS = listed("IMAGE", "UINT8", [1, 1, 3], [0, 256, 0], pixel_format="RGB8")
ENCODED = listed("ENCODED", "UINT8", [3], [1, 2, 3])
HUGE = 10**400


def changed(tensor: dict[str, Any], **fields: Any) -> bytes:
    return asked({**tensor, **fields})


IN_JSON = {
    "nothing": b"",
    "no JSON": b"a picture",
    "not UTF-8": b'{"id": "\xff"}',
    "a list": b"[]",
    "a text": b'"text"',
    "half an object": b'{"inputs": [',
    "inputs that are no list": b'{"inputs": {}}',
    "an input without a name": b'{"inputs": [{"shape": [1], "datatype": "BYTES", "data": ["x"]}]}',
    "an input that is no object": b'{"inputs": [3]}',
    "an id that is a number": b'{"id": 3, "inputs": []}',
    "a name twice": b'{"inputs": [], "inputs": []}',
    "a name twice deeper": b'{"inputs": [{"name": "IMAGE", "name": "IMAGE"}]}',
    "NaN": b'{"inputs": [{"name": "SCORE_THRESHOLD", "shape": [1], "datatype": "FP32", "data": [NaN]}]}',
    "deep lists": b'{"inputs": ' + 100_000 * b"[" + 100_000 * b"]" + b"}",
    "deep objects": 40_000 * b'{"a":' + b"1" + 40_000 * b"}",
    "a number of thousands of digits": b'{"inputs": [], "x": ' + 5_000 * b"9" + b"}",
    "half a surrogate pair": b'{"id": "\\ud800", "inputs": []}',
    "half a surrogate pair as a class": asked(listed("CLASSES_FILTER", "BYTES", [1], ["\ud800"])),
    "a shape of texts": changed(ENCODED, shape=["3"]),
    "a shape of fractions": changed(ENCODED, shape=[3.5]),
    "a shape beyond 64 bits": changed(ENCODED, shape=[2**63]),
    "a shape of thousands of digits": changed(ENCODED, shape=[HUGE]),
    "a parameter that is a list": changed(ENCODED, parameters={"pixel_format": ["RGB8"]}),
    "a parameter beyond 64 bits": asked(ENCODED, parameters={"timeout": HUGE}),
    "no data": asked({"name": "ENCODED", "datatype": "UINT8", "shape": [3]}),
    "data in both ways": changed(ENCODED, parameters={"binary_data_size": 0}),
    "elements above a byte": asked(TRUE_PIXELS),
    "elements below a byte": changed(TRUE_PIXELS, data=[0, -1, 0]),
    "elements that are fractions": changed(TRUE_PIXELS, data=[0.5, 1, 1]),
    "elements that are truths": changed(TRUE_PIXELS, data=[True, False, True]),
    "elements that are texts": changed(TRUE_PIXELS, data=["0", "1", "2"]),
    "elements that are null": changed(TRUE_PIXELS, data=[None, 1, 2]),
    "elements beyond 32 bits": asked(listed("CLASSES_FILTER", "INT32", [1], [2**31])),
    "elements beyond 64 bits": asked(listed("CLASSES_FILTER", "INT64", [1], [2**63])),
    "a threshold beyond all floats": asked(listed("SCORE_THRESHOLD", "FP32", [1], [HUGE])),
    "a threshold in words": asked(listed("SCORE_THRESHOLD", "FP32", [1], ["high"])),
    "a class that is a number": asked(listed("CLASSES_FILTER", "BYTES", [1], [3])),
    "base64 that is none": asked(listed("ENCODED", "BYTES", [1], ["*"], content_type="base64")),
    "base64 that is no ASCII": asked(listed("ENCODED", "BYTES", [1], ["ä"], content_type="base64")),
    "lists of other lengths than the shape": changed(TRUE_PIXELS, data=[[[0, 1]], [[2]]]),
    "lists and numbers mixed": changed(TRUE_PIXELS, data=[[[0, 1, 2]], 3]),
    "an output that is no object": asked(ENCODED, outputs=["BOXES"]),
    "binary_data that is a number": asked(ENCODED, outputs=[{"name": "BOXES", "parameters": {"binary_data": 1}}]),
    "binary_data_output that is a text": asked(ENCODED, parameters={"binary_data_output": "yes"}),
}
OTHERWISE = {
    "no inputs": (b"{}", "IMAGE_MISSING"),
    "a datatype that is none": (changed(ENCODED, datatype="FP16"), "INPUT_TENSOR_INVALID"),
    "an input that is none": (changed(ENCODED, name="PICTURE"), "INPUT_TENSOR_INVALID"),
    "fewer elements than the shape says": (changed(ENCODED, shape=[4]), "INPUT_TENSOR_INVALID"),
    "an infinite threshold": (
        asked(listed("SCORE_THRESHOLD", "FP32", [1], [1.25]), ENCODED).replace(b"1.25", b"1e999"),
        "THRESHOLD_OUT_OF_RANGE",
    ),
    "megabytes of JSON": (changed(ENCODED, data=[0] * 300_000), "REQUEST_TOO_LARGE"),
    "a reserved parameter": (asked(ENCODED, parameters={"triton_final": True}), "PARAMETER_INVALID"),
    "classification": (
        asked(ENCODED, outputs=[{"name": "BOXES", "parameters": {"classification": 3}}]),
        "PARAMETER_INVALID",
    ),
}


@pytest.mark.parametrize("case", [*IN_JSON, *OTHERWISE])
def test_json_that_is_wrong_is_refused_with_its_reason(case: str, bundled: running.Server) -> None:
    body, reason = OTHERWISE[case] if case in OTHERWISE else (IN_JSON[case], "BODY_INVALID")
    assert_refused(rest.call(bundled.http, INFER, body), reason)


BINARY = {"name": "ENCODED", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}}


@pytest.mark.parametrize(
    ("size", "data"),
    [(3, b"ab"), (3, b"abcd"), (2, b"abc"), (-1, b"abc"), (2**62, b"abc"), ("3", b"abc"), (True, b"a"), (1.0, b"a")],
)
def test_binary_data_must_be_as_long_as_they_say(size: Any, data: bytes, bundled: running.Server) -> None:
    body = rest.Body(changed(BINARY, parameters={"binary_data_size": size}), data)
    assert_refused(body.send(bundled.http), "BODY_INVALID")


@pytest.mark.parametrize("length", ["", "0", "-1", "x", "1e1", "9" * 5_000, "\u0661", "10000"])
def test_the_length_of_the_json_must_be_within_the_body(length: str, bundled: running.Server) -> None:
    body = asked(BINARY) + b"abc"
    reply = rest.call(bundled.http, INFER, body, {LENGTH: length.encode().decode("latin-1")})
    assert_refused(reply, "BODY_INVALID")


def test_json_has_a_limit_of_its_own(bundled: running.Server) -> None:
    head = asked(BINARY, id=" " * wire.MOST_BESIDE_IMAGE)
    assert_refused(rest.Body(head, b"abc").send(bundled.http), "REQUEST_TOO_LARGE")
    large = {"Content-Length": str(10**6)}
    assert_refused(rest.call(bundled.http, "/v2/repository/index", bytes(10**6), large), "REQUEST_TOO_LARGE")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "zstd"])
def test_a_compressed_body_is_refused(encoding: str, bundled: running.Server) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    assert_refused(rest.call(bundled.http, INFER, bomb, {"Content-Encoding": encoding}), "BODY_COMPRESSED")


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://127.0.0.1:8002", 5_000 * "x"])
def test_pages_in_browsers_are_refused(origin: str, bundled: running.Server) -> None:
    for path, body in ((INFER, b""), ("/v2/repository/models/roadsigns/unload", b""), ("/v2", None)):
        refused = rest.call(bundled.http, path, body, {"Origin": origin})
        assert_refused(refused, "ORIGIN_REFUSED")
        assert refused.status == 403
        assert origin[:100] in refused.json["error"]
        assert len(refused.body) < 1_000


@pytest.mark.parametrize("path", ["/v2/", "/v2/models", "/v2/models/roadsigns/infer", "/v2/trace/setting", "/v2/%ff"])
def test_paths_that_are_not_there_are_not_found(path: str, bundled: running.Server) -> None:
    assert_refused(rest.call(bundled.http, path), "PATH_NOT_FOUND")


def test_names_in_paths_are_decoded(bundled: running.Server) -> None:
    assert rest.call(bundled.http, "/v2/models/%72oadsigns").json["name"] == MODEL
    for name, shown in (("a%2Fb", "a/b"), ("%0a", "\\n"), ("%ff", "%ff"), ("..%2f..", "../..")):
        reply = rest.call(bundled.http, f"/v2/models/{name}")
        assert_refused(reply, "MODEL_NOT_FOUND")
        assert f"'{shown}'" in reply.json["error"]


def test_a_body_beyond_the_largest_is_refused_before_it_is_sent(bundled: running.Server) -> None:
    with rest.connect(bundled.http) as connection:
        connection.sendall(rest.head(INFER, 10**12, **{LENGTH: 100}))
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 413
        assert json.loads(response.read())["error"].startswith("BODY_TOO_LARGE: The body has 1000000000000 bytes")


def test_chunks_are_read_within_the_same_limits(bundled: running.Server) -> None:
    url = urlsplit(bundled.http)
    chunks = {"small": [file(BLACK)], "large": [bytes(10**6)] * 80, "none": []}
    for name, reason in (("small", ""), ("large", "BODY_TOO_LARGE"), ("none", "BODY_INVALID")):
        head = (
            changed(BINARY, shape=[len(chunks[name][0])], parameters={"binary_data_size": len(chunks[name][0])})
            if chunks[name]
            else b""
        )
        connection = http.client.HTTPConnection(url.netloc, timeout=running.PATIENCE)
        try:
            connection.request(
                "POST", INFER, iter([head, *chunks[name]]), {LENGTH: str(len(head))}, encode_chunked=True
            )
        except ConnectionError:  # the server has said enough
            assert name == "large"
        told = connection.getresponse()
        assert rest.Reply(told.status, told.read()).reason == reason
        connection.close()


@pytest.mark.parametrize("sent_", [b"zz\r\n", b"5\r\nab", b"-1\r\n"])
def test_broken_chunks_are_refused(sent_: bytes, bundled: running.Server) -> None:
    with rest.connect(bundled.http) as connection:
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + sent_
        )
        connection.shutdown(1)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
        except http.client.BadStatusLine:  # closed, as the caller has closed it
            return
        assert response.status == 400


def test_a_refusal_counts_once_as_one_of_its_model(bundled: running.Server) -> None:
    series = f'vedette_requests_total{{model="{MODEL}",outcome="PIXEL_FORMAT_MISSING",version="1"}}'
    early = 'vedette_requests_total{model="",outcome="BODY_INVALID",version=""}'
    before = [running.sample(bundled, one) for one in (series, early)]
    rest.binary(request(PIXELS)).send(bundled.http)
    rest.call(bundled.http, INFER, b"[]")
    assert [running.sample(bundled, one) for one in (series, early)] == [one + 1 for one in before]


# Bodies of any kind.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
NAMES = st.sampled_from(["IMAGE", "ENCODED", "SCORE_THRESHOLD", "CLASSES_FILTER"]) | st.text(max_size=8)
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "pixel_format", "content_type", "drop_alpha", "layout"]) | st.text(max_size=8),
    st.sampled_from(["RGB8", "base64", True, 0, 3, -1, 2**64]) | JSON,
    max_size=3,
)
TENSORS = st.fixed_dictionaries(
    {
        "name": NAMES | JSON,
        "datatype": st.sampled_from(["UINT8", "FP32", "BYTES", "INT32", "INT64"]) | JSON,
        "shape": st.lists(st.integers(-2, 9) | st.integers(), max_size=4) | JSON,
    },
    optional={
        "data": st.lists(st.integers(0, 255) | st.floats() | st.text(max_size=4) | JSON, max_size=9) | JSON,
        "parameters": PARAMETERS | JSON,
    },
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={"id": JSON, "parameters": PARAMETERS | JSON, "outputs": st.lists(TENSORS, max_size=2) | JSON},
)
ANY = st.tuples(
    st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), BODIES | JSON),
    st.binary(max_size=20),
    st.none() | st.integers(-3, 3),
)


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY)
def test_any_body_is_answered_or_refused_with_a_reason(
    bundled: running.Server, body: tuple[bytes, bytes, int | None]
) -> None:
    head, data, off = body
    headers = {} if off is None else {LENGTH: str(len(head) + off)}
    reply = rest.call(bundled.http, INFER, head + data, headers)
    assert reply.status == 200 or reply.status == TABLE[Reason(reply.reason)].http < 500
    assert not bundled.events("bug")

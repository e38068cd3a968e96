"""ModelStreamInfer through Triton's own clients: each request is answered once and in order, or refused."""

import queue
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from vedette_client import Client

from tests.support import running, shared
from tests.support.open_inference import (
    BLACK,
    MODEL,
    PICTURES,
    PNG,
    REFUSED,
    WAYS,
    as_bytes,
    assert_equal,
    file,
    request,
    sent,
)

_PATIENCE = 60.0
Answer = tuple[Any, Any]  # a result, and an error


def streamed(client: Any, *requests: dict[str, Any]) -> list[Answer]:
    """Send requests on one stream of Triton's client, and return what its callback gets."""
    answers: queue.Queue[Answer] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for one in requests:
        client.async_stream_infer(MODEL, **one)
    got = [answers.get(timeout=_PATIENCE) for _ in requests]
    client.stop_stream()
    assert answers.empty()
    return got


def test_a_stream_gives_the_answers_of_our_client_in_order(theirs: Any, client: Client) -> None:
    asked = [(name, pixels) for name in WAYS for pixels in PICTURES]
    got = streamed(
        theirs,
        *(
            {
                "inputs": [sent(*WAYS[name].theirs(pixels))],
                "parameters": WAYS[name].parameters,
                "request_id": f"{number}",
            }
            for number, (name, pixels) in enumerate(asked)
        ),
    )
    for number, ((name, pixels), (result, error)) in enumerate(zip(asked, got, strict=True)):
        assert error is None
        assert result.get_response().id == f"{number}"
        assert_equal(result, WAYS[name].ours(client, pixels))


async def test_triton_s_asyncio_client_streams_alike(bundled: running.Server, client: Client) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for pixels in PICTURES:
            yield {"model_name": MODEL, "inputs": [sent(*as_bytes(file(pixels)))]}

    async with triton_aio.InferenceServerClient(bundled.address) as theirs:
        got = [answer async for answer in theirs.stream_infer(requests(), stream_timeout=_PATIENCE)]
    for pixels, (result, error) in zip(PICTURES, got, strict=True):
        assert error is None
        assert_equal(result, client.detect(file(pixels)))


UNREAD = ("megabytes of typed contents",)  # refused before its id is known


def test_what_is_wrong_with_a_request_is_its_own_error_and_the_stream_goes_on(stub: Any) -> None:
    """The whole table of refusals on one stream, each followed by a request that is right."""
    requests = []
    for number, (message, _) in enumerate(REFUSED.values()):
        copy = type(message)()
        copy.CopyFrom(message)
        copy.id = copy.id or f"wrong {number}"
        requests += [copy, request(PNG)]
    responses = list(stub.ModelStreamInfer(iter(requests), timeout=5 * _PATIENCE))
    assert len(responses) == len(requests)
    for case, message, wrong, right in zip(REFUSED, requests[::2], responses[::2], responses[1::2], strict=True):
        reason = REFUSED[case][1]
        assert wrong.error_message.startswith(f"{reason}: "), (case, wrong.error_message)
        assert "?" not in wrong.error_message
        assert wrong.infer_response.id == ("" if case in UNREAD else message.id)
        assert not wrong.infer_response.outputs
        assert not right.error_message
        assert right.infer_response.outputs


def test_an_error_says_what_to_do_as_that_of_a_single_request_does(theirs: Any) -> None:
    pixels = sent("IMAGE", PICTURES[0], "UINT8")
    ((result, error),) = streamed(theirs, {"inputs": [pixels]})
    assert result is None
    with pytest.raises(triton.InferenceServerException) as caught:
        theirs.infer(MODEL, [pixels])
    assert error.message() == f"PIXEL_FORMAT_MISSING: {caught.value.message()}"


def test_every_response_is_final(theirs: Any, stub: Any) -> None:
    picture = [sent(*as_bytes(file(BLACK)))]
    got = streamed(theirs, *({"inputs": picture, "enable_empty_final_response": asked} for asked in (True, False)))
    assert [result.get_response().parameters["triton_final_response"].bool_param for result, _ in got] == [True, True]
    asked_wrongly = request(PNG, triton_enable_empty_final_response=1)
    (response,) = stub.ModelStreamInfer(iter([asked_wrongly]), timeout=_PATIENCE)
    assert response.error_message.startswith("PARAMETER_INVALID: ")
    assert response.infer_response.parameters["triton_final_response"].bool_param


def test_requests_of_a_stream_count_in_the_statistics(theirs: Any) -> None:
    (before,) = theirs.get_inference_statistics(MODEL).model_stats
    picture, none = [sent(*as_bytes(data)) for data in (file(BLACK), b"no picture")]
    streamed(theirs, *({"inputs": [one]} for one in (picture, none, picture, picture, none)))
    (after,) = theirs.get_inference_statistics(MODEL).model_stats
    assert after.inference_count - before.inference_count == 3
    gained = {
        name: getattr(after.inference_stats, name).count - getattr(before.inference_stats, name).count
        for name in ("success", "fail", "queue", "compute_infer")
    }
    assert gained == {"success": 3, "fail": 2, "queue": 3, "compute_infer": 3}
    assert after.inference_stats.success.ns > before.inference_stats.success.ns


def answers_of(server: running.Server, stream: str) -> float:
    return running.sample(server, f'vedette_answers_total{{model="{MODEL}",stream="{stream}",version="1"}}')


def test_a_sequence_is_a_stream_of_its_own_name(theirs: Any, bundled: running.Server) -> None:
    picture = [sent(*as_bytes(file(BLACK)))]
    before = answers_of(bundled, "_unnamed")
    streamed(
        theirs,
        {"inputs": picture, "sequence_id": "gate 7", "sequence_start": True},
        {"inputs": picture, "sequence_id": 42},
        {"inputs": picture},
        {"inputs": picture, "sequence_id": "gate 7", "sequence_end": True},
    )
    assert (answers_of(bundled, "gate 7"), answers_of(bundled, "42")) == (2, 1)
    assert answers_of(bundled, "_unnamed") == before + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": "x" * 129},
        {"sequence_id": "a\nb"},
        {"sequence_id": "gate", "sequence_start": "yes"},
        {"sequence_id": "gate", "sequence_end": 1},
    ],
    ids=str,
)
def test_a_sequence_that_is_none_is_refused(wrong: dict[str, Any], stub: Any) -> None:
    (response,) = stub.ModelStreamInfer(iter([request(PNG, **wrong)]), timeout=_PATIENCE)
    assert response.error_message.startswith(f"PARAMETER_INVALID: The parameter {[*wrong][-1]} is ")


def test_the_refusals_of_a_stream_are_counted_once(bundled: running.Server, stub: Any) -> None:
    labels = (f'model="{MODEL}",outcome="IMAGE_MISSING",version="1"', 'model="",outcome="MODEL_NOT_FOUND",version=""')
    series = [f"vedette_requests_total{{{one}}}" for one in labels]
    before = [running.sample(bundled, one) for one in series]
    unknown = request(PNG)
    unknown.model_name = "roadsings"
    responses = list(stub.ModelStreamInfer(iter([request(), unknown, request(PNG)]), timeout=_PATIENCE))
    assert [bool(one.error_message) for one in responses] == [True, True, False]
    assert [running.sample(bundled, one) for one in series] == [one + 1 for one in before]


def test_a_stream_takes_frames_from_shared_memory_and_leaves_answers_there(theirs: Any, client: Client) -> None:
    frame, room = np.ascontiguousarray(PICTURES[0]), 4096
    image, boxes = triton.InferInput("IMAGE", list(frame.shape), "UINT8"), triton.InferRequestedOutput("BOXES")
    small = triton.InferRequestedOutput("BOXES")
    expected = client.detect(frame, pixel_format="RGB8")
    with shared.region(theirs, frame.nbytes + room) as memory:
        memory.put(frame.tobytes())
        image.set_shared_memory(memory.name, frame.nbytes)
        boxes.set_shared_memory(memory.name, room, offset=frame.nbytes)
        small.set_shared_memory(memory.name, 1, offset=frame.nbytes)
        one = {"inputs": [image], "parameters": {"pixel_format": "RGB8"}}
        (_, error), (result, _) = streamed(theirs, {**one, "outputs": [small]}, {**one, "outputs": [boxes]})
        written = memory.bytes()[frame.nbytes :]
    assert error.message().startswith("REGION_TOO_SMALL: ")
    assert result.get_output("BOXES").shape == [len(expected), 4]
    assert written.startswith(expected.boxes.astype("<f4").tobytes())


def test_a_stream_without_a_request_ends_well(stub: Any) -> None:
    assert not list(stub.ModelStreamInfer(iter([]), timeout=_PATIENCE))

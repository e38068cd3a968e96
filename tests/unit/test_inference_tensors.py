"""Tensors of the Open Inference Protocol and what they mean: outputs of every family, priorities, limits, copies."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from tritonclient.grpc import InferResult
from tritonclient.grpc import service_pb2 as pb
from vedette_server.contract.answer import Mask, Panoptic, Segment
from vedette_server.contract.contract import Output
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.queue import Priority
from vedette_server.rpc import inference, input_tensors, output_tensors, wire

from tests.support.contracts import contract
from tests.support.outcomes import MODEL, outcome

EVERYTHING = dataclasses.replace(
    contract(),
    outputs=tuple(Output),
    box_masks=True,
    keypoint_names=("left", "right"),
    stuff_class_names=("things", "sky"),
)
SEGMENTS = (
    Segment(id=1, is_thing=True, class_id=0, area=60, score=0.75),
    Segment(id=2, is_thing=False, class_id=1, area=40),
)
read = wire.gathering(pb.ModelInferRequest, "raw_input_contents")


def test_every_output_of_every_family_has_its_tensor() -> None:
    given = outcome(0.75, 0.5, model=dataclasses.replace(MODEL, contract=EVERYTHING))
    points = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    rotated = np.arange(10, dtype=np.float32).reshape(2, 5)
    masks = (Mask(counts=b"abc"), Mask(counts=b"def"))
    boxed = np.linspace(0, 1, 2 * 28 * 28, dtype=np.float32).reshape(2, 28, 28)
    found = dataclasses.replace(
        given.answer.detections, keypoints=points, rotated=rotated, masks=masks, box_masks=boxed
    )
    panoptic = Panoptic(b"a map", SEGMENTS)
    answer = dataclasses.replace(given.answer, detections=found, panoptic=panoptic, class_map_png=b"classes")
    response = output_tensors.response(
        dataclasses.replace(given, answer=answer), output_tensors.produced(EVERYTHING), "seven"
    )
    result = InferResult(response)
    assert [one.name for one in response.outputs] == list(output_tensors.TENSORS)
    assert result.as_numpy("MASKS_28").tolist() == boxed.tolist()
    assert result.as_numpy("KEYPOINTS").tolist() == points.tolist()
    assert result.as_numpy("ROTATED_BOXES").tolist() == rotated.tolist()
    assert result.as_numpy("PANOPTIC").tolist() == [b"a map"]
    assert result.as_numpy("SEMANTIC").tolist() == [b"classes"]
    counts = [json.loads(one) for one in result.as_numpy("MASKS_RLE")]
    assert counts == [{"size": [10, 10], "counts": "abc"}, {"size": [10, 10], "counts": "def"}]
    thing, stuff = json.loads(result.as_numpy("SEGMENTS")[0])
    assert thing == {**dataclasses.asdict(SEGMENTS[0]), "class_name": EVERYTHING.class_names[0]}
    assert stuff == {**dataclasses.asdict(SEGMENTS[1]), "class_name": "sky"}
    for output in response.outputs:
        shape = output_tensors.dimensions(output.name, EVERYTHING)
        assert [-1 if wanted == -1 else got for wanted, got in zip(shape, output.shape, strict=True)] == shape


def test_an_empty_answer_has_the_shapes_of_no_detections() -> None:
    empty = outcome(model=dataclasses.replace(MODEL, contract=EVERYTHING))
    result = InferResult(output_tensors.response(empty, output_tensors.produced(EVERYTHING), ""))
    shapes = {name: result.as_numpy(name).shape for name in output_tensors.TENSORS}
    assert shapes["BOXES"] == (0, 4)
    assert shapes["KEYPOINTS"] == (0, 2, 3)
    assert shapes["ROTATED_BOXES"] == (0, 5)
    assert shapes["MASKS_28"] == (0, 28, 28)
    assert {shapes[name] for name in ("SCORES", "CLASSES", "CLASS_NAMES", "MASKS_RLE")} == {(0,)}
    assert result.as_numpy("EMPTY_REASON").tolist() == [b"QUIET_SCENE"]


def test_a_model_computes_only_what_is_sent() -> None:
    assert output_tensors.kinds(["SCORES"], EVERYTHING) == (Output.BOXES,)
    assert output_tensors.kinds(["FINDINGS", "MASKS_RLE"], EVERYTHING) == (Output.BOXES, Output.MASKS)
    assert "MASKS_28" not in output_tensors.produced(dataclasses.replace(EVERYTHING, box_masks=False))
    semantic = dataclasses.replace(EVERYTHING, outputs=(Output.SEMANTIC,))
    assert output_tensors.produced(semantic) == ["SEMANTIC", "EMPTY_REASON", "FINDINGS"]
    assert output_tensors.kinds(["SEMANTIC"], semantic) == (Output.SEMANTIC,)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0, Priority.NORMAL), (1, Priority.HIGH), (2, Priority.NORMAL), (3, Priority.LOW), (2**63, Priority.LOW)],
)
def test_the_lower_triton_s_priority_the_sooner(given: int, expected: Priority) -> None:
    request = pb.ModelInferRequest()
    request.parameters["priority"].uint64_param = given
    assert inference._priority(input_tensors.parameters(request.parameters)) is expected
    assert inference._priority({}) is Priority.NORMAL


@pytest.mark.parametrize(
    ("remaining", "timeout", "expected"),
    [(None, 0, None), (2.0, 0, 2.0), (None, 500_000, 0.5), (2.0, 500_000, 0.5), (0.25, 500_000, 0.25)],
)
def test_a_timeout_only_shortens_the_deadline(remaining: float | None, timeout: int, expected: float | None) -> None:
    assert inference._seconds(remaining, {"timeout": timeout}) == expected


def test_raw_contents_are_read_in_order_and_large_ones_without_a_copy() -> None:
    contents = [b"x" * 100_000, b"", b"y" * 10]
    whole = pb.ModelInferRequest(id="seven", raw_input_contents=contents).SerializeToString()
    received = read(whole)
    assert [bytes(one) for one in received.contents] == contents
    assert all(isinstance(one, memoryview) and one.obj is whole for one in received.contents)
    assert received.message == pb.ModelInferRequest(id="seven")
    small = read(pb.ModelInferRequest(raw_input_contents=contents[1:]).SerializeToString())
    assert list(small.contents) == contents[1:]


@pytest.mark.parametrize(
    "large",
    [
        pb.ModelInferRequest(raw_input_contents=[b""] * 20_000),
        pb.ModelInferRequest(id="x" * 300_000),
    ],
    ids=["fields", "bytes"],
)
def test_more_than_the_limits_beside_the_image_is_refused(large: pb.ModelInferRequest) -> None:
    with pytest.raises(Refused) as caught:
        read(large.SerializeToString())
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE


def test_any_bytes_are_read_or_refused() -> None:
    """Cut and flipped at every place, a request raises nothing but what a deserialiser turns into a refusal."""
    request = pb.ModelInferRequest(model_name="test", raw_input_contents=[b"\x02\x00\x00\x00ab"])
    request.inputs.add(name="ENCODED", datatype="BYTES", shape=[1])
    request.parameters["pixel_format"].string_param = "RGB8"
    whole = request.SerializeToString()
    outcomes: set[Reason | None] = set()
    for at, value in itertools.product(range(len(whole)), (0, 1, 0x7F, 0xFF)):
        for changed in (whole[:at], whole[:at] + bytes([value]) + whole[at + 1 :]):
            try:
                received = wire.sent(read)(changed).read()
                tensors = input_tensors.read(received.message, received.contents)
                input_tensors.image(tensors, input_tensors.parameters(received.message.parameters))
            except Refused as refusal:
                outcomes.add(refusal.reason)
            else:
                outcomes.add(None)
    assert outcomes >= {None, Reason.REQUEST_UNREADABLE, Reason.INPUT_TENSOR_INVALID, Reason.IMAGE_MISSING}

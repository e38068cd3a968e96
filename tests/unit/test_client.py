"""The client before and after the network."""

import base64
import dataclasses
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import vedette_client
from PIL import Image
from pycocotools import mask as rle
from vedette.v1 import answer_pb2, image_pb2, model_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import Client, LocalError, ServerError, images, results
from vedette_client.channel import SERVICE
from vedette_client.images import Beside

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_the_public_names_are_these() -> None:
    assert vedette_client.__all__ == sorted(vedette_client.__all__)
    assert all(hasattr(vedette_client, name) for name in vedette_client.__all__)


def test_an_array_is_sent_with_its_format_alone() -> None:
    message, data = images.message(PIXELS[:, ::-1], Beside("BGR8"))
    sent = message.raw
    assert (sent.height, sent.width, sent.pixel_format) == (4, 5, image_pb2.PIXEL_FORMAT_BGR8)
    assert bytes(data) == PIXELS[:, ::-1].tobytes()


def test_a_pil_image_says_itself_what_it_is() -> None:
    message, data = images.message(Image.fromarray(PIXELS), Beside())
    assert (message.raw.pixel_format, bytes(data)) == (image_pb2.PIXEL_FORMAT_RGB8, PIXELS.tobytes())


def test_a_path_and_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"file")
    for given in (tmp_path / "x", str(tmp_path / "x"), b"file"):
        message, data = images.message(given, Beside())
        assert (message.WhichOneof("content"), data) == ("encoded", b"file")


@pytest.mark.parametrize(("image", "pixel_format", "said"), [
    (PIXELS, None, "pixel_format=None"),
    (PIXELS, "bgr", "pixel_format='bgr'"),
    (PIXELS.astype(np.float32) / 255, "RGB8", "float32"),
    (PIXELS[:, :, 0], "RGB8", r"\(4, 5\)"),
    (b"file", "RGB8", "own declaration"),
    ("no/such/file", None, "No such file"),
    (7, None, "cannot send a int"),
])  # fmt: skip
def test_what_cannot_be_sent_is_refused_before_it_is(image: Any, pixel_format: Any, said: str) -> None:
    with pytest.raises(LocalError, match=said):
        images.message(image, Beside(pixel_format))


@pytest.fixture
def result() -> results.Result:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:5] = True
    counts = rle.encode(np.asfortranarray(mask, np.uint8))["counts"]
    detection = answer_pb2.Detection(
        box=answer_pb2.Box(x0=2, y0=1, x1=5, y1=3),
        score=0.75,
        class_id=1,
        class_name="dog",
        mask=answer_pb2.Mask(height=4, width=5, counts=counts),
        keypoints=[answer_pb2.Keypoint(x=3, y=2, score=0.5)],
    )
    size = image_pb2.ImageSize(height=4, width=5)
    return results.result(
        pb.DetectResponse(answer=answer_pb2.Answer(detections=[detection], image_size=size, threshold=0.3))
    )


def test_a_result_is_frozen_and_a_sequence(result: results.Result) -> None:
    assert (len(result), result[0].class_name, [found.score for found in result]) == (1, "dog", [0.75])
    assert result.threshold == 0.3
    assert result.empty is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.height = 1  # type: ignore[misc]


def test_a_result_becomes_json_whole() -> None:
    ids = np.zeros((4, 5), np.uint16)
    ids[:2], ids[2:, 0] = 300, 2
    segments = [
        answer_pb2.PanopticSegment(id=300, is_thing=True, class_id=1, class_name="dog", score=0.75, area=10),
        answer_pb2.PanopticSegment(id=2, class_id=3, class_name="grass", area=2),
    ]
    answer = answer_pb2.Answer(
        panoptic=answer_pb2.Panoptic(segment_map_png=png(ids), segments=segments),
        semantic=answer_pb2.Semantic(class_map_png=png((ids // 100).astype(np.uint8))),
        image_size=image_pb2.ImageSize(height=4, width=5),
        model_name="m",
        model_version="1",
    )
    given = results.result(pb.DetectResponse(answer=answer))
    record = json.loads(given.to_json())
    assert (record["width"], record["height"], record["model"], record["version"]) == (5, 4, "m", "1")
    assert record["panoptic"]["segments"] == [
        {"id": 300, "class": "dog", "class_id": 1, "is_thing": True, "score": 0.75, "area": 10},
        {"id": 2, "class": "grass", "class_id": 3, "is_thing": False, "score": None, "area": 2},
    ]
    assert record["semantic"]["classes"] == [{"class_id": 0, "area": 10}, {"class_id": 3, "area": 10}]
    for name, kind, wanted in (("panoptic", "segment", ids), ("semantic", "class", ids // 100)):
        with Image.open(io.BytesIO(base64.b64decode(record[name][f"{kind}_map_png"]))) as shown:
            assert np.array_equal(np.asarray(shown), wanted)
    assert given.panoptic is not None
    assert given.panoptic.segment_map.max() == 300


def png(values: np.ndarray[Any, Any]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(values).save(written, "PNG")
    return written.getvalue()


def test_what_a_model_does_not_produce_is_not_in_its_json(result: results.Result) -> None:
    record = json.loads(result.to_json())
    assert not {"panoptic", "semantic"} & set(record)
    assert record["detections"][0]["mask"]["size"] == [4, 5]


def test_a_mask_of_nothing_is_of_its_size() -> None:
    mask = results.Mask(height=4, width=5, polygons=())
    assert mask.record()["size"] == [4, 5]
    assert mask.decode().shape == (4, 5)
    assert not mask.decode().any()


def test_what_a_newer_server_names_is_read_by_its_number() -> None:
    finding = answer_pb2.Finding(code=999, confidence=99)  # type: ignore[arg-type]
    answer = answer_pb2.Answer(findings=[finding])
    assert results.result(pb.DetectResponse(answer=answer)).findings[0].code == "999"
    newer: Any = 99
    terms = model_pb2.Contract(outputs=[newer], model_pixel_format=newer, accepted_channel_orders=[newer])
    model = model_pb2.Model(state=newer, contract=terms)
    read = results.model(model)
    assert (read.state, read.contract.outputs, read.contract.channel_order) == ("99", ("99",), "99")
    assert read.contract.tensor_orders == ("99",)


def test_masks_are_decoded_when_asked(result: results.Result) -> None:
    assert result[0].mask is not None
    assert result[0].mask.decode().sum() == 6


def test_a_result_becomes_coco_records(result: results.Result) -> None:
    (record,) = result.to_coco(image_id=9)
    assert (record["image_id"], record["category_id"], record["bbox"]) == (9, 1, [2, 1, 3, 2])
    assert rle.decode(record["segmentation"]).sum() == 6
    assert record["keypoints"] == [2.5, 1.5, 0.5], "COCO counts in pixels, whose middle is half a pixel further"


def test_a_result_becomes_supervision_detections(result: results.Result) -> None:
    found = result.to_supervision()
    assert found.xyxy.tolist() == [[2, 1, 5, 3]]
    assert found.mask is not None
    assert found.mask.sum() == 6
    assert list(found.data["class_name"]) == ["dog"]


class Reluctant:
    """Refuses what it is asked twice, each time with when to try again, and then answers."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        self.times: list[float] = []

    def detect(self, _request: pb.DetectRequest, context: grpc.ServicerContext) -> pb.DetectResponse:
        self.times.append(time.monotonic())
        if len(self.times) < 3:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "300"),))
            context.abort(self.code, "not now")
        return pb.DetectResponse(request_id="7")


@pytest.mark.parametrize(("code", "attempts"), [
    (grpc.StatusCode.UNAVAILABLE, 3),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, 3),
    (grpc.StatusCode.ABORTED, 1),
    (grpc.StatusCode.INTERNAL, 1),
])  # fmt: skip
def test_what_is_safe_to_try_again_is_when_the_server_says(code: grpc.StatusCode, attempts: int) -> None:
    service = Reluctant(code)
    handler = grpc.unary_unary_rpc_method_handler(
        service.detect, pb.DetectRequest.FromString, pb.DetectResponse.SerializeToString
    )
    options = (("grpc.max_receive_message_length", -1),)
    server = grpc.server(ThreadPoolExecutor(2), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Detect": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        if attempts == 1:
            with pytest.raises(ServerError):
                client.detect(b"file")
        else:
            assert client.detect(bytes(7_000_000)).request_id == "7", "what is large is tried again too"
            assert service.times[-1] - service.times[0] >= 0.6, "not before the server said"
    assert len(service.times) == attempts
    server.stop(0)

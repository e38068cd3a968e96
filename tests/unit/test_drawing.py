"""A result in its picture, and as JSON."""

import base64
import io
import json

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from vedette.v1 import answer_pb2, image_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import LocalError, drawing, records, results

HEIGHT, WIDTH = 40, 60


def png(values: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def answer(**fields: object) -> results.Result:
    size = image_pb2.ImageSize(height=HEIGHT, width=WIDTH)
    return results.result(pb.DetectResponse(answer=answer_pb2.Answer(image_size=size, **fields)))  # type: ignore[arg-type]


def person(*points: tuple[float, float, float], **fields: object) -> answer_pb2.Detection:
    given = [answer_pb2.Keypoint(x=x, y=y, score=score) for x, y, score in points]
    box = answer_pb2.Box(x0=10, y0=10, x1=30, y1=30)
    return answer_pb2.Detection(box=box, score=0.9, class_name="person", keypoints=given, **fields)  # type: ignore[arg-type]


def drawn(result: results.Result, picture: Image.Image | None = None) -> NDArray[np.uint8]:
    return np.asarray(drawing.annotate(picture or Image.new("RGB", (WIDTH, HEIGHT)), result))


def test_a_box_is_drawn_where_it_is() -> None:
    blank = Image.new("RGB", (WIDTH, HEIGHT))
    shown = drawn(answer(detections=[person()]), blank)
    assert shown[20, 10].any()
    assert not shown[20, 20].any()
    assert not np.asarray(blank).any(), "the picture itself stays as it is"


def test_keypoints_are_drawn_if_they_are_seen() -> None:
    shown = drawn(answer(detections=[person((45, 20, 0.9), (52, 35, 0.01))]))
    assert shown[20, 45].any()
    assert not shown[35, 52].any()


def test_a_person_is_joined_to_a_figure() -> None:
    points = [(0.0, 0.0, 0.0)] * 17
    points[5], points[6] = (40.0, 20.0, 0.9), (54.0, 20.0, 0.9)  # the shoulders
    shown = drawn(answer(detections=[person(*points)]))
    assert shown[20, 47].any(), "between them"


def test_segments_are_laid_over_the_picture() -> None:
    numbers = np.zeros((HEIGHT, WIDTH), np.uint16)
    numbers[:, 30:] = 40_000
    shown = drawn(answer(panoptic=answer_pb2.Panoptic(segment_map_png=png(numbers))))
    assert (shown[:, 30] == 255).all(), "the border"
    assert len({tuple(shown[20, x]) for x in (5, 10, 40, 50)}) == 2


def test_classes_are_laid_over_the_picture_and_supervision_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    numbers[20:] = 7
    result = answer(semantic=answer_pb2.Semantic(class_map_png=png(numbers)))
    shown = drawn(result)
    assert tuple(shown[5, 5]) != tuple(shown[35, 5])
    with pytest.raises(LocalError, match="the picture 20 x 20"):
        drawn(result, Image.new("RGB", (20, 20)))


def test_samples_of_sixteen_bits_are_not_white() -> None:
    deep = Image.fromarray(np.full((HEIGHT, WIDTH), 0x4000, np.uint16))
    assert tuple(drawn(answer(), deep)[5, 5]) == (64, 64, 64)


def test_what_cannot_be_drawn_into_is_said() -> None:
    for data in (b"", b"no picture", png(np.zeros((4, 4), np.uint8))[:40]):
        with pytest.raises(LocalError, match="cannot draw into it"):
            drawing.opened(data)


def test_json_has_all_of_an_answer() -> None:
    segment_map, class_map = png(np.ones((HEIGHT, WIDTH), np.uint16)), png(np.zeros((HEIGHT, WIDTH), np.uint8))
    segment = answer_pb2.PanopticSegment(id=1, is_thing=False, class_id=2, class_name="road", area=HEIGHT * WIDTH)
    turned = answer_pb2.RotatedBox(center_x=20, center_y=20, width=10, height=5, angle=30)
    result = answer(
        detections=[person((45, 20, 0.5), rotated_box=turned)],
        panoptic=answer_pb2.Panoptic(segment_map_png=segment_map, segments=[segment]),
        semantic=answer_pb2.Semantic(class_map_png=class_map),
        findings=[answer_pb2.Finding(evidence="seen", remedy="to do")],
    )
    told = json.loads(json.dumps(records.answer(result)))
    assert (told["width"], told["height"]) == (WIDTH, HEIGHT)
    (detection,) = told["detections"]
    assert detection["keypoints"] == [[45, 20, 0.5]]
    assert detection["rotated_box"] == [20, 20, 10, 5, 30]
    assert told["findings"][0]["evidence"] == "seen"
    assert base64.b64decode(told["panoptic"]["segment_map_png"]) == segment_map
    (shown,) = told["panoptic"]["segments"]
    assert (shown["id"], shown["class"], shown["area"]) == (1, "road", HEIGHT * WIDTH)
    assert base64.b64decode(told["semantic"]["class_map_png"]) == class_map

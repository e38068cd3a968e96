"""An exported model in NVIDIA's real Triton: its answers are this server's, and it refuses what it refuses."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import deserialize_bytes_tensor
from vedette_client import Client, Result
from vedette_server.baseline.scrape import Page
from vedette_server.contract.contract import Names
from vedette_server.demo import scenes
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running, tritons

pytestmark = pytest.mark.usefixtures("_installed")

STOP = json.loads((BUNDLED_REPOSITORY / "roadsigns/1/manifest.json").read_text())["class_names"].index("stop")
OLD, NEW = "roadsigns_numpy1", "roadsigns"  # by the NumPy that each runs with
PICTURES = 100  # of which a third shows no sign
SETTINGS = "threads = 1\ndiagnose_share = 0\ngolden_seconds = 0.5\n"
COUNTED = (
    *("vedette_answers_total", "vedette_empty_answers_total", "vedette_findings_total", "vedette_detections_total"),
    *("vedette_detection_score_bucket", "vedette_best_score_bucket", "vedette_detections_per_answer_bucket"),
    *("vedette_requests_total", "vedette_contract_violations_total", "vedette_input_brightness_levels_sum"),
)
LABELS = ("version", "stream", "outcome", "reason", "finding", "class", "le")
Samples = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def _installed() -> None:
    tritons.require()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, _installed: None) -> Path:
    """Triton's repository with the bundled model for two environments, and models that must not serve."""
    folder = tmp_path_factory.mktemp("triton")
    new = tritons.environment(folder / "new")
    old = tritons.environment(folder / "old", tritons.INSTALLED)
    ours = folder / "models"
    for name in (NEW, OLD, "changed", "garbled"):
        shutil.copytree(BUNDLED_REPOSITORY / "roadsigns", ours / name)
    _change_golden(ours / "changed" / "1")
    for name, environment in {NEW: new, OLD: old, "changed": new, "garbled": old}.items():
        tritons.export(name, ours, folder / "out", environment, SETTINGS)
    config = folder / "out" / "garbled" / "config.pbtxt"
    config.write_text(config.read_text().replace(str(old), str(new)))
    return folder / "out"


def _change_golden(folder: Path) -> None:
    """Make a version expect something else of its golden images, in all order."""
    expected = folder / "golden" / "expected.json"
    expected.write_text(expected.read_text().replace('"score": 0.9', '"score": 0.8'))
    names = json.loads((folder / "manifest.json").read_text())["class_names"]
    (folder / "manifest.json").unlink()
    repository.seal(folder, Names(tuple(names)))


@pytest.fixture(scope="module")
def theirs(exported: Path) -> Iterator[tritons.Triton]:
    flags = ("--model-control-mode=explicit", f"--load-model={NEW}", f"--load-model={OLD}")
    with tritons.server(exported, *flags) as running_triton:
        yield running_triton


@pytest.fixture
def caller(theirs: tritons.Triton) -> Iterator[Any]:
    with triton.InferenceServerClient(theirs.address) as client:
        yield client


def drawn(number: int) -> NDArray[np.uint8]:
    return scenes.draw(scenes.describe(3_100_000 + number, quiet=number % 3 == 0)).pixels


def file(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def sent(name: str, array: NDArray[Any], datatype: str) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def encoded(model: str, data: bytes) -> Any:
    if model == OLD:
        return sent("ENCODED", np.array([data], np.object_), "BYTES")
    return sent("ENCODED", np.frombuffer(data, np.uint8), "UINT8")


def texts(result: Any, name: str) -> list[str]:
    """An output of texts, in either form."""
    array = result.as_numpy(name)
    return [one.decode() for one in (array if array.dtype == np.object_ else deserialize_bytes_tensor(array))]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Server]:
    """A server that looks into nothing by the by: what it finds depends on nothing but the picture."""
    config = tmp_path_factory.mktemp("ours") / "vedette.toml"
    config.write_text("diagnose_share = 0\n")
    with running.server("--threads", "1", "--config", str(config)) as server:
        yield server


@pytest.fixture
def client(ours: running.Server) -> Iterator[Client]:
    with Client(ours.address) as client:
        yield client


def assert_same(result: Any, expected: Result) -> None:
    """Compare an answer of the exported model to one of this server."""
    assert result.as_numpy("BOXES").shape == (len(expected), 4)
    assert result.as_numpy("BOXES").tolist() == expected.boxes.tolist()
    assert result.as_numpy("SCORES").tolist() == pytest.approx(expected.scores.tolist(), abs=1e-7)
    assert result.as_numpy("CLASSES").tolist() == expected.class_ids.tolist()
    assert texts(result, "CLASS_NAMES") == [one.class_name for one in expected]
    masks = [one.mask.coco() for one in expected if one.mask]
    assert [json.loads(one) for one in texts(result, "MASKS_RLE")] == [
        {**one, "counts": one["counts"].decode() if isinstance(one["counts"], bytes) else one["counts"]}
        for one in masks
    ]
    findings = [
        {"code": one.code, "confidence": one.confidence, "evidence": one.evidence, "remedy": one.remedy}
        for one in expected.findings
    ]
    assert json.loads(texts(result, "FINDINGS")[0]) == findings
    assert texts(result, "EMPTY_REASON") == [expected.empty.reason if expected.empty else ""]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", [NEW, OLD])
def test_pictures_have_the_answers_of_this_server_and_are_counted_alike(
    model: str, caller: Any, client: Client, theirs: tritons.Triton, ours: running.Server
) -> None:
    before = counted(theirs.page(), model), counted(running.http(ours, "/metrics")[1], "roadsigns")
    empty = 0
    for number in range(PICTURES):
        data = file(drawn(number))
        expected = client.detect(data)
        assert_same(caller.infer(model, [encoded(model, data)]), expected)
        empty += expected.empty is not None
    assert empty > PICTURES // 5
    running.wait_for(lambda: answers(theirs, model) - total(before[0]) == PICTURES, "the last answer on the page")
    after = counted(theirs.page(), model), counted(running.http(ours, "/metrics")[1], "roadsigns")
    for name in COUNTED:
        gained, expected_gain = (
            {key: value - was[name].get(key, 0.0) for key, value in now[name].items()}
            for was, now in zip(before, after, strict=True)
        )
        assert gained == pytest.approx(expected_gain), name


def counted(page: str, model: str) -> dict[str, Samples]:
    """The samples of a page that tell what a model answered, as the capture of a baseline reads them."""
    read = Page.parse(page)
    return {name: read.by(name, *LABELS, model=model) for name in COUNTED}


def total(samples: dict[str, Samples]) -> float:
    return sum(samples["vedette_answers_total"].values())


def answers(theirs: tritons.Triton, model: str) -> float:
    return total(counted(theirs.page(), model))


@pytest.mark.parametrize("model", [NEW, OLD])
def test_arrays_thresholds_and_classes_are_taken_alike(model: str, caller: Any, client: Client) -> None:
    pixels = drawn(1)
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    threshold = sent("SCORE_THRESHOLD", np.array([0.9], np.float32), "FP32")
    result = caller.infer(model, [sent("IMAGE", bgr, "UINT8"), threshold], parameters={"pixel_format": "BGR8"})
    assert_same(result, client.detect(bgr, pixel_format="BGR8", threshold=0.9))
    of_old = sent("CLASSES_FILTER", np.array([b"stop"], np.object_), "BYTES")
    wanted = of_old if model == OLD else sent("CLASSES_FILTER", np.array([STOP], np.int64), "INT64")
    result = caller.infer(
        model, [encoded(model, file(pixels)), wanted], outputs=[triton.InferRequestedOutput("SCORES")]
    )
    assert [one.name for one in result.get_response().outputs] == ["SCORES"]
    assert result.as_numpy("SCORES").tolist() == pytest.approx(
        client.detect(file(pixels), classes=["stop"]).scores.tolist()
    )


REFUSED: dict[str, tuple[Callable[[str], list[Any]], dict[str, Any]]] = {
    "PIXEL_FORMAT_MISSING": (lambda _: [sent("IMAGE", drawn(1), "UINT8")], {}),
    "IMAGE_UNREADABLE": (lambda model: [encoded(model, b"no picture")], {}),
    "IMAGE_MISSING": (lambda _: [sent("SCORE_THRESHOLD", np.array([0.5], np.float32), "FP32")], {}),
    "THRESHOLD_OUT_OF_RANGE": (
        lambda model: [
            encoded(model, file(drawn(1))),
            sent("SCORE_THRESHOLD", np.array([1.5], np.float32), "FP32"),
        ],
        {},
    ),
    "INPUT_TENSOR_INVALID": (
        lambda _: [sent("IMAGE", drawn(1), "UINT8")],
        {"pixel_format": "GRAY8"},
    ),
    "PARAMETER_INVALID": (lambda model: [encoded(model, file(drawn(1)))], {"drop_alpha": "yes"}),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("model", [NEW, OLD])
def test_what_this_server_refuses_is_refused_with_its_reason(
    model: str, reason: str, caller: Any, ours: running.Server
) -> None:
    inputs, parameters = REFUSED[reason]
    with pytest.raises(triton.InferenceServerException) as refused:
        caller.infer(model, inputs(model), parameters=parameters)
    with triton.InferenceServerClient(ours.address) as other, pytest.raises(triton.InferenceServerException) as told:
        other.infer("roadsigns", inputs(model), parameters=parameters)
    assert refused.value.message() == f"{reason}: {told.value.message()}"
    assert refused.value.status() == told.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_the_images_of_a_sequence_are_frames_of_a_stream(caller: Any, theirs: tritons.Triton) -> None:
    for _ in range(2):
        caller.infer(NEW, [encoded(NEW, file(drawn(1)))], sequence_id=7)
    series = f'vedette_answers_total{{model="{NEW}",stream="7",version="1"}} 2'
    running.wait_for(lambda: series in theirs.page(), f"{series} on the page")


@pytest.mark.parametrize("model", [NEW, OLD])
def test_golden_images_are_answered_again_and_again(model: str, theirs: tritons.Triton) -> None:
    def passed() -> float:
        samples = Page.parse(theirs.page()).by("vedette_golden_checks_total", "result", model=model)
        return samples["passed",]

    first = passed()
    running.wait_for(lambda: passed() >= first + 2, "two more rounds")


def test_cancelled_requests_are_not_inferred(caller: Any, theirs: tritons.Triton) -> None:
    data = file(drawn(1))
    before = answers(theirs, NEW)
    calls = [caller.async_infer(NEW, [encoded(NEW, data)], lambda **_: None) for _ in range(20)]
    for call in calls:
        call.cancel()
    caller.infer(NEW, [encoded(NEW, data)], client_timeout=running.PATIENCE)  # comes after all of them
    running.wait_for(lambda: answers(theirs, NEW) > before, "the last one")
    assert answers(theirs, NEW) - before <= 5


@pytest.mark.parametrize(("model", "why"), [
    ("changed", "GOLDEN_CHANGED"),
    ("garbled", "this Python backend garbles the arrays of NumPy 2"),
])  # fmt: skip
def test_a_model_that_would_answer_otherwise_does_not_load(model: str, why: str, caller: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match=why):
        caller.load_model(model)
    assert not caller.is_model_ready(model)

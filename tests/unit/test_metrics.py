"""The metrics page: what is counted, under which labels, and what goes when a version or a stream has gone."""

import dataclasses
import subprocess

import pytest
from vedette_server.contract.refusal import VIOLATIONS, Reason
from vedette_server.explain.findings import Code
from vedette_server.monitor import answers, streams
from vedette_server.monitor.metrics import Metrics
from vedette_server.rpc.errors import TABLE

from tests.support.clocks import SetClock
from tests.support.outcomes import MODEL, outcome, page
from tests.support.watching import needs


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.loaded(MODEL)
    return metrics


def test_an_answer_is_counted_once_under_its_source(metrics: Metrics) -> None:
    metrics.answered(outcome(0.93, 0.6, source="gate", age_seconds=0.3))
    metrics.answered(outcome(source="gate"))
    metrics.answered(outcome())
    seen = page(metrics)
    assert seen.by("vedette_answers_total", "stream") == {("",): 1, ("gate",): 2}
    assert seen.by("vedette_empty_answers_total", "stream", reason="QUIET_SCENE") == {("",): 1, ("gate",): 1}
    assert seen.by("vedette_detections_total", "class") == {("a",): 2, ("b",): 0}
    assert seen.value("vedette_detection_score_bucket", le="0.9", **{"class": "a"}) == 1
    assert seen.value("vedette_best_score_bucket", le="0.2", stream="gate") == 1
    assert seen.value("vedette_best_score_bucket", le="0.95", stream="gate") == 2
    assert seen.value("vedette_detections_per_answer_bucket", le="0.0") == 2
    assert seen.value("vedette_frame_age_seconds_count") == 1
    assert seen.value("vedette_stage_duration_seconds_sum", stage="queue") == pytest.approx(0.75)
    assert seen.by("vedette_candidates_total", "fate")["overlapped",] == 9
    assert seen.by("vedette_candidates_total", "fate")["detected",] == 2
    assert seen.value("vedette_nonfinite_rows_total", stage="box_head") == 12


def test_pixels_are_measured(metrics: Metrics) -> None:
    metrics.answered(outcome(source="gate"))
    seen = page(metrics)
    means = {
        name: seen.value(f"vedette_input_{name}_sum", stream="gate")
        for name in ("brightness_levels", "contrast_levels", "sharpness_decibels", "redness_ratio", "upper_ratio")
    }
    assert means == pytest.approx(
        {
            "brightness_levels": 100,
            "contrast_levels": 20,
            "sharpness_decibels": 20,
            "redness_ratio": 111 / 202,
            "upper_ratio": 0.55,
        }
    )


def test_what_contradicts_the_contract_is_counted_apart(metrics: Metrics) -> None:
    metrics.refused("test", "1", Reason.VALUES_IN_UNIT_RANGE)
    metrics.refused("test", "1", Reason.OVERLOADED)
    seen = page(metrics)
    assert seen.value("vedette_requests_total", outcome="OVERLOADED") == 1
    violated = seen.by("vedette_contract_violations_total", "reason")
    assert {reason for (reason,), count in violated.items() if count} == {"VALUES_IN_UNIT_RANGE"}
    assert all(TABLE[reason].field for reason in VIOLATIONS if reason is not Reason.CONTRACT_CHANGED)


def test_known_series_start_at_zero(metrics: Metrics) -> None:
    seen = page(metrics)
    assert {reason for (reason,) in seen.by("vedette_empty_answers_total", "reason")} == set(Code)
    assert {reason for (reason,) in seen.by("vedette_contract_violations_total", "reason")} == set(VIOLATIONS)
    assert seen.by("vedette_golden_checks_total", "result") == {("passed",): 0, ("failed",): 0}
    assert {outcome for (outcome,) in seen.by("vedette_requests_total", "outcome")} == {"OK", *Reason}


def test_the_request_id_is_an_exemplar_where_it_fits(metrics: Metrics) -> None:
    metrics.answered(outcome(request_id="my-request"))
    metrics.answered(outcome(request_id="x" * 128))
    text = metrics.page("application/openmetrics-text; version=1.0.0")[0].decode()
    assert '# {request_id="my-request"} 0.5' in text
    assert "xxx" not in text
    assert text.endswith("# EOF\n")


def test_streams_beyond_the_cap_are_folded_and_counted(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST", 3)
    for number in range(5):
        metrics.answered(outcome(source=f"camera {number}"))
    metrics.answered(outcome(source="camera 0"))
    metrics.answered(outcome())
    seen = page(metrics)
    counted = {"": 1, "camera 0": 2, "camera 1": 1, "camera 2": 1, "_other": 2}
    assert seen.by("vedette_answers_total", "stream") == {(name,): count for name, count in counted.items()}
    assert seen.value("vedette_labels_folded_total", label="stream") == 2


def test_streams_without_a_name_share_one(metrics: Metrics) -> None:
    for number in range(5):
        metrics.answered(outcome(source=f"#{number}"))
    assert page(metrics).value("vedette_answers_total", stream="_unnamed") == 5


def test_classes_beyond_the_cap_are_folded_and_counted() -> None:
    names = [f"class {number}" for number in range(answers.MOST_CLASSES + 5)]
    many = dataclasses.replace(MODEL, contract=dataclasses.replace(MODEL.contract, class_names=tuple(names)))
    metrics = Metrics()
    metrics.loaded(many)
    given = outcome(0.9, 0.8, model=many)
    given.answer.detections.class_ids[:] = 0, len(names) - 1
    metrics.answered(given)
    seen = page(metrics)
    assert len(seen.by("vedette_detections_total", "class")) == answers.MOST_CLASSES + 1
    assert seen.value("vedette_detections_total", **{"class": "_other"}) == 1
    assert seen.value("vedette_labels_folded_total", label="class") == 1


def test_an_idle_stream_gives_its_place_to_another() -> None:
    clock = SetClock()
    metrics = Metrics(clock=clock)
    metrics.loaded(MODEL)
    metrics.answered(outcome(source="gone"))
    metrics.suspected(MODEL, "gone", "CHANNELS_SWAPPED")
    metrics.dropped("test", "1", "gone", "EXPIRED")
    clock.seconds = streams.IDLE_SECONDS
    metrics.tidy()
    assert 'stream="gone"' in metrics.page("")[0].decode(), "it has not been idle for longer"
    clock.seconds += 1.0
    metrics.tidy()
    assert 'stream="gone"' not in metrics.page("")[0].decode()
    metrics.answered(outcome(source="gone"))
    assert page(metrics).value("vedette_answers_total", stream="gone") == 1, "it counts from zero again"


def test_nothing_is_left_of_a_version_that_has_gone(metrics: Metrics) -> None:
    before = metrics.page("")[0]
    other = dataclasses.replace(MODEL, version=2)
    metrics.loaded(other)
    for source in ("", "gate"):
        metrics.answered(outcome(0.9, source=source, model=other))
        metrics.suspected(other, source, "CHANNELS_SWAPPED")
        metrics.dropped("test", "2", source, "EXPIRED")
    metrics.golden(other, Code.GOLDEN_FAILING)
    metrics.disagrees(other, MODEL, 0.5)
    metrics.state(other, workers=1, wanted=1, queued=0, running=0, restarts=3)
    metrics.unloaded(other)
    metrics.answered(outcome(0.9, model=other))  # the last one's way was longer
    metrics.dropped("test", "2", "gate", "EXPIRED")
    assert metrics.page("")[0] == before


def test_a_cause_is_shown_as_long_as_any_source_of_the_label_has_it(metrics: Metrics) -> None:
    for source in ("#1", "#2"):
        metrics.suspected(MODEL, source, "CHANNELS_SWAPPED")
    labels = {"stream": "_unnamed", "cause": "CHANNELS_SWAPPED"}
    metrics.suspected(MODEL, "#1", None)
    assert page(metrics).value("vedette_suspected_cause", **labels) == 1
    metrics.suspected(MODEL, "#2", "IMAGE_ROTATED")
    assert page(metrics).by("vedette_suspected_cause", "cause") == {("IMAGE_ROTATED",): 1}


def test_a_cause_goes_under_the_label_that_it_came_with(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST", 1)
    metrics.answered(outcome(source="first"))
    metrics.suspected(MODEL, "second", "CHANNELS_SWAPPED")
    assert page(metrics).by("vedette_suspected_cause", "stream") == {("_other",): 1}
    monkeypatch.setattr(streams, "MOST", 2)
    metrics.suspected(MODEL, "second", None)
    assert page(metrics).by("vedette_suspected_cause", "stream") == {}


def test_streams_of_no_model_take_no_label(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST", 1)
    metrics.dropped("", "", "invented", "SUPERSEDED")
    metrics.answered(outcome(source="camera"))
    assert page(metrics).value("vedette_answers_total", stream="camera") == 1
    assert page(metrics).value("vedette_frames_dropped_total", stream="", reason="SUPERSEDED") == 1


def test_a_camera_whose_clock_is_wrong_ages_no_frames(metrics: Metrics) -> None:
    for age in (0.5, 1.8e9):
        metrics.answered(outcome(source="camera", age_seconds=age))
    assert page(metrics).value("vedette_frame_age_seconds_sum") == 0.5


def test_golden_images_fail_for_one_cause(metrics: Metrics) -> None:
    for cause in (Code.GOLDEN_FAILING, Code.NON_FINITE_VALUES):
        metrics.golden(MODEL, cause)
    failing = {(str(cause),): float(cause is Code.NON_FINITE_VALUES) for cause in (Code.GOLDEN_FAILING, cause)}
    assert page(metrics).by("vedette_golden_failing", "cause") == failing
    metrics.golden(MODEL, None)
    assert page(metrics).value("vedette_golden_failing") == 0


def test_tritons_names_are_there_where_asked(metrics: Metrics) -> None:
    assert "nv_inference" not in metrics.page("")[0].decode()
    asked = Metrics(triton=True)
    asked.loaded(MODEL)
    asked.answered(outcome(0.9))
    asked.refused("test", "1", Reason.IMAGE_MISSING)
    asked.batch(MODEL, 1)
    asked.state(MODEL, workers=1, wanted=1, queued=3, running=0, restarts=0)
    seen = page(asked)
    of = {"model": "test", "version": "1"}
    assert seen.value("nv_inference_request_success", **of) == 1
    assert seen.value("nv_inference_request_failure", **of) == 1
    assert seen.value("nv_inference_count", **of) == 1
    assert seen.value("nv_inference_exec_count", **of) == 1
    assert seen.value("nv_inference_request_duration_us", **of) == pytest.approx(500_000)
    assert seen.value("nv_inference_queue_duration_us", **of) == pytest.approx(250_000)
    assert seen.value("nv_inference_compute_input_duration_us", **of) == pytest.approx(200_000)
    assert seen.value("nv_inference_compute_infer_duration_us", **of) == pytest.approx(100_000)
    assert seen.value("nv_inference_compute_output_duration_us", **of) == pytest.approx(100_000)
    assert seen.value("nv_inference_pending_request_count", **of) == 3


@needs("promtool")
@pytest.mark.parametrize("triton", [False, True])
def test_promtool_finds_nothing_wrong_with_the_page(triton: bool) -> None:  # noqa: FBT001  a parameter of the test
    metrics = Metrics(triton=triton)
    metrics.loaded(MODEL)
    metrics.answered(outcome(0.9, source="gate"))
    metrics.suspected(MODEL, "gate", "CHANNELS_SWAPPED")
    ran = subprocess.run(["promtool", "check", "metrics"], input=metrics.page("")[0], capture_output=True, check=False)
    ours = [line for line in ran.stderr.decode().splitlines() if not line.startswith("nv_inference_")]
    assert not ours, "Triton's own names abbreviate their units"
    assert bool(ran.returncode) is triton

"""Starting, serving, losing workers, draining, stopping: real processes, real signals."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from vedette_client import Client, NotFound, ServerError, Unavailable
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running
from tests.support.running import http, sample

SERVICE = "vedette.v1.DetectionService"


def test_reflection_lists_the_services(bundled: running.Server) -> None:
    with grpc.insecure_channel(bundled.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (reply,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    listed = {service.name for service in reply.list_services_response.service}
    assert listed == {
        SERVICE,
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_health_turns_serving_only_after_the_golden_images_passed() -> None:
    with running.server(serving=False) as server, grpc.insecure_channel(server.address) as channel:
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        first = next(states).status
        assert first == health_pb2.HealthCheckResponse.NOT_SERVING
        assert http(server, "/readyz") == (503, "not ready\n")
        assert http(server, "/livez") == (200, "alive\n")
        with Client(server.address) as client:
            assert client.model("roadsigns").state == "LOADING"
            with pytest.raises(Unavailable) as caught:
                client.detect(b"anything")
        assert caught.value.reason == "MODEL_NOT_READY"
        assert caught.value.retry_after is not None
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        assert server.logged("worker_ready"), "the log says so only after the golden images were answered"
        assert http(server, "/readyz") == (200, "ready\n")
        states.cancel()


def wrong_golden_answer(root: Path, *waivers: str) -> str:
    """Copy the bundled repository, another answer written to one of its golden images; returns that image's name."""
    shutil.copytree(BUNDLED_REPOSITORY, root)
    with (root / "roadsigns" / "model.toml").open("a") as settings:
        settings.write(f"waivers = {json.dumps(waivers)}\n")
    path = root / "roadsigns" / "1" / "golden" / "expected.json"
    golden = json.loads(path.read_text())
    name: str = next(name for name, objects in golden.items() if objects)
    golden[name][0]["class_id"] ^= 1
    path.write_text(json.dumps(golden))
    return name


def test_a_model_that_answers_its_golden_images_wrongly_never_serves(tmp_path: Path) -> None:
    name = wrong_golden_answer(tmp_path / "repository", "CHECKSUM_CHANGED")
    with running.server("--repository", str(tmp_path / "repository"), serving=False) as server:
        (failed, *_) = server.logged("worker_failed_to_start")
        assert failed["error"].startswith(f"GOLDEN_CHANGED: {name}")
        with Client(server.address) as client:
            assert not client.healthy()
            assert client.model().state == "UNAVAILABLE"
            with pytest.raises(Unavailable):
                client.detect(b"anything")
        assert http(server, "/readyz")[0] == 503


def test_a_waived_check_is_shown_wherever_it_matters(tmp_path: Path) -> None:
    waivers = ("CHECKSUM_CHANGED", "GOLDEN_CHANGED")
    name = wrong_golden_answer(tmp_path / "repository", *waivers)
    with running.server("--repository", str(tmp_path / "repository")) as server, Client(server.address) as client:
        assert client.model().waivers == waivers
        assert [event["waivers"] for event in server.logged("checks_waived")] == [list(waivers)]
        assert name in server.logged("golden_changed_and_waived")[0]["seen"]
        for check in waivers:
            assert sample(server, f'vedette_check_waived{{check="{check}",model="roadsigns",version="1"}}') == 1


def assert_not_started(root: Path, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        running.server("--repository", str(root), serving=False).__enter__()


def test_only_what_can_be_waived_is(tmp_path: Path) -> None:
    wrong_golden_answer(tmp_path / "repository", "TENSORS_MISSHAPEN")
    assert_not_started(tmp_path / "repository", r"TENSORS_MISSHAPEN cannot be waived; these can: .*ALWAYS_EMPTY, ")


@pytest.mark.parametrize("file", ["model.safetensors", "config.yaml", "golden/expected.json", "golden/no-sign.jpg"])
def test_a_changed_file_is_refused_at_the_start(file: str, tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_REPOSITORY, tmp_path / "repository")
    path = tmp_path / "repository" / "roadsigns" / "1" / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert_not_started(tmp_path / "repository", rf"CHECKSUM_CHANGED: {file} has SHA-256")


@pytest.fixture
def two_workers() -> Iterator[running.Server]:
    with running.server("--workers", "2", "--threads", "1") as server:
        running.wait_for(lambda: sample(server, WORKERS) == 2, "both workers")
        yield server


WORKERS = 'vedette_workers_ready{model="roadsigns",version="1"}'
RESTARTS = 'vedette_worker_restarts_total{model="roadsigns",version="1"}'


def test_a_killed_worker_is_replaced_and_loses_nothing(two_workers: running.Server, scene: Picture) -> None:
    data = jpeg(scene.pixels)
    with Client(two_workers.address) as client, ThreadPoolExecutor(8) as threads:
        expected = [found.class_name for found in client.detect(data)]
        answers = [threads.submit(client.detect, data) for _ in range(40)]
        before = two_workers.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        assert all([found.class_name for found in answer.result()] == expected for answer in answers)
        running.wait_for(
            lambda: sample(two_workers, RESTARTS) == 1 and sample(two_workers, WORKERS) == 2, "a new worker"
        )
    after = two_workers.worker_pids()
    assert len(after) == 2
    assert before[0] not in after


def test_sigterm_answers_what_was_admitted_and_refuses_the_rest(two_workers: running.Server, scene: Picture) -> None:
    data = jpeg(scene.pixels)
    first = threading.Event()
    outcomes: list[str] = []

    def call() -> None:
        with Client(two_workers.address) as client:
            for _ in range(200):
                try:
                    client.detect(data)
                    outcomes.append("answered")
                    first.set()
                except Unavailable:
                    outcomes.append("unavailable")
                    return
                except ServerError as error:
                    outcomes.append(str(error))
                    return

    workers = two_workers.worker_pids()
    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    assert first.wait(running.PATIENCE)
    assert two_workers.stop() == 0
    for caller in callers:
        caller.join()
    assert set(outcomes) == {"answered", "unavailable"}
    assert outcomes.count("unavailable") == len(callers)
    assert not any(map(running.lives, workers))


def test_workers_end_by_themselves_when_the_gateway_is_killed(two_workers: running.Server) -> None:
    workers = two_workers.worker_pids()
    shared = Path("/dev/shm")  # noqa: S108  nothing is written there, which is the point
    before = set(shared.iterdir())
    two_workers.stop(signal.SIGKILL)
    running.wait_for(lambda: not any(map(running.lives, workers)), "the workers to end")
    assert set(shared.iterdir()) == before


def test_metrics_count_what_happened(bundled: running.Server, client: Client, scene: Picture) -> None:
    ok = 'vedette_requests_total{model="roadsigns",outcome="OK",version="1"}'
    forward = 'vedette_stage_duration_seconds_count{model="roadsigns",stage="forward",version="1"}'
    before = {series: sample(bundled, series) for series in (ok, forward)}
    result = client.detect(jpeg(scene.pixels))
    series = f'vedette_detections_total{{class="{result[0].class_name}",model="roadsigns",version="1"}}'
    assert sample(bundled, ok) == before[ok] + 1
    assert sample(bundled, forward) == before[forward] + 1
    assert sample(bundled, series) >= 1
    missing = 'vedette_requests_total{model="",outcome="MODEL_NOT_FOUND",version=""}'
    count = sample(bundled, missing)
    with pytest.raises(NotFound):
        client.detect(b"x", model="nobody")
    assert sample(bundled, missing) == count + 1


def test_the_log_has_one_line_for_a_request_with_its_id(
    bundled: running.Server, client: Client, scene: Picture
) -> None:
    result = client.detect(jpeg(scene.pixels), request_id="a-caller-s-own-id")
    assert result.request_id == "a-caller-s-own-id"

    def lines() -> list[str]:
        return [line for line in bundled.log_path.read_text().splitlines() if "a-caller-s-own-id" in line]

    running.wait_for(lines, "its line: the log is written beside the answers")
    assert len(lines()) == 1
    assert json.loads(lines()[0])["detections"] == len(result)


def test_a_gateway_that_was_stopped_finds_its_workers_well(tmp_path: Path, scene: Picture) -> None:
    """It has missed their signs of life for longer than the limit, as after a suspended machine wakes."""
    (tmp_path / "vedette.toml").write_text("hang_seconds = 2.5\nworkers = 2\nthreads = 1\n")
    with running.server("--config", str(tmp_path / "vedette.toml")) as server, Client(server.address) as client:
        running.wait_for(lambda: len(server.events("worker_ready")) == 2, "both workers")
        before = set(server.worker_pids())
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(4)  # nothing tells that time has passed for a process that stands still
        server.process.send_signal(signal.SIGCONT)
        server.logged("gateway_overslept")
        for _ in range(4):
            client.detect(jpeg(scene.pixels))
        assert set(server.worker_pids()) == before
        assert not server.events("worker_hangs")


def test_a_server_whose_workers_stand_still_is_not_ready_until_they_go_on(tmp_path: Path, scene: Picture) -> None:
    (tmp_path / "vedette.toml").write_text("max_request_seconds = 5\nworkers = 2\nthreads = 1\n")
    unanswered = 'vedette_unanswered_seconds{model="roadsigns",version="1"}'
    data = jpeg(scene.pixels)
    with running.server("--config", str(tmp_path / "vedette.toml")) as server, Client(server.address) as client:
        running.wait_for(lambda: sample(server, WORKERS) == 2, "both workers")
        workers = server.worker_pids()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        with ThreadPoolExecutor(4) as threads:
            for failed in [threads.submit(client.detect, data) for _ in range(4)]:
                assert isinstance(failed.exception(), ServerError)
        running.wait_for(lambda: http(server, "/readyz")[0] == 503, "not to be ready")
        running.wait_for(lambda: not client.healthy(), "health checks to be told")
        assert sample(server, unanswered) > 5
        assert [event["model"] for event in server.logged("stuck")] == ["roadsigns"]
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        running.wait_for(client.healthy, "it to be ready again")
        assert http(server, "/readyz")[0] == 200
        running.wait_for(lambda: sample(server, unanswered) == 0, "all to be answered")
        assert server.worker_pids() == workers, "nobody was replaced"
        assert client.detect(data).width > 0


def logged(server: running.Server, text: str) -> Callable[[], bool]:
    return lambda: text in server.log_path.read_text()


def test_signals_that_end_nothing(tmp_path: Path) -> None:
    """SIGQUIT shows where every process is; SIGHUP has the repository read again."""
    root = tmp_path / "models"
    shutil.copytree(BUNDLED_REPOSITORY, root)
    with running.server("--repository", str(root), "--threads", "1") as server, Client(server.address) as client:
        server.process.send_signal(signal.SIGQUIT)
        for file in ("vedette_server/app.py", "vedette_server/pool/worker.py"):
            running.wait_for(logged(server, file), "both processes' stacks")
        shutil.copytree(root / "roadsigns" / "1", root / "roadsigns" / "2")
        server.process.send_signal(signal.SIGHUP)
        running.wait_for(lambda: len(client.models()) == 2, "the new version")
        assert server.stop() == 0


def test_a_port_in_use_is_one_line_and_leaves_nothing(bundled: running.Server) -> None:
    taken = bundled.http.removeprefix("http://")
    command = [str(running.BIN / "vedette-server"), "serve", "--listen", "127.0.0.1:0", "--http", taken]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith("vedette-server: ")]
    assert len(told) == 1
    assert taken.rpartition(":")[2] in told[0]

"""KServe's manifests: valid by its schemas, in accord with each other, with the image and with the server."""

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from vedette_server.settings import Settings

from tests.support import kserve, running

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kserve"
MANIFESTS: dict[str, type[BaseModel]] = {
    "serving-runtime.yaml": kserve.ServingRuntime,
    "inference-service.yaml": kserve.InferenceService,
}
FREE = ("annotations", "requests", "limits")  # maps whose keys are anybody's, or checked apart


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def runtime() -> kserve.ServingRuntime:
    return kserve.ServingRuntime.model_validate(document("serving-runtime.yaml"))


@pytest.fixture(scope="module")
def service() -> kserve.InferenceService:
    return kserve.InferenceService.model_validate(document("inference-service.yaml"))


@pytest.fixture(scope="module")
def container(runtime: kserve.ServingRuntime) -> kserve.Container:
    (only,) = runtime.spec.containers
    return only


def maps(item: Any) -> Iterator[dict[str, Any]]:
    """Every map of a document whose fields KServe or Kubernetes names."""
    if isinstance(item, dict):
        yield item
        for name, value in item.items():
            if name not in FREE:
                yield from maps(value)
    elif isinstance(item, list):
        for value in item:
            yield from maps(value)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_only_fields_that_there_are(name: str) -> None:
    given = document(name)
    MANIFESTS[name].model_validate(given)
    for number, _ in enumerate(maps(given)):
        wrong = copy.deepcopy(given)
        [*maps(wrong)][number]["tpyo"] = 1
        with pytest.raises(ValidationError, match="tpyo"):
            MANIFESTS[name].model_validate(wrong)


def test_the_service_asks_for_the_runtime(runtime: kserve.ServingRuntime, service: kserve.InferenceService) -> None:
    model = service.spec.predictor.model
    assert model.runtime == runtime.metadata.name
    assert model.model_format.name in [one.name for one in runtime.spec.supported_model_formats]
    assert model.protocol_version in runtime.spec.protocol_versions


def test_the_container_is_the_one_that_gets_the_model(container: kserve.Container) -> None:
    assert container.name == "kserve-container"
    assert "--repository=/mnt/models" in container.args


def test_the_one_port_is_grpc_by_its_name_and_where_the_server_listens(container: kserve.Container) -> None:
    (port,) = container.ports
    assert "h2c" in port.name
    assert f"--listen=0.0.0.0:{port.container_port}" in container.args


def test_the_server_knows_the_arguments(container: kserve.Container) -> None:
    command = [str(running.BIN / "vedette-server"), *container.args, "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_probes_and_prometheus_find_what_they_ask_for(
    runtime: kserve.ServingRuntime, container: kserve.Container, bundled: running.Server
) -> None:
    asked = [one.http_get for one in (container.startup_probe, container.readiness_probe, container.liveness_probe)]
    annotations = runtime.spec.annotations
    paths = {(one.path, one.port) for one in asked}
    paths.add((annotations["prometheus.io/path"], int(annotations["prometheus.io/port"])))
    assert {path for path, _ in paths} == {"/readyz", "/livez", "/metrics"}
    for path, port in paths:
        assert f"--http=0.0.0.0:{port}" in container.args
        assert running.http(bundled, path)[0] == 200, path


def test_a_pod_lives_long_enough_to_drain(container: kserve.Container, service: kserve.InferenceService) -> None:
    pause = container.lifecycle.pre_stop.sleep.seconds
    drain: float = Settings.model_fields["drain_seconds"].default
    assert service.spec.predictor.termination_grace_period_seconds >= pause + drain + 5


def test_the_container_runs_as_the_images_user_and_may_do_nothing_else(container: kserve.Container) -> None:
    user = re.search(r"useradd .*--uid (\d+)", (ROOT / "deploy/docker/Dockerfile").read_text())
    assert user
    context = container.security_context
    assert context.run_as_user == int(user[1])
    assert (context.run_as_non_root, context.read_only_root_filesystem) == (True, True)
    assert (context.privileged, context.allow_privilege_escalation) == (False, False)
    assert context.capabilities.drop == ["ALL"]

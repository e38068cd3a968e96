"""The alert pack on Triton's own page: what goes wrong with an exported model rings there, and names its cause."""

import contextlib
import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from vedette_server.contract.types import UInt8Array

from tests.sim import alarms
from tests.sim.alarm_faults import MODEL
from tests.sim.alarm_feed import Street
from tests.support import running, tritons, watching

PACE = alarms.Pace(window=10, long=30, hold=4, lead=15.0, patience=120.0, pictures=120, answers=15)
SETTINGS = "threads = 1\ndiagnose_share = 1.0\ngolden_seconds = 4\n"
PICTURES_A_SECOND = 4.0  # for each of three models on two cores
pytestmark = [watching.needs(watching.PROMETHEUS), pytest.mark.timeout(600)]  # what is waited for is time itself


@dataclass(frozen=True)
class Fault:
    """A mistake of whoever sends pictures, and the cause that names it."""

    cause: str
    change: Callable[[UInt8Array], UInt8Array] = np.ascontiguousarray
    threshold: float | None = None


FAULTS: Mapping[str, Fault] = {
    "swap": Fault("CHANNELS_SWAPPED", lambda bgr: np.ascontiguousarray(bgr[:, :, ::-1])),
    "unit_range": Fault("VALUES_IN_UNIT_RANGE", lambda bgr: np.rint(bgr / 255).astype(np.uint8)),
    "strict": Fault("BELOW_THRESHOLD", threshold=0.9999),
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> alarms.Range:
    """The pictures and the rules of the matrix of alarms, and a baseline of these pictures."""
    tritons.require()
    found = alarms.Range(tmp_path_factory.mktemp("alarms"), PACE)
    found.capture_pictures()
    return found


@pytest.fixture(scope="module")
def exported(watched: alarms.Range, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model for each fault."""
    folder = tmp_path_factory.mktemp("triton")
    environment = tritons.environment(folder / "environment")
    for name in FAULTS:
        shutil.copytree(watched.repository / MODEL, folder / "models" / name)
        tritons.export(name, folder / "models", folder / "out", environment, SETTINGS)
    return folder / "out"


class Camera(threading.Thread):
    """Sends the pictures to one model, over and over, from some moment on with a fault."""

    def __init__(self, address: str, model: str, pictures: tuple[Street, ...]) -> None:
        super().__init__(daemon=True)
        self._address, self._model, self._pictures = address, model, pictures
        self.fault = Fault("")
        self.stopped = threading.Event()
        self.answers = 0

    def run(self) -> None:
        due = time.monotonic()
        with triton.InferenceServerClient(self._address) as client:
            for street in itertools.cycle(self._pictures):
                self._send(client, street.bgr)
                due = max(due + 1 / PICTURES_A_SECOND, time.monotonic())
                if self.stopped.wait(due - time.monotonic()):
                    return

    def _send(self, client: Any, bgr: UInt8Array) -> None:
        fault = self.fault
        pixels = fault.change(bgr)
        inputs = [triton.InferInput("IMAGE", list(pixels.shape), "UINT8")]
        inputs[0].set_data_from_numpy(pixels)
        if fault.threshold is not None:
            inputs.append(triton.InferInput("SCORE_THRESHOLD", [1], "FP32"))
            inputs[1].set_data_from_numpy(np.array([fault.threshold], np.float32))
        client.infer(self._model, inputs, parameters={"pixel_format": "BGR8"}, sequence_id=1)
        self.answers += 1


@contextlib.contextmanager
def cameras(address: str, pictures: tuple[Street, ...]) -> Iterator[dict[str, Camera]]:
    started = {name: Camera(address, name, pictures) for name in FAULTS}
    for camera in started.values():
        camera.start()
    try:
        yield started
    finally:
        for camera in started.values():
            camera.stopped.set()
        for camera in started.values():
            camera.join()


def ringing(prometheus: watching.Prometheus, *alerts: str) -> set[tuple[str, str]]:
    """The models for which one of these alerts rings, or any, and its causes."""
    return {
        (alert["labels"].get("model", ""), alert["labels"].get("cause", ""))
        for alert in prometheus.alerts()
        if alert["state"] == "firing"
        and alert["labels"].get("severity") in alarms.FIRING
        and (not alerts or alert["labels"]["alertname"] in alerts)
    }


def test_faults_ring_on_tritons_page_and_health_does_not(watched: alarms.Range, exported: Path) -> None:
    with (
        tritons.server(exported) as theirs,
        cameras(theirs.address, watched.pictures) as sending,
        watching.prometheus([theirs.metrics.removesuffix("/metrics")], watched.rules) as prometheus,
    ):
        prometheus.wait_until_scraped(1)
        healthy = min(camera.answers for camera in sending.values())
        time.sleep(PACE.lead)  # it is time itself that is wanted here, for windows to fill
        assert min(camera.answers for camera in sending.values()) > healthy, "all cameras send"
        assert not ringing(prometheus)
        for name, camera in sending.items():
            camera.fault = FAULTS[name]
        expected = {(name, fault.cause) for name, fault in FAULTS.items()}
        running.wait_for(lambda: expected <= ringing(prometheus), f"{expected} to ring")
        silenced = ringing(prometheus, "VedetteModelSilenced", "VedetteStreamSilenced")
        assert silenced <= expected, "no other cause is named for what is silenced"

"""Baselines captured by the command, from a folder and from a live server, and served by real ones."""

import asyncio
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image
from vedette_server.addresses import Tcp
from vedette_server.alerts.limits import LEAST_ANSWERS, LEAST_WINDOWS
from vedette_server.baseline.scrape import Page
from vedette_server.baseline.stored import read as read_baseline
from vedette_server.capture import from_servers, write
from vedette_server.contract.types import UInt8Array
from vedette_server.engine.engine import Engine
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import ModelVersion
from vedette_server.rpc.http import HttpServer
from vedette_server.settings import BUNDLED_REPOSITORY
from vedette_server.watch.probe import Probe

from tests.sim import labelled
from tests.support import invariants, running
from tests.support.contracts import contract
from tests.support.world import GOOD, QUIET, Camera

WINDOW = 3.0  # seconds, in which a slow machine too answers thirty frames of a predictor that does nothing
WINDOWS = LEAST_WINDOWS + 2  # two to spare


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLED_REPOSITORY, tmp_path / "repository")


@pytest.fixture(scope="module")
def frames() -> list[UInt8Array]:
    """Frames of which two in three show signs."""
    shown = (picture.bgr for picture in labelled.drawn(range(9_300_000, 9_300_100), quiet=False))
    quiet = (picture.bgr for picture in labelled.drawn(range(9_300_000, 9_300_100), quiet=True))
    return [frame for _ in range(10) for frame in (next(shown), next(shown), next(quiet))]


def capture(repository: Path, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    command = [running.BIN / "vedette-server", "baseline", "roadsigns", "--repository", repository, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read(repository: Path) -> Any:
    return json.loads((repository / "roadsigns" / "1" / "baseline.json").read_text())


def state(server: running.Server, name: str) -> float:
    labels = f'model="roadsigns",vedette_baseline_state="{name}",version="1"'
    return running.sample(server, f"vedette_baseline_state{{{labels}}}")


def mean(server: running.Server, statistic: str, stream: str = "") -> float:
    labels = f'bound="mean",model="roadsigns",statistic="{statistic}",stream="{stream}",version="1"'
    return running.sample(server, f"vedette_baseline_limit{{{labels}}}")


@pytest.mark.timeout(900)  # some 250 pictures and three servers
def test_captured_from_a_folder_restarted_served_and_refused_for_another_contract(
    repository: Path, tmp_path: Path, frames: list[UInt8Array]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, frame in zip(range(240), itertools.cycle(frames), strict=False):
        Image.fromarray(frame[:, :, ::-1]).save(folder / f"{number:03}.png", compress_level=1)
    captured = capture(repository, "--images", folder)
    assert captured.returncode == 0, captured.stderr
    written = read(repository)
    (whole,) = written["profiles"]
    assert whole["answers"] == 240
    empty = whole["statistics"]["empty"]["mean"]
    assert 0.2 < empty < 0.5
    for _ in range(2):  # started, and started again
        with running.server("--threads", "1", "--repository", str(repository)) as server:
            assert state(server, "present") == 1
            assert mean(server, "empty") == pytest.approx(empty)
            assert mean(server, "brightness") == pytest.approx(whole["statistics"]["brightness"]["mean"])
    settings = repository / "roadsigns" / "model.toml"
    settings.write_text("threshold = 0.61\n")
    with running.server("--threads", "1", "--repository", str(repository)) as server:
        assert state(server, "refused") == 1
        assert not running.sample(server, "vedette_baseline_limit")
        assert "capture it again" in server.logged("baseline_refused")[0]["why"]
        assert server.logged("worker_ready"), "the version serves all the same"


async def test_captured_from_live_traffic_of_two_replicas_and_noticed_while_they_run(tmp_path: Path) -> None:
    """Real workers, gateways' pages over HTTP; the predictor's world is simple, so that a window holds many frames."""
    model = ModelVersion(name="test", version=1, folder=tmp_path, description="", contract=contract(), golden=())
    replicas = [Replica(model), Replica(model)]
    addresses = [await replica.start() for replica in replicas]
    traffic = [asyncio.create_task(replica.feed()) for replica in replicas]
    try:
        seen = await asyncio.to_thread(from_servers, model, addresses, WINDOW, WINDOWS)
        write(model, seen, WINDOW, "live traffic", by_hour=False)
        pages = [await replica.page() for replica in replicas]
    finally:
        for task in traffic:
            task.cancel()
        for replica in replicas:
            await replica.stop()
    captured = read_baseline(model)
    assert captured is not None
    assert [profile.stream for profile in captured.profiles] == ["", "camera"]
    whole = captured.profiles[0]
    answered = sum(page.value("vedette_answers_total") for page in pages)
    assert LEAST_WINDOWS * LEAST_ANSWERS <= whole.answers <= answered
    assert whole.answers > max(page.value("vedette_answers_total") for page in pages) / 2, "both were counted"
    assert whole.statistics["empty"].mean == pytest.approx(1 / 3, abs=0.05)
    for page in pages:
        assert page.value("vedette_baseline_state", vedette_baseline_state="present") == 1
        assert page.value("vedette_baseline_limit", statistic="empty", bound="mean", stream="camera") == pytest.approx(
            captured.profiles[1].statistics["empty"].mean
        )


class Replica:
    """A gateway with its page on a port of its own."""

    def __init__(self, model: ModelVersion) -> None:
        metrics = Metrics()
        settings = PoolSettings(
            factory="tests.support.world:world",
            workers=1,
            threads=1,
            devices=("cpu",),
            max_queued=64,
            max_queued_bytes=10_000_000,
            violated=invariants.note,
        )
        self._engine = Engine(settings, metrics, Probe(metrics), max_seconds=60)
        self._http = HttpServer(metrics, lambda: True)
        self._model = model
        self._address = ""

    async def start(self) -> str:
        self._address = await self._http.start(Tcp("127.0.0.1", 0))
        served = self._engine.load(self._model)
        while served.standing.state is not State.READY:
            self._engine.changed.clear()
            await self._engine.changed.wait()
        return self._address

    async def feed(self) -> None:
        """Frames of which one in three shows nothing, for ever."""
        camera = Camera(self._engine)
        while True:
            await camera.send(GOOD, GOOD, QUIET)

    async def page(self) -> Page:
        async with aiohttp.ClientSession() as session, session.get(self._address + "/metrics") as response:
            return Page.parse(await response.text())

    async def stop(self) -> None:
        await self._engine.stop()
        await self._http.stop()


def test_what_cannot_be_captured_is_said(repository: Path, tmp_path: Path, bundled: running.Server) -> None:
    quiet = capture(repository, "--from", bundled.http, "--window", "0.1s", "--windows", "8")
    assert quiet.returncode == 1
    assert "of 8 windows have at least 30 answers of roadsigns version 1" in quiet.stderr
    nobody = capture(repository, "--from", "http://127.0.0.1:9")
    assert (nobody.returncode, "gives no metrics" in nobody.stderr) == (1, True)
    few = capture(repository, "--images", tmp_path)
    assert (few.returncode, "240 are needed" in few.stderr) == (1, True)
    (repository / "roadsigns" / "model.toml").write_text("threshold = 0.61\n")
    other = capture(repository, "--from", bundled.http)
    assert (other.returncode, "give the --repository that it serves" in other.stderr) == (1, True)
    assert capture(repository, "--window", "5").returncode == 2
    assert not (repository / "roadsigns" / "1" / "baseline.json").exists()

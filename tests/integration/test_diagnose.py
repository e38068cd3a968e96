"""Diagnose, the probe and the golden images, against a real server with the bundled model."""

import io
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from vedette_client import Answered, Client, InvalidRequest, NotFound, NotServed, Raw, Tensor
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.sim import labelled
from tests.support import memory, running

SWAPPED = range(9_000_000, 9_000_200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Server]:
    """One whose diagnoses need not wait for the traffic to leave them room."""
    config = tmp_path_factory.mktemp("config") / "vedette.toml"
    config.write_text("diagnose_share = 1.0\n")
    with running.server("--threads", "1", "--config", str(config)) as started:
        yield started


@pytest.fixture
def client(server: running.Server) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def feed(server: running.Server) -> list[UInt8Array]:
    """Pictures, BGR, that give a sure detection each, and nothing with red and blue exchanged."""

    with Client(server.address) as asked:

        def silenced(bgr: UInt8Array) -> bool:
            swapped = np.ascontiguousarray(bgr[:, :, ::-1])
            sound = asked.detect(bgr, pixel_format="BGR8")
            return len(sound) > 0 and sound.scores[0] > 0.9 and not len(asked.detect(swapped, pixel_format="BGR8"))

        pictures = (picture.bgr for picture in labelled.drawn(SWAPPED, quiet=False))
        return list(itertools.islice(filter(silenced, pictures), 4))


@pytest.fixture
def silenced(feed: list[UInt8Array]) -> UInt8Array:
    return feed[0]


def test_the_injected_mistake_is_named_first(client: Client, silenced: UInt8Array) -> None:
    swapped = np.ascontiguousarray(silenced[:, :, ::-1])
    found = client.diagnose(swapped, pixel_format="BGR8")
    assert found.cause is not None
    assert found.cause == found.candidates[0]
    assert (found.cause.mistake, found.cause.code) == ("CHANNELS_SWAPPED", "CHANNELS_SWAPPED")
    assert found.summary.startswith("Red and blue are swapped")
    assert found.summary.endswith(found.cause.remedy)
    assert found.cause.detections > found.detections
    helping = [one.helps for one in found.candidates]
    assert helping == sorted(helping, reverse=True)
    with Image.open(io.BytesIO(found.comparison_png)) as sheet:
        assert sheet.width == 4 * 320
        pixels = np.asarray(sheet.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1_000, "pictures are in it"


def test_what_detect_refuses_is_named(client: Client, scene: scenes.Picture) -> None:
    normalised = (scene.pixels - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    sent = Tensor(normalised.astype(np.float32), "RGB", "HWC", "0-255")
    with pytest.raises(InvalidRequest, match="VALUES_NORMALISED"):
        client.detect(sent)
    found = client.diagnose(sent)
    assert found.candidates[0].mistake == "NORMALISED"
    assert found.candidates[0].detections == len(client.detect(scene.pixels, pixel_format="RGB8"))


def test_where_nothing_helps_that_is_said(client: Client) -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    found = client.diagnose(black, pixel_format="BGR8")
    assert found.cause is None
    assert found.findings[0].code == "IMAGE_BLACK"
    assert "none of the attempts helps" in found.summary
    assert found.summary.startswith("The image is black")


def test_a_threshold_too_high_is_named(client: Client, bgr: UInt8Array) -> None:
    found = client.diagnose(bgr, pixel_format="BGR8", threshold=1.0)
    assert (found.candidates[0].mistake, found.findings[0].code) == ("THRESHOLD", "BELOW_THRESHOLD")
    assert found.threshold == 1.0


def test_a_frame_that_was_never_sampled_is_missing(client: Client) -> None:
    with pytest.raises(NotFound, match="SAMPLE_MISSING"):
        client.diagnose(stream_id="nobody")


def test_it_can_be_switched_off(tmp_path: Path, bgr: UInt8Array) -> None:
    config = tmp_path / "vedette.toml"
    config.write_text("diagnose_share = 0\n")
    with running.server("--threads", "1", "--config", str(config)) as started, Client(started.address) as client:
        with pytest.raises(NotServed, match="FEATURE_NOT_SERVED"):
            client.diagnose(bgr, pixel_format="BGR8")
        assert len(client.detect(bgr, pixel_format="BGR8"))


def test_the_command_prints_the_likeliest_cause_first(
    server: running.Server, silenced: UInt8Array, tmp_path: Path
) -> None:
    picture = tmp_path / "street.png"
    Image.fromarray(silenced).save(picture)  # written as if it were RGB
    command = [str(running.BIN / "vedette"), "diagnose", str(picture), "--server", server.address]
    command += ["--save", str(tmp_path / "out")]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(told.stdout)
    assert list(found)[:3] == ["image", "summary", "cause"]
    assert found["cause"] == found["candidates"][0]["code"] == "CHANNELS_SWAPPED"
    with Image.open(tmp_path / "out" / "street-diagnosis.png") as sheet:
        assert sheet.format == "PNG"
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Red and blue are swapped")
    assert re.search(r"channels swapped.*yes", shown)


def test_a_swapped_feed_is_found_out_by_the_server_itself(
    server: running.Server, client: Client, feed: list[UInt8Array]
) -> None:
    """As traffic goes on, the empty frames come to name the cause, in the answers, the log and the metrics."""
    until = time.monotonic() + running.PATIENCE
    frames = (
        Raw(
            np.ascontiguousarray(bgr[:, :, ::-1]).tobytes(),
            pixel_format="BGR8",
            height=bgr.shape[0],
            width=bgr.shape[1],
        )
        for bgr in itertools.takewhile(lambda _bgr: time.monotonic() < until, itertools.cycle(feed))
    )
    suspected = None
    for event in client.stream(frames, policy="LOSSLESS", stream_id="gate 3", max_in_flight=1):
        assert isinstance(event, Answered)
        if suspected := [finding for finding in event.result.findings if finding.code == "CHANNELS_SWAPPED"]:
            break
    assert suspected, "within the time that a slow machine may take"
    assert suspected[0].confidence == "LIKELY"
    (told,) = server.logged("cause_suspected")
    assert (told["stream"], told["cause"]) == ("gate 3", "CHANNELS_SWAPPED")
    series = 'vedette_suspected_cause{cause="CHANNELS_SWAPPED",model="roadsigns",stream="gate 3",version="1"}'
    assert running.sample(server, series) == 1
    sampled = client.diagnose(stream_id="gate 3")
    assert sampled.cause is not None
    assert sampled.cause.code == "CHANNELS_SWAPPED"


def test_a_frozen_feed_is_told_by_its_tenth_frame(client: Client) -> None:
    quiet = next(
        picture.bgr
        for picture in labelled.drawn(SWAPPED, quiet=True)
        if not len(client.detect(picture.bgr, pixel_format="BGR8"))
    )
    events = client.stream([quiet] * 12, policy="LOSSLESS", stream_id="frozen", pixel_format="BGR8")
    reasons = [event.result.empty.reason for event in events if isinstance(event, Answered) and event.result.empty]
    assert reasons == ["QUIET_SCENE"] * 9 + ["FEED_FROZEN"] * 3


def test_weights_that_change_in_memory_are_caught_and_the_worker_replaced(tmp_path: Path) -> None:
    """Overwritten in a worker that serves, as a bad memory chip would; the golden images find out, not the callers."""
    config = tmp_path / "vedette.toml"
    config.write_text("golden_seconds = 0.5\n")
    weights = load_file(BUNDLED_REPOSITORY / "roadsigns" / "1" / "model.safetensors")
    classifier = weights["roi_heads.box_predictor.cls_score.weight"].astype(np.float32)
    with running.server("--threads", "1", "--config", str(config)) as started:
        (pid,) = started.worker_pids()
        addresses = memory.find(pid, classifier.tobytes())
        assert addresses
        memory.write(pid, addresses, bytes(classifier.nbytes))
        failed = started.logged("worker_fails_golden")
        assert failed[0]["pid"] == pid
        assert "GOLDEN_CHANGED" in failed[0]["error"]
        running.wait_for(lambda: len(started.events("worker_ready")) == 2, "another worker")
        assert pid not in started.worker_pids()
        assert (
            running.sample(started, 'vedette_golden_checks_total{model="roadsigns",result="failed",version="1"}') == 1
        )
        with Client(started.address) as client:
            picture = next(iter(labelled.drawn(SWAPPED, quiet=False)))
            assert len(client.detect(picture.bgr, pixel_format="BGR8"))

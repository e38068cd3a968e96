"""Streams over a real connection, with the bundled model: order, policies, errors of one frame, reconnection."""

import itertools
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from vedette_client import (
    Answered,
    AsyncClient,
    Client,
    Dropped,
    Event,
    Failed,
    Frame,
    InvalidRequest,
    LocalError,
    Reconfigure,
    Sendable,
    Unavailable,
)
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg

from tests.support import running
from tests.support.running import sample


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Frames of a moving scene, as files."""
    clip = scenes.Clip(seed=3_000_001, frames=40)
    return [jpeg(picture.pixels) for picture in clip]


def test_a_lossless_stream_answers_every_frame_in_order_as_detect_does(
    bundled: running.Server, pictures: list[bytes]
) -> None:
    with Client(bundled.address) as client:
        events = list(client.stream(pictures, policy="LOSSLESS", stream_id="a-file"))
        single = [client.detect(picture) for picture in pictures]
    assert [event.frame_id for event in events] == list(range(len(pictures)))
    for event, alone in zip(events, single, strict=True):
        assert isinstance(event, Answered)
        assert event.result.detections == alone.detections
        assert event.age > 0


async def test_the_asynchronous_client_streams_alike(bundled: running.Server, pictures: list[bytes]) -> None:
    async def frames() -> AsyncIterator[Sendable]:
        for number, picture in enumerate(pictures[:10]):
            yield Frame(picture, frame_id=10 * number, captured=1_000.0 + number)

    async with AsyncClient(bundled.address) as client:
        events = [event async for event in client.stream(frames(), policy="LOSSLESS")]
    assert [event.frame_id for event in events] == list(range(0, 100, 10))
    assert all(isinstance(event, Answered) for event in events)
    assert [event.captured for event in events if isinstance(event, Answered)] == [1_000.0 + n for n in range(10)]


def test_a_live_stream_looks_at_the_newest_and_names_what_it_drops(
    bundled: running.Server, pictures: list[bytes]
) -> None:
    """Sent as fast as the connection takes them, far faster than they can be looked at."""
    dropped = 'vedette_frames_dropped_total{model="roadsigns",reason="SUPERSEDED",stream="_unnamed",version="1"}'
    before = sample(bundled, dropped)
    with Client(bundled.address) as client:
        events = list(client.stream(pictures * 5, policy="LATEST"))
    assert [event.frame_id for event in events] == list(range(200)), "sent = answered + dropped, in order"
    assert isinstance(events[-1], Answered), "nothing is newer than the last"
    drops = [event for event in events if isinstance(event, Dropped)]
    assert {event.reason for event in drops} == {"SUPERSEDED"}
    assert sample(bundled, dropped) - before == len(drops)
    assert sum(isinstance(event, Answered) for event in events) + len(drops) == 200


def test_an_error_of_one_frame_is_that_frames(bundled: running.Server, pictures: list[bytes]) -> None:
    sent = [pictures[0], b"no image", pictures[1][:-2000], pictures[2]]
    with Client(bundled.address) as client:
        events = list(client.stream(sent, policy="LOSSLESS"))
    assert [type(event) for event in events] == [Answered, Failed, Failed, Answered]
    assert [event.error.reason for event in events if isinstance(event, Failed)] == [
        "IMAGE_UNREADABLE",
        "IMAGE_TRUNCATED",
    ]


def test_threshold_and_classes_change_in_mid_stream(bundled: running.Server, pictures: list[bytes]) -> None:
    frame = pictures[0]
    with Client(bundled.address) as client:
        all_found = client.detect(frame)
        names = [found.class_name for found in all_found]
        sent: list[Sendable] = [
            frame,
            Reconfigure({"threshold": 1.0}),
            frame,
            Reconfigure({"classes": ["parking" if "parking" not in names else "yield"]}),
            frame,
            Reconfigure({}),
            frame,
        ]
        first, high, filtered, last = client.stream(sent, policy="LOSSLESS")
    assert isinstance(first, Answered)
    assert isinstance(high, Answered)
    assert isinstance(filtered, Answered)
    assert isinstance(last, Answered)
    assert first.result.detections == last.result.detections == all_found.detections
    assert high.result.empty is not None
    assert high.result.empty.reason == "BELOW_THRESHOLD"
    assert filtered.result.empty is not None
    assert filtered.result.empty.reason == "CLASS_FILTER"


def test_raw_frames_stream_too(bundled: running.Server, bgr: UInt8Array) -> None:
    with Client(bundled.address) as client:
        wanted = client.detect(bgr, pixel_format="BGR8").detections
        for event in client.stream([bgr, bgr], policy="LOSSLESS", pixel_format="BGR8"):
            assert isinstance(event, Answered)
            assert event.result.detections == wanted


def test_what_is_wrong_with_the_frames_is_raised_where_they_are_read(
    bundled: running.Server, pictures: list[bytes]
) -> None:
    def broken() -> Iterator[Sendable]:
        yield pictures[0]
        raise ValueError("the camera has fallen down")

    with Client(bundled.address) as client:
        events = client.stream(broken(), policy="LOSSLESS")
        assert isinstance(next(events), Answered)
        with pytest.raises(ValueError, match="fallen down"):
            next(events)
        (failed,) = client.stream([np.zeros((4, 4, 3), np.uint8)], policy="LOSSLESS")
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, LocalError)
        assert "pixel_format" in failed.error.message
        with pytest.raises(InvalidRequest) as caught:
            list(client.stream([pictures[0]], policy="LOSSLESS", max_in_flight=1000))
        assert caught.value.reason == "STREAM_NOT_CONFIGURED"


def test_a_stream_that_is_left_frees_everything(bundled: running.Server, pictures: list[bytes]) -> None:
    queued = 'vedette_queued_requests{model="roadsigns",version="1"}'
    with Client(bundled.address) as client:
        events = client.stream(itertools.cycle(pictures), policy="LOSSLESS", max_in_flight=8)
        assert isinstance(next(events), Answered)
        events.close()  # type: ignore[attr-defined]  # it is a generator
        running.wait_for(lambda: sample(bundled, "vedette_streams_open") == 0, "the stream to close")
        assert sample(bundled, queued) == 0
        assert client.detect(pictures[0]).detections


def test_a_live_stream_outlives_its_server(pictures: list[bytes]) -> None:
    """Another one starts at its address after it was killed: the stream goes on, and every frame is accounted for."""
    port = running.free_port()
    flags = ("--listen", f"127.0.0.1:{port}", "--threads", "1")
    stop = False
    sent = 0

    def camera() -> Iterator[Sendable]:
        nonlocal sent
        for picture in itertools.cycle(pictures):
            if stop:
                return
            sent += 1
            yield picture
            time.sleep(0.05)

    told: list[Event] = []
    with Client(f"127.0.0.1:{port}") as client:
        with running.server(*flags) as first:
            events = client.stream(camera(), policy="LATEST")
            while sum(isinstance(event, Answered) for event in told) < 3:
                told.append(next(events))
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
        killed_at = len(told)
        with running.server(*flags):
            while sum(isinstance(event, Answered) for event in told[killed_at:]) < 3:
                told.append(next(events))
            stop = True
            told += events
    assert [event.frame_id for event in told] == sorted({event.frame_id for event in told}), "none twice, in order"
    assert len(told) == sent
    assert {event.reason for event in told if isinstance(event, Dropped)} >= {"CONNECTION_LOST"}


def test_a_stopping_server_ends_its_streams_when_it_has_answered(pictures: list[bytes]) -> None:
    with running.server("--threads", "1") as server, Client(server.address) as client:
        events = client.stream(itertools.cycle(pictures), policy="LOSSLESS", resume_seconds=0)
        assert isinstance(next(events), Answered)
        server.process.send_signal(signal.SIGTERM)
        told: list[Event] = []
        with pytest.raises(Unavailable, match="SHUTTING_DOWN"):
            told.extend(events)
        assert server.process.wait(running.PATIENCE) == 0


def test_a_stream_without_frames_ends_with_the_server_too(pictures: list[bytes]) -> None:
    over = threading.Event()

    def slow() -> Iterator[Sendable]:
        yield pictures[0]
        over.wait(running.PATIENCE)

    with running.server("--threads", "1") as server, Client(server.address) as client:
        events = client.stream(slow(), policy="LOSSLESS", resume_seconds=0)
        assert isinstance(next(events), Answered)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(Unavailable, match="SHUTTING_DOWN"):
            next(events)
        over.set()


def test_workers_that_die_lose_no_frame_of_a_file(pictures: list[bytes]) -> None:
    with running.server("--threads", "1") as server, Client(server.address) as client:
        events = client.stream(pictures, policy="LOSSLESS")
        told = [next(events)]
        subprocess.run(["kill", "-9", str(server.worker_pids()[0])], check=True)
        told += events
    assert [event.frame_id for event in told] == list(range(len(pictures)))
    assert all(isinstance(event, Answered) for event in told)

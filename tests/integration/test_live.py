"""Live sources: told from files, read as fast as they come, tried again when they drop."""

import itertools
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from vedette_client import LocalError, opening
from vedette_client.video import Video, VideoFrame

from tests.support import cameras, videos


def taken(video: Video, number: int, pause: float = 0.0) -> list[tuple[VideoFrame, float]]:
    """So many frames, each with its age when it was taken, in seconds."""
    found = []
    for frame in itertools.islice(video, number):
        found.append((frame, time.time() - (frame.captured or 0.0)))
        time.sleep(pause)
    video.stop()
    return found


def test_a_camera_over_http_is_live_and_its_frames_do_not_age() -> None:
    """Whoever takes a frame gets the newest; those that nobody took are told, and none is missing."""
    with cameras.jpegs() as camera:
        skipped: list[int] = []
        video = Video(camera.url, skipped=lambda skip: skipped.append(skip.frame_id))
        assert video.live
        assert video.frames is None
        frames = taken(video, 8, pause=0.4)
        assert max(age for _, age in frames[1:]) < 1, "read one after the other, the last would be 2.8 s old"
        ids = [frame.frame_id or 0 for frame, _ in frames]
        passed = [number for number in skipped if number < ids[-1]]
        assert sorted(ids + passed) == list(range(ids[-1] + 1))
        assert len(passed) > 2 * len(ids), "20 frames a second, of which two or three are taken"
        greys = [int(np.asarray(frame.image).mean()) for frame, _ in frames]
        assert greys == pytest.approx(ids, abs=2), "each is the frame that its number says"
        times = [frame.time for frame, _ in frames]
        assert times[-1] == pytest.approx((len(frames) - 1) * 0.4, rel=0.3), "by the clock: JPEGs have no times"


def test_every_frame_of_a_live_source_can_be_waited_for() -> None:
    with cameras.jpegs() as camera:
        frames = taken(Video(camera.url, newest=False), 10, pause=0.1)
    assert [frame.frame_id for frame, _ in frames] == list(range(10))


def test_a_camera_that_drops_is_tried_again_and_its_frames_go_on() -> None:
    """Numbers and times grow over all its connections."""
    said: list[str] = []
    with cameras.jpegs(frames=5) as camera:
        frames = taken(Video(camera.url, newest=False, notice=said.append), 12)
    assert [frame.frame_id for frame, _ in frames] == list(range(12))
    times = [frame.time for frame, _ in frames]
    assert times == sorted(set(times))
    assert times[5] - times[4] > 0.2, "the pause before it was tried again"
    assert [line.split(" has ")[-1].split(" after ")[0].split(" (")[0].split()[-1] for line in said[:2]] == [
        "dropped",
        "back",
    ]
    assert "reopening it for 60 s" in said[0]


def test_a_camera_that_is_gone_is_given_up_in_the_end() -> None:
    said: list[str] = []
    with cameras.jpegs(frames=5) as camera:
        frames = iter(Video(camera.url, newest=False, patience=1, notice=said.append))
        next(frames)
        camera.gone = True
        assert sum(1 for _ in itertools.islice(frames, 4)) == 4
        with pytest.raises(LocalError, match=r"dropped \(.*5XX.*\), and could not be reopened within 1 s"):
            next(frames)
    assert len(said) == 1, "once, not at every try"


def test_a_camera_that_is_not_there_is_said_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(LocalError, match=f"cannot open {address}: Connection refused"):
            Video(address)


def test_a_camera_that_goes_silent_has_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SILENCE_SECONDS", 1.0)
    said: list[str] = []
    with cameras.jpegs(frames=5, silent=60) as camera:
        started = time.monotonic()
        taken(Video(camera.url, newest=False, notice=said.append), 6)
    assert 1 < time.monotonic() - started < 10
    assert "no data arrived in time" in said[0]


def test_a_silent_camera_does_not_keep_anyone_from_stopping() -> None:
    with cameras.jpegs(frames=5, silent=60) as camera:
        video = Video(camera.url, newest=False)
        threading.Timer(1.0, video.stop).start()
        started = time.monotonic()
        assert len(list(video)) == 5
    assert time.monotonic() - started < 5


def test_a_camera_over_rtsp_is_live_and_its_password_is_not_told(tmp_path: Path) -> None:
    said: list[str] = []
    with cameras.rtsp(tmp_path / "camera.ts", seconds=2) as address:
        video = Video(address, newest=False, notice=said.append)
        assert video.live
        frames = taken(video, 50)
    assert [frame.frame_id for frame, _ in frames] == list(range(50))
    assert frames[1][0].time - frames[0][0].time == pytest.approx(1 / cameras.RATE, abs=0.001), "the stream's own times"
    assert said
    assert not any("secret" in line or "someone" in line for line in said)


def test_what_is_pushed_over_udp_is_live() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with cameras.pushing(f"udp://127.0.0.1:{port}?pkt_size=1316"):
        frames = taken(Video(f"udp://127.0.0.1:{port}"), 8, pause=0.3)
    assert max(age for _, age in frames[1:]) < 1


def test_a_fifo_is_live_and_its_end_is_the_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with cameras.pushing(str(fifo), "matroska", seconds="1"):
        video = Video(str(fifo), newest=False)
        assert video.live
        assert len(list(video)) == cameras.RATE


def test_a_pipe_into_which_nobody_writes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SILENCE_SECONDS", 0.5)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(LocalError, match="no data for 1 s"):
        Video(str(fifo), patience=1)


def test_hls_without_an_end_is_live_and_shown_as_it_was_filmed(tmp_path: Path) -> None:
    """It comes in pieces; taken as they come, nearly all frames would be too old before anyone could."""
    cameras.transport_stream(tmp_path / "all.ts", "3")
    options = ("-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_flags", "omit_endlist")
    videos.ffmpeg("-i", tmp_path / "all.ts", *options, tmp_path / "live.m3u8")
    assert Video(str(tmp_path / "live.m3u8")).live, "what its folder gets may go on as well"
    with cameras.folder(tmp_path) as address:
        video = Video(f"{address}/live.m3u8")
        assert video.live
        started = time.monotonic()
        frames = taken(video, 30)
    assert time.monotonic() - started == pytest.approx(30 / cameras.RATE, rel=0.4)
    assert [frame.frame_id for frame, _ in frames] == list(range(30))


@pytest.mark.parametrize("name", ["plain.mp4", "plain.ts", "plain.h264", "plain.mkv"])
def test_a_file_over_http_is_a_file(name: str, tmp_path: Path) -> None:
    """Its length is known, so that it waits to be read, and ends."""
    (row,) = (row for row in videos.ROWS if row.name == name)
    row.make(tmp_path / name)
    with cameras.folder(tmp_path) as address:
        video = Video(f"{address}/{name}")
        assert not video.live
        assert len(list(video)) == 10


@pytest.mark.parametrize("how", [{"loop": True}, {"fps": 5.0}])
def test_only_a_file_can_be_played_otherwise(how: dict[str, float]) -> None:
    with cameras.jpegs() as camera, pytest.raises(LocalError, match="is live: only files can be looped or played"):
        Video(camera.url, **how)  # type: ignore[arg-type]  # of one key each


def test_what_this_pyav_does_not_speak_is_said_with_the_way_around() -> None:
    with pytest.raises(
        LocalError, match=r"does not support nope; use a pipe: ffmpeg -i nope://there .* vedette stream -"
    ):
        Video("nope://there")


def test_a_file_that_is_begun_anew_goes_on_in_numbers_and_times(tmp_path: Path) -> None:
    (row,) = (row for row in videos.ROWS if row.name == "variable.mkv")
    row.make(tmp_path / "variable.mkv")
    video = Video(str(tmp_path / "variable.mkv"), loop=True)
    assert video.frames is None
    frames = [frame for frame, _ in taken(video, 12)]
    assert [frame.frame_id for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.3, 0.4, 0.6, 0.9, 1, 1.3, 1.4, 1.6, 1.9, 2, 2.3])


def test_a_video_can_be_read_again(tmp_path: Path) -> None:
    (row,) = (row for row in videos.ROWS if row.name == "plain.mp4")
    row.make(tmp_path / "plain.mp4")
    video = Video(str(tmp_path / "plain.mp4"))
    assert [len(list(video)) for _ in range(2)] == [10, 10]

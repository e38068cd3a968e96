"""`vedette stream`, before and after the model: sources, outputs, what is kept when something ends it."""

import contextlib
import json
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from vedette.v1 import answer_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_client.cli import main

from tests.support import answering, cameras, running, videos
from tests.support.answering import Answering

VEDETTE = [str(running.BIN / "python"), "-c", "from vedette_commands.start import client; client()", "stream"]


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering.server() as answers:
        yield answers


@dataclass
class Ran:
    """The end of a command."""

    status: int
    lines: list[str]  # on standard error
    out: str


Stream = Callable[..., Ran]


@pytest.fixture
def stream(server: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        ran = CliRunner().invoke(main, ["stream", *map(str, arguments), "--server", server.address])
        return Ran(ran.exit_code, ran.stderr.splitlines(), ran.stdout)

    return run


@pytest.fixture
def program(server: Answering, tmp_path: Path) -> Stream:
    """Runs it in a process of its own."""

    def run(*arguments: object, **how: Any) -> Ran:
        command = [*VEDETTE, *map(str, arguments), "--server", server.address]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, **how)
        return Ran(ran.returncode, ran.stderr.splitlines(), ran.stdout)

    return run


@pytest.fixture
def begin(server: Answering, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [*VEDETTE, *map(str, arguments), "--server", server.address]
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    return start


def make(folder: Path, name: str) -> Path:
    """One of the videos of the table."""
    (row,) = (row for row in videos.ROWS if row.name == name)
    row.make(folder / name)
    return folder / name


def long(folder: Path, seconds: str = "60") -> Path:
    path = folder / "long.mp4"
    source = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=10:duration={seconds}")
    videos.ffmpeg(*source, "-c:v", "libx264", "-pix_fmt", "yuv420p", path)
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def named(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_frame_s_line_says_its_number_and_its_time(stream: Stream, server: Answering, tmp_path: Path) -> None:
    ran = stream(make(tmp_path, "variable.mp4"), "--jsonl", "-")
    assert (ran.status, ran.lines) == (0, ["5 frames: 5 answered"])
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert [(one["frame_id"], one["time"]) for one in told] == [(0, 0.0), (1, 0.3), (2, 0.4), (3, 0.6), (4, 0.9)]
    assert [next(iter(one)) for one in told] == ["frame_id"] * 5
    assert server.configs[0].drop_policy == pb.DROP_POLICY_LOSSLESS


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("name", ["variable.mkv", "turned-90-mirrored.mov", "odd.mp4"])
def test_the_saved_video_shows_what_was_answered_when_it_was(
    name: str, suffix: str, stream: Stream, server: Answering, tmp_path: Path
) -> None:
    """The same frames, at the same times, for as long, upright once."""
    source, saved = make(tmp_path, name), tmp_path / "out" / f"saved{suffix}"
    assert stream(source, "--save", saved).status == 0
    shown, wanted = videos.frames(saved), videos.frames(source)
    assert [time for time, _ in shown] == pytest.approx([time for time, _ in wanted], abs=0.001)
    height, width = server.seen[0].shape[:2]
    for (_, pixels), sent in zip(shown, server.seen, strict=True):
        inner = (slice(4, height - 4), slice(40, width - 4))  # neither the box nor its label
        assert np.abs(pixels[inner].astype(int) - sent[inner]).mean() < 12, "but for its coding"
    with av.open(saved) as container, av.open(source) as original:
        assert container.duration is not None
        assert original.duration is not None
        assert container.duration / av.time_base == pytest.approx(original.duration / av.time_base, abs=0.002)


def test_pixels_that_are_wider_than_high_are_so_in_the_saved_video(stream: Stream, tmp_path: Path) -> None:
    stream(make(tmp_path, "wide-pixels.mp4"), "--save", "saved.mp4")
    with av.open(tmp_path / "saved.mp4") as container:
        assert container.streams.video[0].sample_aspect_ratio == pytest.approx(4 / 3)


def test_damaged_frames_are_told_in_their_place_and_not_sent(stream: Stream, server: Answering, tmp_path: Path) -> None:
    ran = stream(make(tmp_path, "holed.mp4"), "--jsonl", "lines.jsonl", "--save", "saved.mp4")
    assert ran.status == 1
    why, counts = ran.lines
    assert counts == "51 frames: 49 answered, 2 damaged; saved saved.mp4, which is partial"
    assert why.endswith("holed.mp4 is damaged: 9 of 60 frames could not be decoded, 2 damaged frames were not sent")
    told = records(tmp_path / "lines.jsonl")
    assert [one["frame_id"] for one in told] == list(range(51))
    damaged = [one for one in told if "error" in one]
    assert [one["error"]["reason"] for one in damaged] == ["FRAME_DAMAGED"] * 2
    assert len(server.seen) == len(videos.frames(tmp_path / "saved.mp4")) == 49


def test_a_video_that_breaks_off_ends_with_a_line_and_its_results_are_kept(stream: Stream, tmp_path: Path) -> None:
    ran = stream(make(tmp_path, "cut.mp4"), "--jsonl", "lines.jsonl", "--save", "saved.mp4")
    assert ran.status == 1
    assert "of 60 frames are missing" in ran.lines[-1]
    assert len(records(tmp_path / "lines.jsonl")) == len(videos.frames(tmp_path / "saved.mp4")) > 20


def test_damage_at_the_very_end_is_told_too(stream: Stream, tmp_path: Path) -> None:
    ran = stream(make(tmp_path, "cut.avi"), "--jsonl", "lines.jsonl")
    assert ran.lines[0] == "3 frames: 2 answered, 1 damaged"
    assert records(tmp_path / "lines.jsonl")[-1]["error"]["reason"] == "FRAME_DAMAGED"


def test_frames_that_fail_fail_the_command(stream: Stream, server: Answering, tmp_path: Path) -> None:
    server.fails = lambda number: number in (3, 5)
    ran = stream(make(tmp_path, "plain.mp4"), "--jsonl", "lines.jsonl")
    assert ran.status == 64 + 13
    assert ran.lines == ["10 frames: 8 answered, 2 failed", "vedette: the first frame that failed: this one"]
    assert [one["frame_id"] for one in records(tmp_path / "lines.jsonl") if "error" in one] == [3, 5]


@pytest.mark.parametrize(("options", "said"), [
    (("--save", "plain.mp4"), "cannot write plain.mp4: this run reads it; name another file"),
    (("--save", "hard.mp4"), "this run reads it"),
    (("--save", "soft.mp4"), "this run reads it"),
    (("--save", "folder/../plain.mp4"), "this run reads it"),
    (("--jsonl", "plain.mp4"), "this run reads it"),
    (("--jsonl", "new.mkv", "--save", "new.mkv"), "this run already writes it"),
    (("--save", "folder"), "a video's name must end in .mp4, .m4v, .mov, .mkv, .ts or .webm"),
    (("--save", "saved.gif"), "cannot write saved.gif: a video's name must end in .mp4, "),
    (("--save", "folder.mp4"), "cannot write folder.mp4: it is a folder"),
    (("--save", "plain.mp4/saved.mp4"), "plain.mp4 is not a folder"),
    (("--jsonl", "folder"), "cannot write folder: it is a folder"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_before_the_first_frame(
    options: tuple[str, ...], said: str, stream: Stream, server: Answering, tmp_path: Path
) -> None:
    source = make(tmp_path, "plain.mp4")
    before = source.read_bytes()
    for folder in ("folder", "folder.mp4"):
        (tmp_path / folder).mkdir()
    (tmp_path / "hard.mp4").hardlink_to(source)
    (tmp_path / "soft.mp4").symlink_to(source)
    names = named(tmp_path)
    ran = stream("plain.mp4", *options)
    assert ran.status == 1
    (line,) = ran.lines
    assert said in line
    assert source.read_bytes() == before
    assert named(tmp_path) == names, "nothing is left behind"
    assert not server.seen


def test_what_can_be_asked_of_a_picture_can_be_of_a_video(stream: Stream, server: Answering, tmp_path: Path) -> None:
    ask = ("--model", "signs", "--version", "2", "--threshold", "0.25", "--classes", "stop,yield")
    ran = stream(make(tmp_path, "plain.mp4"), *ask, "--max-detections", "3", "--outputs", "boxes")
    assert ran.status == 0
    config = server.configs[0]
    assert (config.model_name, config.model_version) == ("signs", "2")
    asked = config.options
    assert (asked.threshold, list(asked.class_names), asked.max_detections) == (0.25, ["stop", "yield"], 3)
    assert list(asked.outputs) == [answer_pb2.OUTPUT_KIND_BOXES]


@pytest.mark.parametrize("value", ["nan", "0", "-5", "inf", "fast"])
def test_a_rate_that_is_none_is_wrong_usage(value: str, stream: Stream, tmp_path: Path) -> None:
    ran = stream(make(tmp_path, "plain.mp4"), "--fps", value)
    assert ran.status == 2
    assert len(ran.lines) == 1


def test_an_older_file_stays_where_nothing_takes_its_place(stream: Stream, server: Answering, tmp_path: Path) -> None:
    for name in ("lines.jsonl", "saved.mp4"):
        (tmp_path / name).write_text("older")
    server.address = "127.0.0.1:1"
    ran = stream(make(tmp_path, "plain.mp4"), "--jsonl", "lines.jsonl", "--save", "saved.mp4")
    assert ran.status == 64 + 14
    assert "nothing to save" in ran.lines[0]
    assert named(tmp_path) == {"lines.jsonl", "saved.mp4", "plain.mp4"}
    assert {(tmp_path / name).read_text() for name in ("lines.jsonl", "saved.mp4")} == {"older"}


def test_what_is_partial_takes_no_older_video_s_place(stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "saved.mp4").write_text("older")
    ran = stream(make(tmp_path, "cut.mp4"), "--save", "saved.mp4")
    assert "; saved saved-partial.mp4, which is partial" in ran.lines[0]
    assert (tmp_path / "saved.mp4").read_text() == "older"
    assert len(videos.frames(tmp_path / "saved-partial.mp4")) > 20
    assert stream(make(tmp_path, "plain.mp4"), "--save", "saved.mp4").status == 0
    assert len(videos.frames(tmp_path / "saved.mp4")) == 10, "what is whole does"


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_a_file_early_and_results_are_kept(
    number: signal.Signals, word: str, begin: Callable[..., subprocess.Popen[str]], server: Answering, tmp_path: Path
) -> None:
    """One line, the exit code of the signal, whole lines, and a video that can be played."""
    server.pause = 0.02
    lines = tmp_path / "lines.jsonl"
    with begin(long(tmp_path), "--jsonl", lines, "--save", "saved.mp4") as process:
        running.wait_for(lambda: lines.exists() and len(lines.read_text().splitlines()) > 20, "twenty frames")
        process.send_signal(number)
        _, told = process.communicate(timeout=running.PATIENCE)
    assert process.returncode == 128 + number, told
    count = len(records(lines))
    assert told == f"vedette: {word}: {count} frames: {count} answered; saved saved.mp4, which is partial\n"
    assert len(videos.frames(tmp_path / "saved.mp4")) == count < 600
    assert not any(name.startswith(".") for name in named(tmp_path))


def test_ctrl_c_ends_a_camera_in_good_order(
    begin: Callable[..., subprocess.Popen[str]], server: Answering, tmp_path: Path
) -> None:
    """There is no other end: it is a success. A live source is looked at as fast as it comes."""
    lines = tmp_path / "lines.jsonl"
    with cameras.jpegs() as camera, begin(camera.url, "--jsonl", lines, "--save", "saved.mkv") as process:
        running.wait_for(lambda: lines.exists() and len(lines.read_text().splitlines()) > 10, "ten frames")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=running.PATIENCE)
    assert process.returncode == 0, told
    assert re.fullmatch(r"\d+ frames: .*; saved saved.mkv\n", told)
    assert server.configs[0].drop_policy == pb.DROP_POLICY_LATEST
    answered = [one for one in records(lines) if "detections" in one]
    assert len(videos.frames(tmp_path / "saved.mkv")) == len(answered)


def test_a_camera_that_is_lost_is_said_and_results_are_kept(stream: Stream, tmp_path: Path) -> None:
    with cameras.jpegs(frames=5) as camera:
        ran = stream(camera.url, "--reconnect", "0", "--jsonl", "lines.jsonl", "--save", "saved.mp4")
    assert ran.status == 1
    assert re.search(r"dropped \(Input/output error\), and could not be reopened within 0 s", ran.lines[-1])
    answered = [one for one in records(tmp_path / "lines.jsonl") if "detections" in one]
    assert len(videos.frames(tmp_path / "saved.mp4")) == len(answered) > 0


def test_what_a_slow_server_has_no_time_for_is_told_as_dropped(
    program: Stream, server: Answering, tmp_path: Path
) -> None:
    """Every frame that came has its line, in order."""
    server.pause = 0.3
    with cameras.pushing("-", "matroska", seconds="3") as process:
        ran = program("-", "--jsonl", "lines.jsonl", stdin=process.stdout)
    assert ran.status == 0, ran.lines
    told = records(tmp_path / "lines.jsonl")
    assert [one["frame_id"] for one in told] == list(range(3 * cameras.RATE))
    dropped = [one for one in told if one.get("dropped") == "SUPERSEDED"]
    answered = [one for one in told if "detections" in one]
    assert len(dropped) + len(answered) == len(told)
    assert len(dropped) > len(answered)


def test_a_file_on_standard_input_is_a_file(program: Stream, server: Answering, tmp_path: Path) -> None:
    with make(tmp_path, "plain.mp4").open("rb") as file:
        ran = program("-", "--save", "plain.mp4", stdin=file)
        assert "this run reads it" in ran.lines[0]
        assert program("-", stdin=file).lines == ["10 frames: 10 answered"]
    assert server.configs[0].drop_policy == pb.DROP_POLICY_LOSSLESS


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Files can be so large, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_results_are_kept(stream: Stream, tmp_path: Path) -> None:
    """Of lines, whole ones; of a video, what was written, which can be played."""
    source = tmp_path / "noise.mp4"
    noise = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10:duration=6", "-vf", "noise=alls=60:allf=t")
    videos.ffmpeg(*noise, "-c:v", "libx264", "-pix_fmt", "yuv420p", source)
    with limited(300_000):
        ran = stream(source, "--save", "saved.mp4")
    assert (ran.status, len(ran.lines)) == (1, 2), ran.lines
    assert ran.lines[0].endswith("; saved saved.mp4, which is partial")
    assert ran.lines[1] == "vedette: cannot write saved.mp4: File too large"
    assert 5 < len(videos.frames(tmp_path / "saved.mp4")) < 60
    with limited(5_000):
        ran = stream(source, "--jsonl", "lines.jsonl")
    assert (ran.status, ran.lines[1:]) == (1, ["vedette: cannot write lines.jsonl: File too large"])
    assert len(records(tmp_path / "lines.jsonl")) > 10
    ran = stream(source, "--jsonl", "/dev/full")
    assert (ran.status, ran.lines[1:]) == (1, ["vedette: cannot write /dev/full: No space left on device"])


def test_a_name_is_text_and_no_markup(stream: Stream, tmp_path: Path) -> None:
    odd = tmp_path / "[red]a [b]:1.mp4"
    make(tmp_path, "plain.mp4").rename(odd)
    assert stream(odd.name).lines == ["10 frames: 10 answered"]
    assert stream(f"{odd.name}.mkv").lines == [f"vedette: cannot open {odd.name}.mkv: No such file or directory"]


def test_nobody_reads_the_lines_any_more(server: Answering, tmp_path: Path) -> None:
    """As with `| head -1`: quietly, and what is saved is kept."""
    server.pause = 0.02
    command = [*VEDETTE, str(long(tmp_path)), "--jsonl", "-", "--save", "saved.mp4", "--server", server.address]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        told = process.stderr.read()
        assert process.wait(running.PATIENCE) == 128 + signal.SIGPIPE
    assert b"Traceback" not in told
    assert videos.frames(tmp_path / "saved.mp4")


def test_ctrl_c_does_not_wait_for_an_address_that_does_not_answer(begin: Callable[..., subprocess.Popen[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with begin(f"http://127.0.0.1:{silent.getsockname()[1]}/") as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            _, told = process.communicate(timeout=running.PATIENCE)
        connection.close()
    assert (process.returncode, told) == (130, "vedette: interrupted\n")
    assert time.monotonic() - started < 5

"""`vedette detect` on what people have: folders, patterns, pipes, odd names, full disks, servers that are gone."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vedette_client.client import DEFAULT_TIMEOUT
from vedette_server.demo import scenes

from tests.support import commands, running


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pictures: the first has signs, the second has none."""
    folder = tmp_path_factory.mktemp("drawn")
    paths = []
    for seed, name in ((3_000_001, "signs.png"), (3_000_023, "quiet.png")):
        paths.append(folder / name)
        Image.fromarray(scenes.draw(scenes.describe(seed)).pixels).save(paths[-1])
    return paths


@pytest.fixture(autouse=True)
def here(bundled: running.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and the server to ask."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VEDETTE_SERVER", bundled.address)
    return tmp_path


def put(source: Path, *targets: str | bytes) -> None:
    for target in map(Path, map(os.fsdecode, targets)):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def images(ran: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [json.loads(line)["image"] for line in ran.stdout.splitlines()]


def detect(*arguments: str | os.PathLike[str] | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return commands.run(commands.CLIENT, "detect", *arguments, **options)


def test_a_folder_is_all_pictures_below_it(here: Path, drawn: list[Path]) -> None:
    put(
        drawn[1], "f/b.PNG", "f/a.png", "f/sub/c.jpeg", "f/.hidden.png", "f/.git/d.png", "f/__MACOSX/e.png", "f/._a.png"
    )
    (here / "f" / "notes.txt").write_text("no picture")
    (here / "f" / "Thumbs.db").write_bytes(b"no picture")
    (here / "f" / "loop").symlink_to(here / "f")
    ran = detect("f", "--json")
    assert ran.returncode == 0, ran.stderr
    assert images(ran) == ["f/a.png", "f/b.PNG", "f/sub/c.jpeg"]


def test_patterns_are_understood_and_names_are_taken_as_they_are(drawn: list[Path]) -> None:
    put(drawn[1], "a1.png", "a2.png", "[red].png", "deep/er/a3.png", "no suffix")
    assert images(detect("a?.png", "[red].png", "**/a3.png", "no suffix", "--json")) == [
        *("a1.png", "a2.png", "[red].png", "deep/er/a3.png", "no suffix")
    ]
    ran = detect("b*.png", "a1.png", "--json")
    assert (ran.returncode, images(ran)) == (1, ["a1.png"])
    assert ran.stderr == b"vedette: b*.png: no file has this name or matches it\n"


def test_a_folder_without_pictures_is_told(here: Path) -> None:
    (here / "none").mkdir()
    ran = detect("none")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.startswith(b"vedette: none: it contains no pictures (.avif, ")


def test_standard_input_is_a_picture(here: Path, drawn: list[Path]) -> None:
    ran = detect("-", "--json", "--save", "out", given=drawn[0].read_bytes())
    assert (ran.returncode, images(ran)) == (0, ["-"]), ran.stderr
    assert (here / "out" / "stdin.png").is_file()
    assert detect("-", "-").returncode == 2
    empty = detect("-", given=b"")
    assert (empty.returncode, empty.stderr.startswith(b"vedette: -: IMAGE_MISSING")) == (67, True)
    with commands.start("client", "detect", drawn[1], stdin=None, stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=running.PATIENCE)[0].splitlines()[1].startswith(b"quiet.png  nothing: quiet")


@pytest.mark.parametrize(
    "name", ["[red].png", "[/x].png", "\x1b[31mred.png", "a\nb.png", "é \u202e.png", b"\xff\xfe.png"]
)
def test_names_are_shown_as_they_are_and_command_no_terminal(name: str | bytes, here: Path, drawn: list[Path]) -> None:
    put(drawn[0], name)
    for flags in (("--save", "out"), ("--json", "--save", "out")):
        ran = detect(name, *flags)
        assert ran.returncode == 0, ran.stderr
        shown = ran.stdout + ran.stderr
        assert b"\x1b" not in shown
        assert "\u202e" not in shown.decode()
        assert len(ran.stderr.splitlines()) == 1
    told = json.loads(ran.stdout)["image"]
    assert told == (name if isinstance(name, str) else r"\xff\xfe.png")
    assert len(list((here / "out").iterdir())) == 1


def test_nothing_that_is_read_is_written_over(here: Path, drawn: list[Path]) -> None:
    put(drawn[0], "a.png", "b/a.png")
    (here / "linked").symlink_to(here)
    before = hashlib.sha256((here / "a.png").read_bytes()).digest()
    for folder in (".", str(here), "b/..", "linked"):
        ran = detect("a.png", "b/a.png", "--save", folder)
        assert (ran.returncode, ran.stdout) == (1, b"")
        assert ran.stderr.startswith(b"vedette: cannot write "), "nothing is sent first"
        assert hashlib.sha256((here / "a.png").read_bytes()).digest() == before


def test_two_of_one_name_are_two_files(here: Path, drawn: list[Path]) -> None:
    put(drawn[0], "a/x.png", "b/x.png", "f/x.png", "f/sub/x.png")
    ran = detect("a/x.png", "b/x.png", "f", "a/x.png", "--save", "out", "--json")
    assert ran.returncode == 0, ran.stderr
    saved = [json.loads(line)["saved"] for line in ran.stdout.splitlines()]
    assert saved == [f"out/{name}" for name in ("x.png", "x-2.png", "x-3.png", "sub/x.png", "x-4.png")]
    written = sorted(str(path.relative_to(here / "out")) for path in (here / "out").rglob("*") if path.is_file())
    assert written == ["sub/x.png", "x-2.png", "x-3.png", "x-4.png", "x.png"], "whole, and nothing beside them"
    assert detect("f", "--save", "out").returncode == 0, "what an earlier run left is replaced"


@pytest.mark.parametrize("folder", ["/proc/no", "a.png", "a.png/b", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_sent(folder: str, drawn: list[Path]) -> None:
    put(drawn[0], "a.png")
    ran = detect("a.png", "--save", folder, "--server", "127.0.0.1:9")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.startswith(b"vedette: cannot write into ")
    assert len(ran.stderr.splitlines()) == 1


def test_a_full_disk_is_one_line(drawn: list[Path]) -> None:
    for flags in ((), ("--json",)):
        with Path("/dev/full").open("wb") as full:
            ran = detect(*drawn, *flags, stdout=full)
        assert (ran.returncode, ran.stderr) == (1, b"vedette: cannot write: No space left on device\n")


def test_whoever_reads_no_further_ends_it_quietly(drawn: list[Path]) -> None:
    put(drawn[1], *(f"many/{number}.png" for number in range(40)))
    with commands.start(
        "client", "detect", "many", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b'{"image": "many/0.png"')
        process.stdout.close()
        assert (process.stderr.read(), process.wait(running.PATIENCE)) == (b"", 128 + signal.SIGPIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_there_when_it_is_ended_stays(number: signal.Signals, here: Path, drawn: list[Path]) -> None:
    put(drawn[1], *(f"many/{number:03}.png" for number in range(200)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with commands.start("client", "detect", "many", "--json", "--save", "out", **pipes) as process:
        assert process.stdout
        first = [process.stdout.readline() for _ in range(5)]
        process.send_signal(number)
        out, err = process.communicate(timeout=running.PATIENCE)
    assert process.returncode == 128 + number
    lines = [*first, *out.splitlines()]
    assert [json.loads(line)["image"] for line in lines] == [f"many/{number:03}.png" for number in range(len(lines))]
    *saved, told = err.decode().splitlines()
    word = "interrupted" if number is signal.SIGINT else "terminated"
    done = re.fullmatch(f"vedette: {word}: (\\d+) of 200 pictures are done", told)
    assert done, told
    assert abs(int(done[1]) - len(lines)) <= 1, "one may just have been told"
    assert all(line.startswith("saved ") for line in saved)
    assert not [path for path in (here / "out").iterdir() if ".part" in path.name]


def test_results_come_as_they_are_there(drawn: list[Path]) -> None:
    """The first row is out before the last picture is there at all: it comes through a pipe."""
    os.mkfifo("late.png")
    with commands.start("client", "detect", drawn[0], "late.png", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert b"class" in process.stdout.readline()
        assert process.stdout.readline().startswith(b"signs.png  stop ")
        put(drawn[1], "late.png")
        out, _ = process.communicate(timeout=running.PATIENCE)
    assert out.startswith(b"late.png   nothing: quiet scene")
    assert process.returncode == 0


def test_a_server_that_is_gone_is_told_once(drawn: list[Path]) -> None:
    put(drawn[1], *(f"many/{number}.png" for number in range(1500)))
    started = time.monotonic()
    ran = detect("many", "--server", "127.0.0.1:9", "--json")
    assert (ran.returncode, ran.stdout) == (64 + 14, b"")
    (line,) = ran.stderr.decode().splitlines()
    assert line.startswith("vedette: no server answers at 127.0.0.1:9 ")
    assert line.endswith(" (the other 1499 of 1500 pictures are skipped)")
    assert time.monotonic() - started < 20


def test_a_server_that_goes_meanwhile_is_told_once(drawn: list[Path]) -> None:
    put(drawn[1], *(f"many/{number:03}.png" for number in range(300)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        running.server("--threads", "1") as server,
        commands.start("client", "detect", "many", "--json", "--server", server.address, **pipes) as process,
    ):
        assert process.stdout
        assert process.stdout.readline()
        server.process.kill()
        out, err = process.communicate(timeout=running.PATIENCE)
    assert process.returncode == 64 + 14, err
    (line,) = err.decode().splitlines()
    left = 300 - 1 - len(out.splitlines()) - 1
    assert line.endswith(f"(the other {left} of 300 pictures are skipped)")


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_says_nothing_is_told_once(mute: str, drawn: list[Path]) -> None:
    ran = detect(*drawn, *drawn, "--server", mute, "--timeout", "1")
    assert ran.returncode in (64 + 4, 64 + 14)
    (line,) = ran.stderr.decode().splitlines()
    assert line.endswith("(the other 3 of 4 pictures are skipped)")


def test_a_diagnosis_waits_as_long_as_it_is_told(mute: str, drawn: list[Path]) -> None:
    asked = ("diagnose", drawn[0], "--server", mute, "--timeout", "1")
    ran = commands.run(commands.CLIENT, *asked, patience=DEFAULT_TIMEOUT - 5)
    assert ran.returncode in (64 + 4, 64 + 14)


def test_what_cannot_be_asked_is_told_once(drawn: list[Path]) -> None:
    ran = detect(*drawn, "--threshold", "2")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.startswith(b"vedette: THRESHOLD_OUT_OF_RANGE: ")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(("flags", "status", "said"), [
    (("--classes", "stop,nothing"), 67, "CLASS_UNKNOWN"),
    (("--max-detections", "100000"), 67, "MAX_DETECTIONS_INVALID"),
    (("--outputs", "panoptic"), 67, "OUTPUT_NOT_PRODUCED"),
    (("--model", "nobody"), 69, "MODEL_NOT_FOUND"),
    (("--version", "77"), 69, "MODEL_VERSION_NOT_FOUND"),
])  # fmt: skip
def test_what_is_asked_wrongly_is_told_once(flags: tuple[str, ...], status: int, said: str, drawn: list[Path]) -> None:
    ran = detect(*drawn, *flags)
    assert (ran.returncode, ran.stdout) == (status, b"")
    (line,) = ran.stderr.decode().splitlines()
    assert said in line
    assert line.endswith("(the other 1 of 2 pictures are skipped)")


def test_what_is_asked_is_answered(drawn: list[Path]) -> None:
    def found(*flags: str) -> list[dict[str, object]]:
        ran = detect(drawn[0], "--json", *flags)
        assert ran.returncode == 0, ran.stderr
        line = json.loads(ran.stdout)
        assert (line["width"], line["height"]) == (512, 384)
        detections: list[dict[str, object]] = line["detections"]
        return detections

    assert [item["class"] for item in found("--classes", "stop,1", "--version", "1")] == ["stop"]
    assert not found("--classes", "yield")
    assert not found("--threshold", "1")
    assert [item["mask"] for item in found("--outputs", "boxes", "--max-detections", "1")] == [None]


def test_transparency_and_orientation_are_as_they_are_asked(drawn: list[Path]) -> None:
    with Image.open(drawn[0]) as picture:
        see_through = picture.convert("RGBA")
        see_through.putalpha(120)
        see_through.save("alpha.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save("turned.jpg", exif=exif, quality=95)
    assert b"ALPHA_NOT_DROPPED" in detect("alpha.png").stderr
    assert images(detect("alpha.png", "--drop-alpha", "--json")) == ["alpha.png"]
    assert b"IMAGE_NOT_UPRIGHT" in detect("turned.jpg", "--orientation", "refuse").stderr
    for way, size in (("apply", (384, 512)), ("ignore", (512, 384))):
        line = json.loads(detect("turned.jpg", "--orientation", way, "--json", "--save", way).stdout)
        assert (line["width"], line["height"]) == size
        with Image.open(Path(way) / "turned.png") as saved:
            assert saved.size == size


def test_one_that_cannot_be_read_does_not_stop_the_others(here: Path, drawn: list[Path]) -> None:
    (here / "text.png").write_text("hello")
    (here / "empty.png").touch()
    put(drawn[1], "z.png")
    ran = detect("text.png", "empty.png", "missing.png", "/dev/zero", "", "z.png", "--json")
    assert (ran.returncode, images(ran)) == (67, ["z.png"]), "the first failure's code"
    assert [line.split(b": ")[1] for line in ran.stderr.splitlines()] == [
        *(b"text.png", b"empty.png", b"missing.png", b"/dev/zero", b"")
    ]


WATCHED = """
import atexit, resource, sys
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
from vedette_commands.start import client
client()
"""


def test_many_take_no_more_memory_than_few(here: Path, drawn: list[Path]) -> None:
    def most(count: int) -> float:
        """The most that a run has held, in MiB."""
        (here / f"n{count}").mkdir()
        for number in range(count):
            (here / f"n{count}" / f"{number}.bmp").symlink_to(here / "large.bmp")
        command = [sys.executable, "-c", WATCHED, "detect", f"n{count}"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split()[-1]) / 1024

    Image.open(drawn[1]).resize((1600, 1200)).save("large.bmp")  # 5.8 MB
    few, many = most(6), most(24)
    assert many - few < 50, "of 100 MB that were sent in between"

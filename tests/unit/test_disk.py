"""Files that others have made are opened only if they are regular, within their folder and within limits."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from vedette_server.contract import disk
from vedette_server.contract.loading import Check, LoadRefusedError


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 50 * 10**9)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "is a FIFO"),
    "a folder": (Path.mkdir, "is a folder"),
    "a socket": (listening, "is a socket"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "leads out of"),
    "a file elsewhere": (lambda path: path.symlink_to("/etc/hostname"), "leads out of"),
    "a file above": (lambda path: path.symlink_to("../above"), "leads out of"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "is a link that leads to itself"),
    "a sparse file": (
        sparse,
        "has 50000000000 bytes, but the limit",
    ),
    "one byte too many": (
        lambda path: path.write_bytes(bytes(11)),
        "has 11 bytes, but the limit for such a file is 10",
    ),
}


REMEDIES = {"leads out of": "put a copy of it into /", "has ": "give a smaller one$"}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_opened_is_told(what: str, tmp_path: Path) -> None:
    make, told = REFUSED[what]
    (tmp_path / "above").write_bytes(b"x")
    (tmp_path / "here").mkdir()
    make(tmp_path / "here" / "file")
    path = tmp_path / "here" / "file"
    remedy = next((one for start, one in REMEDIES.items() if told.startswith(start)), "replace it by the file itself$")
    with pytest.raises(LoadRefusedError, match=f"^FILE_UNUSABLE: {path} {told}.*; {remedy}") as caught:
        disk.contents(path, 10, tmp_path / "here")
    assert caught.value.check is Check.FILE_UNUSABLE


def test_a_device_is_no_file_wherever_it_may_lie() -> None:
    with pytest.raises(LoadRefusedError, match="is a device"):
        disk.contents(Path("/dev/zero"), 10)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"0123456789")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("real")
    assert disk.contents(tmp_path / "one", 10, tmp_path) == b"0123456789"


def test_what_is_not_there_is_the_systems_to_say(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.contents(tmp_path / "nothing", 10, tmp_path)


def test_a_file_may_grow_while_it_is_read() -> None:
    """As the kernel's own do, whose size is 0 until then."""
    path = Path("/proc/self/status")
    with pytest.raises(LoadRefusedError, match=f"^FILE_UNUSABLE: {path} has 11 bytes, but the limit .* is 10; give"):
        disk.contents(path, 10)


def test_a_name_that_no_file_can_have_is_told() -> None:
    with pytest.raises(LoadRefusedError, match=r"^FILE_UNUSABLE: a\x00b has a name with a null byte; replace"):
        disk.contents(Path("a\0b"), 10)
    with pytest.raises(LoadRefusedError, match="is a name that is too long"):
        disk.contents(Path("a" * 5_000), 10)

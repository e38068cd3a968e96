"""Files of the commands: never written over what the run read or wrote, never half over an older file."""

import os
from pathlib import Path

import pytest
from vedette_client import LocalError
from vedette_client.outputs import ClientOutputs


@pytest.mark.parametrize("name", ["a.png", "hard.png", "soft.png", "folder/../a.png", "linked/a.png"])
def test_what_is_read_is_not_written_over_under_any_name(name: str, tmp_path: Path) -> None:
    """A hard link, a symbolic link, a detour and a linked folder all lead to the file that is read."""
    source = tmp_path / "a.png"
    source.write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "hard.png").hardlink_to(source)
    (tmp_path / "soft.png").symlink_to(source)
    (tmp_path / "linked").symlink_to(tmp_path)
    outputs = ClientOutputs()
    outputs.reads(source)
    with pytest.raises(LocalError, match=r"this run reads it; name another file$"):
        outputs.write(tmp_path / name, b"theirs")
    assert source.read_bytes() == b"mine"


def test_what_is_written_is_not_written_over_in_the_same_run(tmp_path: Path) -> None:
    """Two inputs of one name do not become one output."""
    outputs = ClientOutputs()
    outputs.write(tmp_path / "a.png", b"first")
    with pytest.raises(LocalError, match="already written it"):
        outputs.write(tmp_path / "." / "a.png", b"second")
    assert (tmp_path / "a.png").read_bytes() == b"first"
    assert ClientOutputs().write(tmp_path / "a.png", b"of the next run").read_bytes() == b"of the next run"


def test_two_files_are_not_on_their_way_to_one_name(tmp_path: Path) -> None:
    """The second is refused before it is written, unless the first is given up."""
    outputs = ClientOutputs()
    first = outputs.begin(tmp_path / "a.png")
    with pytest.raises(LocalError, match="already writes it"):
        outputs.begin(tmp_path / "." / "a.png")
    first.discard()
    outputs.begin(tmp_path / "a.png").finish()
    with pytest.raises(LocalError, match="already written it"):
        outputs.begin(tmp_path / "a.png")


def test_what_is_not_whole_takes_no_older_file_s_place(tmp_path: Path) -> None:
    """It is kept beside it; where there is none, under its own name."""
    (tmp_path / "older.mp4").write_bytes(b"older")
    for name in ("older.mp4", "none.mp4"):
        part = ClientOutputs().begin(tmp_path / name)
        part.path.write_bytes(b"half")
        kept = part.finish(whole=False)
        assert kept.read_bytes() == b"half"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.mp4", "older-partial.mp4", "older.mp4"]
    assert (tmp_path / "older.mp4").read_bytes() == b"older"


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """An abandoned file leaves the older one, and nothing beside it."""
    target = tmp_path / "a.mp4"
    target.write_bytes(b"older")
    part = ClientOutputs().begin(target)
    assert part.path.suffix == ".mp4"  # by which a container is chosen
    part.path.write_bytes(b"half")
    assert target.read_bytes() == b"older"
    part.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert target.read_bytes() == b"older"


def test_a_link_stays_a_link_and_modes_are_kept(tmp_path: Path) -> None:
    """The file that the link names is the one that is replaced."""
    target, link = tmp_path / "a.png", tmp_path / "link.png"
    target.write_bytes(b"older")
    target.chmod(0o600)
    link.symlink_to(target)
    ClientOutputs().write(link, b"newer")
    assert link.is_symlink()
    assert target.read_bytes() == b"newer"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_folder_is_made_and_a_long_name_fits(tmp_path: Path) -> None:
    """A name of as many bytes as a folder takes still has room beside it."""
    target = tmp_path / "some" / "where" / ("ä" * 125 + ".png")
    assert ClientOutputs().write(target, b"x").read_bytes() == b"x"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(("path", "why"), [
    ("folder", "it is a folder"), ("a.png/b.png", "a.png is not a folder"),
    ("a.png/b/c.png", "a.png/b is not a folder"), ("n" * 300, "File name too long"),
    ("nul\0.png", "null"), ("/proc/no/such", "No such file"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_with_the_reason(path: str, why: str, tmp_path: Path) -> None:
    """One line, whatever the operating system objects to."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(LocalError, match=rf"cannot write .*: .*({why})"):
        ClientOutputs().write(tmp_path / path, b"x")


def test_a_write_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming needs the folder's permission alone; the file's own counts too."""
    target = tmp_path / "a.png"
    target.write_bytes(b"mine")
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests may be root, who may write all
    with pytest.raises(LocalError, match="write-protected"):
        ClientOutputs().write(target, b"theirs")


def test_devices_are_written_directly() -> None:
    """A device has no name to take, and may be written more than once."""
    outputs = ClientOutputs()
    outputs.reads("/dev/null")
    assert outputs.write(Path("/dev/null"), b"x") == Path("/dev/null")
    assert outputs.write(Path("/dev/null"), b"x") == Path("/dev/null")
    with pytest.raises(LocalError, match="No space left on device"):
        outputs.write(Path("/dev/full"), b"x")

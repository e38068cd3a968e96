"""The users behind connections, files that lease or forbid, and the regions of many callers."""

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from vedette_server.access import peers
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc import regions, shared_files
from vedette_server.rpc.regions import Place, Region, Regions
from vedette_server.rpc.shared_files import Piece, SharedFile, UnfitFileError

from tests.support.shared import FOLDER, memory, new_name

OWN = os.geteuid()


@contextlib.contextmanager
def connected(listening: str, to: str) -> Iterator[tuple[socket.socket, int]]:
    """A client's end of a connection, and its port."""
    family = socket.AF_INET6 if ":" in listening else socket.AF_INET
    client = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
    with socket.create_server((listening, 0), family=family, dualstack_ipv6=listening == "::") as server, client:
        client.connect((to, server.getsockname()[1]))
        with server.accept()[0]:
            yield client, client.getsockname()[1]


@pytest.mark.parametrize(
    ("listening", "to", "peer"),
    [
        ("127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1:{}"),
        ("::1", "::1", "ipv6:%5B::1%5D:{}"),
        ("::", "127.0.0.1", "ipv6:[::ffff:127.0.0.1]:{}"),
        ("::", "::ffff:127.0.0.1", "ipv4:127.0.0.1:{}"),
    ],
)
def test_the_kernel_names_the_user_of_a_connection(listening: str, to: str, peer: str) -> None:
    with connected(listening, to) as (client, port):
        assert peers.user(peer.format(port)) == OWN
        client.close()
        assert peers.user(peer.format(port)) is None, "the tables name root for connections that close"


@pytest.mark.skipif(OWN != 0, reason="only root can make sockets of other users")
def test_a_connection_of_another_user_is_not_the_server_s() -> None:
    with connected("127.0.0.1", "127.0.0.1") as (client, port):
        os.fchown(client.fileno(), 12345, -1)
        assert peers.user(f"ipv4:127.0.0.1:{port}") == 12345


def test_a_port_that_users_share_names_nobody() -> None:
    with connected("127.0.0.1", "127.0.0.1") as (_client, port):
        assert peers.user(f"ipv4:192.0.2.1:{port}") is None
        assert peers.user("ipv4:nonsense:1") is None
    assert peers.user("unix:") == OWN


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("unix", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("::1", True),
        ("[::ffff:127.0.0.1]", True),
        ("[::ffff:10.0.0.1]", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  an address like any other
        ("[fe80::1]", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_the_loopback_and_unix_sockets_are_here(host: str, *, here: bool) -> None:
    assert peers.is_here(host) is here


def test_an_owner_s_lease_keeps_nobody_waiting() -> None:
    """The kernel would have others wait for most of a minute, until the owner lets go."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which it asks the owner to
    path = FOLDER / new_name()
    path.write_bytes(bytes(100))
    try:
        file, size = shared_files.find(path.name, OWN)
        assert size == 100
        with path.open("r+b") as owner:
            fcntl.fcntl(owner, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(UnfitFileError, match=r"cannot open .* to read it"):
                shared_files.read(file, 0, 100)
        assert shared_files.read(file, 0, 100) == bytes(100)
    finally:
        path.unlink()
        signal.signal(signal.SIGIO, before)


def test_a_file_belongs_to_its_caller() -> None:
    with memory(100) as made, pytest.raises(UnfitFileError, match="belongs to the user"):
        shared_files.find(made.name, OWN + 1)


def test_all_parts_are_written_or_none() -> None:
    with memory(100) as made:
        file, _ = shared_files.find(made.name, OWN)
        with pytest.raises(UnfitFileError, match="has 100 bytes, and 101 are needed"):
            shared_files.write([Piece(file, 0, b"xy"), Piece(file, 99, b"xy")])
        assert made.bytes() == bytes(100)
        shared_files.write([Piece(file, 0, b"xy"), Piece(file, 98, b"zz"), Piece(file, 100, b"")])
        assert made.bytes() == b"xy" + bytes(96) + b"zz"


def region(name: str, inode: int = 1, offset: int = 0) -> Region:
    return Region(name=name, key=name, offset=offset, byte_size=100, file=SharedFile("x", OWN, 1, inode))


def test_places_overlap_by_their_bytes_not_by_their_names() -> None:
    first = Place(region("a"), 0, 10)
    assert first.overlaps(Place(region("b"), 9, 10))
    assert first.overlaps(Place(region("b", offset=5), 0, 10))
    assert not first.overlaps(Place(region("b"), 10, 10))
    assert not first.overlaps(Place(region("b", inode=2), 0, 10))


def test_a_caller_has_so_many_regions_and_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MOST_REGIONS", 2)
    monkeypatch.setattr(regions, "MOST_OF_ALL", 3)
    kept = Regions()
    for caller, name in (("gate", "a"), ("gate", "b"), ("yard", "a")):
        kept.add(caller, region(name))
    for caller, seen in (("gate", "2"), ("yard", "1"), ("new", "0")):
        with pytest.raises(Refused) as caught:
            kept.add(caller, region("c"))
        assert caught.value.reason is Reason.REGIONS_EXCEEDED
        assert caught.value.facts["has"] == seen
    kept.remove("gate", "")
    kept.add("yard", region("c"))
    kept.remove("yard", "c")
    kept.remove("nobody", "c")
    assert [one.name for one in kept.of("yard")] == ["a"]
    assert kept.of("gate") == []

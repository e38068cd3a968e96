"""Every way to write where a server is: read as it is meant, or refused in a line, and never guessed at."""

import ipaddress
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vedette_client import AsyncClient, Client, LocalError, NoConnection, Tls, address, channel
from vedette_server import addresses
from vedette_server.addresses import Tcp, Unix

from tests.support import running


@pytest.mark.parametrize(("text", "read"), [
    ("127.0.0.1:8001", "127.0.0.1:8001"),
    ("vedette.example:9", "vedette.example:9"),
    ("Vedette_1.Example.:9", "vedette_1.example.:9"),
    ("vedette", "vedette:8001"),
    ("10.0.0.1", "10.0.0.1:8001"),
    ("[::1]:8001", "[::1]:8001"),
    ("[::1]", "[::1]:8001"),
    ("[0:0::1]:9", "[::1]:9"),
    ("[fe80::1%eth0]:9", "[fe80::1%eth0]:9"),
    ("http://h:9", "h:9"),
    ("http://h:9/", "h:9"),
    ("HTTP://[::1]:9", "[::1]:9"),
    ("grpc://h", "h:8001"),
    ("grpc://h:9", "h:9"),
    ("grpcs://h", "grpcs://h:8001"),
    ("GRPCS://[::1]:9/", "grpcs://[::1]:9"),
    ("https://h:9", "grpcs://h:9"),
    ("dns:///h:9", "h:9"),
    ("dns:h:9", "h:9"),
    ("ipv4:10.0.0.1:9", "10.0.0.1:9"),
    ("ipv6:[::1]:9", "[::1]:9"),
    ("unix:/run/vedette.sock", "unix:/run/vedette.sock"),
    ("unix:///run/vedette.sock", "unix:/run/vedette.sock"),
    ("unix:relative.sock", "unix:relative.sock"),
    ("unix:a,b.sock", "unix:a,b.sock"),
    ("10.0.0.1,10.0.0.2:9", "10.0.0.1:8001,10.0.0.2:9"),
    ("ipv4:10.0.0.1:9,10.0.0.2:9", "10.0.0.1:9,10.0.0.2:9"),
    ("[::1],ipv6:[0:0::2]:9", "[::1]:8001,[::2]:9"),
])  # fmt: skip
def test_a_client_reads(text: str, read: str) -> None:
    assert address.parse(text).text == read


@pytest.mark.parametrize(("text", "said"), [
    ("", "it is empty"),
    ("  ", "contains a space"),
    (" 127.0.0.1:8001", "contains a space"),
    ("127.0.0.1:8001\n", "contains a space"),
    ("h\0:1", "non-printable"),
    ("h:99999", "99999 is not from 1 to 65535"),
    ("h:" + "9" * 5000, "is not from 1 to 65535"),
    ("h:0", "0 is not from 1 to 65535"),
    ("h:-1", "'-1' is not a number"),
    ("h:port", "'port' is not a number"),
    ("h:\u0663", "is not a number"),
    ("h:", "has no port"),
    (":8001", "has no host"),
    ("8001", "a port without a host"),
    ("::1", "brackets"),
    ("::1:8001", "brackets"),
    ("h:1:2", "brackets"),
    ("[::1", "brackets"),
    ("[::1]8001", "brackets"),
    ("[h]:1", "brackets are for an IPv6"),
    ("[1:2]:3", "'1:2' is not an IPv6 address"),
    ("127.1:80", "'127.1' is not an IPv4 address"),
    ("256.0.0.1:80", "'256.0.0.1' is not an IPv4 address"),
    ("0x7f000001:80", "is not an IPv4 address"),
    ("a..b:1", "'a..b' is not a host name"),
    ("-a:1", "'-a' is not a host name"),
    ("a" * 64 + ":1", "is not a host name"),
    ("stra\u00dfe.de:1", "xn--"),
    ("http://h", "gRPC's is usually 8001"),
    ("https://h", "gRPC's is usually 8001"),
    ("grpcs:h:1", "brackets"),
    ("grpcs://user@h:1", "a user name"),
    ("h:1/path", "has a path"),
    ("http://h:1/path", "has a path"),
    ("user@h:1", "a user name"),
    ("ftp://h:1", "ftp:// is not supported"),
    ("dns://8.8.8.8/h:1", "dns:// is not supported"),
    ("xds:///h", "is not supported"),
    ("unix-abstract:name", "unix-abstract: is not supported"),
    ("unix:", "does not name a file"),
    ("unix://relative", "absolute path"),
    ("unix:/" + "a" * 107, "at most 107"),
    ("10.0.0.1:9,", "a comma without an address"),
    ("10.0.0.1,10.0.0.2:99999", "'10.0.0.2:99999' is not a server's address: its port 99999"),
    ("10.0.0.1,[::1]", "must all be IPv4 or all IPv6"),
    ("a.example,b.example", "one name that resolves to all of them"),
    ("10.0.0.1,unix:/a", "must all be IPv4 or all IPv6"),
])  # fmt: skip
def test_a_client_refuses_in_one_line(text: str, said: str) -> None:
    with pytest.raises(LocalError) as caught:
        Client(text)
    assert said in str(caught.value)
    assert "127.0.0.1:8001" in str(caught.value), "the message shows one that would do"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(LocalError):
        AsyncClient(text)


PIECES = (
    "127.0.0.1 localhost [::1] ::1 h : : 8001 99999 0 -1 unix: dns: http:// grpc:// grpcs:// ipv4: ipv6: / // /// @ "
    "% %20 [ ] . , é 0x7f a ? # *"
)
pieces = st.sampled_from([*PIECES.split(), " ", "\0", "\n"])
texts = st.one_of(st.text(max_size=40), st.lists(pieces, max_size=6).map("".join))


def outcome(read: Callable[[str], Any], text: str) -> tuple[Any, str]:
    """The reading of an address, or the message of its refusal."""
    try:
        return read(text), ""
    except (LocalError, ValueError) as error:
        return None, str(error)


@given(texts)
@example("[::1%25]:1")
@example("UNIX:////")
@example("unix:////a")
@example("127.0.0.1:1,127.0.0.1:2")
@example("grpcs://[::1],[::1]:2")
@settings(max_examples=600, deadline=None)
def test_whatever_is_given_is_read_exactly_or_refused(text: str) -> None:
    """A reading that is read again says the same, and names an unambiguous address."""
    found, said = outcome(address.parse, text)
    assert "\n" not in said
    if found is None:
        return
    assert address.parse(found.text) == found
    if not found.hosts:
        assert found.target.startswith("unix:")
        return
    if len(found.hosts) > 1:
        assert found.target.startswith(("ipv4:", "ipv6:"))
        assert found.text.removeprefix("grpcs://") == found.target.partition(":")[2]
        assert found.hosts == tuple(host for one in found.text.split(",") for host in address.parse(one).hosts)
        return
    (host,) = found.hosts
    port = found.text.rpartition(":")[2]
    assert 1 <= int(port) <= 65535
    assert port == str(int(port))
    assert found.target.startswith("dns:///")
    assert port in text or port == "8001"
    last = host.removesuffix(".").rpartition(".")[2]
    if last.isdecimal() and ":" not in host:
        ipaddress.IPv4Address(host)


@given(texts)
@example("unix:?")
@example("unix:#%\u00fc")
@settings(max_examples=60, deadline=None)
def test_grpc_takes_whatever_is_read_for_local(text: str) -> None:
    """Asked for real, where that stays on this machine: the answer is that nobody is there, in our words."""
    try:
        found = address.parse(text)
    except LocalError:
        return
    if not found.local or not {"localhost", "127.0.0.1", "::1"}.issuperset(found.hosts):
        return
    with Client(text, timeout=5) as client, pytest.raises(NoConnection, match="no server answers at"):
        client.healthy()


@given(texts)
@example("127.0.0.1:00000000000000000000001")
@example("unix:////a")
@settings(max_examples=600, deadline=None)
def test_a_server_reads_exactly_or_refuses_too(text: str) -> None:
    for read in (addresses.grpc, addresses.tcp):
        found, said = outcome(read, text)
        assert "\n" not in said
        assert found is None or read(str(found)) == found
        if isinstance(found, Tcp):
            assert 0 <= found.port <= 65535


@pytest.mark.parametrize(("text", "read"), [
    ("127.0.0.1:8001", Tcp("127.0.0.1", 8001)),
    ("0.0.0.0:0", Tcp("0.0.0.0", 0)),  # noqa: S104  read, not bound
    ("[::]:8001", Tcp("::", 8001)),
    ("localhost:1", Tcp("localhost", 1)),
    ("unix:/run/v.sock", Unix("/run/v.sock")),
    ("unix:///run/v.sock", Unix("/run/v.sock")),
    ("unix:v.sock", Unix("v.sock")),
])  # fmt: skip
def test_a_server_listens(text: str, read: Tcp | Unix) -> None:
    assert addresses.grpc(text) == read


@pytest.mark.parametrize(("text", "said"), [
    ("", "it is empty"),
    (" ", "contains a space"),
    ("8001", "a port without a host"),
    (":8001", "127.0.0.1:8001 is this machine only, 0.0.0.0:8001 is all interfaces"),
    ("localhost", "has no port"),
    ("[::1]", "has no port"),
    ("h:99999", "99999 is not from 0 to 65535"),
    ("h:-1", "'-1' is not a number"),
    ("h:port", "'port' is not a number"),
    ("::1:8001", "brackets"),
    ("[h]:1", "'h' is not an IPv6 address"),
    ("127.1:1", "'127.1' is not an IPv4 address"),
    ("*:8001", "'*' is not a host name"),
    ("http://h:1", "http:// is for clients"),
    ("h:1/", "only HOST:PORT"),
    ("unix:", "does not name a file"),
    ("unix:/run/", "does not name a file"),
    ("unix://run", "absolute path"),
    ("unix:/" + "a" * 107, "at most 107"),
])  # fmt: skip
def test_a_server_refuses_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="is not an address to listen on") as caught:
        addresses.grpc(text)
    assert said in str(caught.value)


def test_http_is_not_served_at_a_unix_socket() -> None:
    with pytest.raises(ValueError, match="HTTP requires HOST:PORT"):
        addresses.tcp("unix:/run/v.sock")


@pytest.mark.parametrize("local", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "a.localhost:1", "[::1]:1",
                                   "[::ffff:127.0.0.1]:1", "0.0.0.0:1", "unix:/x"])  # fmt: skip
def test_this_machine_is_reached_without_a_proxy(local: str) -> None:
    assert address.proxy(address.parse(local), {"http_proxy": "http://p:1", "grpc_proxy": "http://p:2"}) is None


@pytest.mark.parametrize(("environment", "used"), [
    ({}, None),
    ({"http_proxy": "http://p:1"}, "http_proxy"),
    ({"http_proxy": "http://p:1", "https_proxy": "http://p:2"}, "https_proxy"),
    ({"http_proxy": "http://p:1", "https_proxy": "http://p:2", "grpc_proxy": "http://p:3"}, "grpc_proxy"),
    ({"http_proxy": "", "https_proxy": ""}, None),
    ({"http_proxy": "p:1"}, "http_proxy"),
    ({"http_proxy": "https://p:1"}, None),  # gRPC cannot
    ({"http_proxy": "http://p:1", "no_proxy": "example"}, None),
    ({"http_proxy": "http://p:1", "no_proxy": ".example, other"}, None),
    ({"http_proxy": "http://p:1", "no_proxy": "*"}, None),
    ({"http_proxy": "http://p:1", "no_grpc_proxy": "h.example"}, None),
    ({"http_proxy": "http://p:1", "no_proxy": "ample"}, "http_proxy"),
])  # fmt: skip
def test_other_hosts_are_reached_through_the_proxy_that_is_asked_for(
    environment: dict[str, str], used: str | None
) -> None:
    found = address.proxy(address.parse("h.example:1"), environment)
    assert (found.variable if found else None) == used


def test_several_servers_are_reached_without_a_proxy() -> None:
    """gRPC would ask the proxy for all of them at once."""
    assert address.proxy(address.parse("10.1.2.3,10.1.2.4"), {"http_proxy": "http://p:1"}) is None


def test_several_servers_are_refused_over_tls() -> None:
    for text, tls in (("grpcs://10.0.0.1,10.0.0.2", None), ("10.0.0.1,10.0.0.2", Tls())):
        with pytest.raises(LocalError, match="one that resolves to all of them"):
            Client(text, tls=tls)


def test_a_token_is_not_sent_if_one_of_several_servers_is_elsewhere() -> None:
    token = "secret"  # noqa: S105  of nobody
    Client("127.0.0.1:1,127.0.0.1:2", token=token).close()
    with pytest.raises(LocalError, match="without TLS"):
        Client("127.0.0.1:1,10.0.0.1:2", token=token)


@pytest.mark.parametrize("word", ["roundrobin", None, 1])
def test_a_balancing_that_there_is_not_is_refused(word: Any) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(LocalError, match=r"load_balancing is .* 'pick_first', 'round_robin'"):
            client(load_balancing=word)


def test_networks_are_left_out_too() -> None:
    environment = {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}
    assert address.proxy(address.parse("10.1.2.3:1"), environment) is None
    assert address.proxy(address.parse("11.1.2.3:1"), environment) is not None


def test_a_proxy_that_fails_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = running.free_port()
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
    for other in ("https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(other, raising=False)
    with Client("vedette.invalid:8001") as client, pytest.raises(NoConnection) as caught:
        client.healthy()
    assert f"the proxy http://127.0.0.1:{port} of the variable http_proxy" in str(caught.value)
    assert "secret" not in str(caught.value)


PROBE = "import sys; from vedette_client import Client; print(Client(sys.argv[1], timeout=20).healthy())"


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_does_not_stand_before_this_machine(
    variable: str, bundled: running.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{running.free_port()}")
    ran = subprocess.run([sys.executable, "-c", PROBE, bundled.address], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"


def test_the_port_of_metrics_is_told_from_grpcs(bundled: running.Server) -> None:
    with (
        Client(bundled.http.removeprefix("http://")) as client,
        pytest.raises(NoConnection, match="speaks HTTP, not gRPC, whose port is usually 8001"),
    ):
        client.healthy()


def test_nothing_that_is_sent_to_grpc_can_be_turned_into_another_port() -> None:
    """gRPC itself would take the lower 16 bits."""
    options: Any = channel.Endpoint.of("127.0.0.1:8001").options()
    assert dict(options)["grpc.enable_http_proxy"] == 0
    with grpc.insecure_channel("127.0.0.1:99999") as raw, pytest.raises(grpc.RpcError) as caught:
        raw.unary_unary("/a/b", bytes, bytes)(b"", timeout=5)
    assert "34463" in str(caught.value), "if gRPC has mended this, the check may go"

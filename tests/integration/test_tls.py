"""TLS as it is spoken by a real server: certificates replaced under load, callers' own, protocol versions, ciphers."""

import contextlib
import datetime as dt
import socket
import ssl
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from vedette_client import Client, Frame, NoConnection, Unavailable
from vedette_server.access.access import AccessSources

from tests.bench import rotations
from tests.support.authority import Authority, Pair
from tests.support.guarded import Caller, Guarded, Models, Shown

OK, MISSING, DENIED = "OK", "CREDENTIALS_MISSING", "NOT_PERMITTED"


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


def mutual(authority: Authority, pair: Pair, policy: Path | None = None) -> AccessSources:
    return AccessSources(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.path, policy=policy)


def test_certificates_are_replaced_under_load_without_losing_a_call(models: Models, authority: Authority) -> None:
    """`python -m tests.bench.rotations` does the same to a server of the bundled model."""
    pair = authority.server()
    frame = Frame(np.zeros((10, 10, 3), np.uint8), pixel_format="BGR8")
    with models.behind(AccessSources(tls_cert=pair.cert, tls_key=pair.key)) as at:
        seen = rotations.rotate(rotations.Target(at.address, at.http, frame, "cars"), authority, pair, 20)
    assert (seen.rotations, seen.failed, seen.stale) == (20, [], 0)


# Callers' own certificates.


def test_a_certificate_says_who_calls(models: Models, authority: Authority, tmp_path: Path) -> None:
    subject = "cert:CN=gate,OU=Testing cert *,O=trustme *"
    (tmp_path / "policy.toml").write_text(f'[[rules]]\nwho = ["{subject}"]\nmay = ["detect", "metrics"]\n')
    with models.behind(mutual(authority, authority.server(), tmp_path / "policy.toml")) as at:
        with Caller(at, authority, Shown(own=authority.client("gate"))) as gate:
            assert [gate.call(verb, "cars") for verb in ("detect", "metrics", "stream")] == [OK, OK, DENIED]
        with Caller(at, authority, Shown(own=authority.client("other"))) as other:
            assert [other.call(verb, "cars") for verb in ("detect", "metrics", "health")] == [DENIED, DENIED, OK]
        with Caller(at, authority, Shown()) as bare:
            assert [bare.call(verb) for verb in ("metrics", "readyz")] == [MISSING, OK], "probes have no certificates"


@pytest.mark.parametrize("shown", ["nothing", "another authority's", "an expired one"])
def test_who_has_no_good_certificate_does_not_get_in_and_harms_nobody(
    models: Models, authority: Authority, tmp_path: Path, shown: str
) -> None:
    stranger = Authority(tmp_path / "theirs")
    own = {
        "nothing": None,
        "another authority's": stranger.client("gate"),
        "an expired one": authority.client("late", expired=True),
    }[shown]
    with (
        models.behind(mutual(authority, authority.server())) as at,
        Caller(at, authority, Shown(own=authority.client("honest"))) as honest,
        ThreadPoolExecutor(1) as threads,
    ):
        honestly = threads.submit(lambda: [honest.call("detect", "cars") for _ in range(100)])
        for _ in range(3):
            with Client(at.address, tls=authority.tls(own), timeout=10) as client, pytest.raises(Unavailable):
                client.models()
        if own:  # by HTTP a certificate may be missing, but not wrong
            assert _get(at, authority.context(own)) == b""
        assert honestly.result() == [OK] * 100


def _get(at: Guarded, context: ssl.SSLContext) -> bytes:
    """The HTTP response to a caller; empty if it is not let in."""
    try:
        with connected(at.http, context) as connection:
            connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            return connection.recv(1_000)
    except OSError:
        return b""


def test_an_authority_that_is_replaced_vouches_for_nobody(models: Models, authority: Authority, tmp_path: Path) -> None:
    later = Authority(tmp_path / "later")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority.path.read_bytes())
    pair = authority.server()
    sources = AccessSources(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=trusted)
    before, after = authority.client("gate"), later.client("gate")

    def detects(own: Pair) -> bool:
        try:
            with Caller(at, authority, Shown(own=own)) as caller:
                return caller.call("detect", "cars") == OK
        except grpc.RpcError:
            return False

    def scrapes(own: Pair) -> bool:
        return b"200 OK" in _get(at, authority.context(own))

    with models.behind(sources) as at:
        assert (detects(before), scrapes(before), detects(after), scrapes(after)) == (True, True, False, False)
        trusted.write_bytes(later.path.read_bytes())
        assert (detects(before), scrapes(before), detects(after), scrapes(after)) == (False, False, True, True)


def test_whoever_reads_the_metrics_sees_when_certificates_end(models: Models, authority: Authority) -> None:
    def shown() -> list[float]:
        with Caller(at, authority, Shown(own=authority.client("alice"))) as alice:
            assert alice.call("metrics") == OK
        series = 'vedette_certificate_expiry_timestamp_seconds{certificate="server"} '
        lines = models.metrics.page("")[0].decode().splitlines()
        return [float(line.removeprefix(series)) for line in lines if line.startswith(series)]

    ends = [dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2031, 2032)]
    with models.behind(mutual(authority, authority.server(ends=ends[0]))) as at:
        assert shown() == [ends[0].timestamp()]
        authority.server(ends=ends[1])
        assert shown() == [ends[1].timestamp()]


def test_a_client_takes_no_server_for_another(models: Models, authority: Authority) -> None:
    late = authority.server("late", expired=True)
    with (
        models.behind(AccessSources(tls_cert=late.cert, tls_key=late.key)) as at,
        Client(at.address, tls=authority.tls(), timeout=10) as client,
        pytest.raises(NoConnection, match="cannot be verified"),
    ):
        client.healthy()


# What is spoken.

SOUND = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
}


@contextlib.contextmanager
def connected(url: str, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    host, _, port = url.partition("://")[2].rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        yield connection


def speaks(url: str, context: ssl.SSLContext) -> tuple[str, str] | None:
    """The version and the cipher that are agreed on; None: nothing is."""
    try:
        with connected(url, context) as connection:
            cipher = connection.cipher()
            return (connection.version() or "", cipher[0] if cipher else "")
    except OSError:
        return None


def lax(version: ssl.TLSVersion, ciphers: str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0") -> ssl.SSLContext:
    """A client that takes whatever there is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore"):  # of versions that nobody should speak
        context.minimum_version, context.maximum_version = version, version
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
def test_versions_and_ciphers(models: Models, tmp_path: Path, kind: trustme.KeyType) -> None:
    """Every cipher that OpenSSL knows is offered alone, to both ports."""
    issued = trustme.CA().issue_cert("127.0.0.1", key_type=kind)
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    known = [str(cipher["name"]) for cipher in lax(ssl.TLSVersion.TLSv1_2).get_ciphers()]
    older = [name for name in known if not name.startswith("TLS_")]
    assert len(older) > 50, "this OpenSSL knows weak ciphers to offer"
    with models.behind(AccessSources(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")) as at:
        for url in (at.address, at.http):
            assert (speaks(url, lax(ssl.TLSVersion.TLSv1_3)) or ("",))[0] == "TLSv1.3"
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                assert speaks(url, lax(version)) is None
            taken = {name for name in older if speaks(url, lax(ssl.TLSVersion.TLSv1_2, f"{name}:@SECLEVEL=0"))}
            assert taken, "TLS 1.2 is spoken"
            assert taken <= SOUND

"""Keys of JWTs at an address: fetched from a small server over HTTPS, beside the calls, and kept while it fails."""

import contextlib
import gzip
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vedette_server.access import fetched
from vedette_server.access.access import AccessSources

from tests.support import running
from tests.support.authority import Authority
from tests.support.guarded import AUDIENCE, ISSUER, Caller, Guarded, Issuer, Models, Shown, Tokens

OK, REFUSED = "OK", "CREDENTIALS_REFUSED"


class _Listener(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: some hang up on purpose."""


class Keys:
    """A server of keys; what it answers, a test says."""

    def __init__(self, authority: Authority | None, answer: bytes, port: int = 0) -> None:
        self.answer, self.status, self.headers = answer, 200, dict[str, str]()
        self.pause = 0.0  # seconds after each byte
        self.asked = 0
        kept = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kept.asked += 1
                self.send_response(200 if self.path.endswith("?other") else kept.status)
                for name, value in kept.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if not kept.pause:
                    self.wfile.write(kept.answer)
                    return
                for byte in kept.answer:
                    self.wfile.write(bytes([byte]))
                    time.sleep(kept.pause)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._listener = _Listener(("127.0.0.1", port), Handler)
        self._listener.daemon_threads = True
        self.port = self._listener.server_address[1]
        if authority:
            pair = authority.server("keys")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.cert, pair.key)
            self._listener.socket = context.wrap_socket(self._listener.socket, server_side=True)
        self.url = f"{'https' if authority else 'http'}://127.0.0.1:{self.port}/keys"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this machine trusts."""
    made = Authority(tmp_path / "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.path))
    return made


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are fetched so often that a test need not wait."""
    monkeypatch.setattr(fetched, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(fetched, "EVERY_SECONDS", 0.3)


class Office:
    """An issuer whose keys are at an address, and somebody with a token of a file."""

    def __init__(self, folder: Path, authority: Authority | None) -> None:
        self.folder = folder
        self.issuer = Issuer(folder / "jwks.json")
        self.tokens = Tokens(folder / "tokens")
        self.somebody = Shown(self.tokens.add("somebody"))
        self.keys = Keys(authority, self.issuer.jwks)
        self.sources = AccessSources(
            tokens=self.tokens.path, jwks=self.keys.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE
        )

    def auditor(self, at: Guarded) -> str:
        return self.call(at, Shown(self.issuer.token("auditor")))

    def call(self, at: Guarded, shown: Shown) -> str:
        with Caller(at, None, shown) as caller:
            return caller.call("describe", "cars")


@pytest.fixture
def office(tmp_path: Path, authority: Authority) -> Iterator[Office]:
    made = Office(tmp_path, authority)
    yield made
    with contextlib.suppress(OSError):
        made.keys.stop()


def counted(models: Models, outcome: str) -> float:
    series = f'vedette_access_reloads_total{{file="jwks",outcome="{outcome}"}} '
    lines = models.metrics.page("")[0].decode().splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def test_a_key_that_is_new_is_fetched_soon_and_one_that_has_gone_is_taken_no_more(
    models: Models, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "LEAST_SECONDS", 0.1)
    with models.behind(office.sources) as at:
        assert office.auditor(at) == OK, "it was fetched before the first call"
        old, office.issuer = office.issuer, Issuer(office.folder / "other.json", "second")
        office.keys.answer = office.issuer.jwks
        running.wait_for(lambda: office.auditor(at) == OK, "the new key")
        assert office.call(at, Shown(old.token("auditor"))) == REFUSED


def test_strangers_cannot_have_keys_fetched_more_often(
    models: Models, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "LEAST_SECONDS", 1e6)
    stranger = Issuer(office.folder / "other.json", "second")
    with models.behind(office.sources) as at:
        for _ in range(20):
            assert office.call(at, Shown(stranger.token("auditor"))) == REFUSED
        assert office.auditor(at) == OK
    assert office.keys.asked == 1


def too_large(keys: Keys) -> None:
    keys.answer = keys.answer.replace(b"{", b"{" + b" " * fetched.LARGEST, 1)


def redirected(keys: Keys) -> None:
    keys.status, keys.headers = 302, {"Location": keys.url + "?other"}


def failing(keys: Keys) -> None:
    keys.status = 500


def compressed(keys: Keys) -> None:
    keys.answer, keys.headers = gzip.compress(keys.answer), {"Content-Encoding": "gzip"}


def none(keys: Keys) -> None:
    keys.answer = b"<html>sign in</html>"


def binary(keys: Keys) -> None:
    keys.answer = b"\xff\xfe"


def dripping(keys: Keys) -> None:
    keys.pause = 0.2


def stopped(keys: Keys) -> None:
    keys.stop()


BAD = (too_large, redirected, failing, compressed, none, binary, dripping, stopped)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_old_keys_are_kept_while_the_address_fails(
    models: Models, office: Office, authority: Authority, spoil: Callable[[Keys], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "FETCH_SECONDS", 1.0)
    with models.behind(office.sources) as at:
        assert office.auditor(at) == OK
        refused, taken = counted(models, "refused"), counted(models, "taken")
        spoil(office.keys)
        running.wait_for(lambda: counted(models, "refused") > refused, "the failure to be counted")
        assert office.auditor(at) == OK
        assert office.call(at, office.somebody) == OK
        with contextlib.suppress(OSError):
            office.keys.stop()
        old, office.issuer = office.issuer, Issuer(office.folder / "other.json", "second")
        office.keys = Keys(authority, office.issuer.jwks, office.keys.port)
        running.wait_for(lambda: office.auditor(at) == OK, "the keys that it says now")
        assert office.call(at, Shown(old.token("auditor"))) == REFUSED
        assert counted(models, "taken") == taken + 1


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_server_starts_whatever_the_address_says(
    models: Models, office: Office, spoil: Callable[[Keys], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "FETCH_SECONDS", 1.0)
    spoil(office.keys)
    with models.behind(office.sources) as at:
        assert office.auditor(at) == REFUSED
        assert office.call(at, office.somebody) == OK


def test_calls_are_answered_while_the_address_is_waited_for(
    models: Models, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(fetched, "FETCH_SECONDS", 1e6)
    with models.behind(office.sources) as at:
        failed = counted(models, "refused")
        dripping(office.keys)
        stranger = Issuer(office.folder / "other.json", "second")
        assert office.call(at, Shown(stranger.token("auditor"))) == REFUSED
        running.wait_for(lambda: office.keys.asked == 2, "the address to be asked")
        assert (office.auditor(at), office.call(at, office.somebody)) == (OK, OK)
        assert counted(models, "refused") == failed, "it is still waited for"


def test_whoever_nobody_vouches_for_is_not_believed(models: Models, tmp_path: Path) -> None:
    office = Office(tmp_path, Authority(tmp_path / "of-nobody"))
    with models.behind(office.sources) as at:
        assert office.auditor(at) == REFUSED
    assert office.keys.asked == 0
    office.keys.stop()


def test_the_loopback_needs_no_tls(models: Models, tmp_path: Path) -> None:
    office = Office(tmp_path, None)
    with models.behind(office.sources) as at:
        assert office.auditor(at) == OK
    office.keys.stop()


def test_a_server_that_is_started_with_an_address(office: Office) -> None:
    flags = ("--jwks", office.keys.url, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-groups", "groups")
    policy = office.folder / "policy.toml"
    policy.write_text('[[rules]]\nwho = ["jwt-group:operators"]\nmay = ["describe", "metrics"]\n')
    with running.server(*flags, "--policy", str(policy), serving=False) as server:
        for groups, status in (([], 403), (["operators"], 200)):
            server.token = office.issuer.token("somebody", groups=groups)
            assert running.http(server, "/metrics")[0] == status
        assert server.logged("reloaded")[0]["file"] == "jwks"

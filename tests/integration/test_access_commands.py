"""Who may call, as operators and users set it up: real commands, real files, real signals."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vedette_client import Client, InvalidRequest, Unauthenticated
from vedette_server.access import tokens

from tests.support import running
from tests.support.authority import Authority
from tests.support.running import BIN, http, wait_for

UNAUTHENTICATED, PERMISSION_DENIED = 64 + 16, 64 + 7


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VEDETTE_")}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=running.PATIENCE,
        check=False,
        env=inherited | environment,
    )


@dataclass
class Guarded:
    """A server that asks who calls, and the files that it goes by."""

    server: running.Server
    authority: Authority
    tokens: Path
    policy: Path
    token: str  # of the operator

    def add(self, name: str) -> str:
        """Let somebody in, as an operator does."""
        line, token = run("vedette-server", "token", name).stdout.splitlines()
        with self.tokens.open("a") as file:
            file.write(f"{line}\n")
        return token


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder)
    pair = authority.server()
    line, token = tokens.make("operator")
    (folder / "tokens").write_text(f"{line}\n")
    (folder / "policy.toml").write_text(policy("detect", "describe", "metrics"))
    flags = {
        "--tls-cert": pair.cert,
        "--tls-key": pair.key,
        "--tokens": folder / "tokens",
        "--policy": folder / "policy.toml",
    }
    given = [str(word) for pair_ in flags.items() for word in pair_]
    with running.server("--threads", "1", *given, tls=authority.tls(), token=token) as server:
        yield Guarded(server, authority, folder / "tokens", folder / "policy.toml", token)


def policy(*verbs: str) -> str:
    return f'[[rules]]\nwho = ["*"]\nmay = {list(verbs)}\n'.replace("'", '"')


def test_a_token_opens_the_door_until_it_is_revoked(guarded: Guarded, tmp_path: Path) -> None:
    before = guarded.tokens.read_text()
    token = tmp_path / "token"
    token.write_text(guarded.add("visitor") + "\n")
    told = ("--server", guarded.server.address, "--tls-ca", str(guarded.authority.path), "--token-file", str(token))
    listed = run("vedette", "models", *told)
    assert (listed.returncode, "roadsigns" in listed.stdout) == (0, True), listed.stderr
    guarded.tokens.write_text(before)
    refused = run("vedette", "models", *told)
    assert refused.returncode == UNAUTHENTICATED
    assert "CREDENTIALS_REFUSED" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    with Client(guarded.server.address, tls=guarded.authority.tls(), token=guarded.token) as client:
        assert client.model().name == "roadsigns", "nobody else is harmed"


def test_the_environment_will_do(guarded: Guarded) -> None:
    environment = {
        "VEDETTE_SERVER": guarded.server.address,
        "VEDETTE_TLS_CA": str(guarded.authority.path),
        "VEDETTE_TOKEN": guarded.token,
    }
    assert run("vedette", "models", **environment).returncode == 0
    denied = run("vedette", "diagnose", "--stream", "gate", **environment)
    assert (denied.returncode, "token:operator may not diagnose" in denied.stderr) == (PERMISSION_DENIED, True)
    del environment["VEDETTE_TOKEN"]
    assert run("vedette", "models", **environment).returncode == UNAUTHENTICATED
    assert run("vedette", "health", **environment).returncode == 0, "health is open"


def test_metrics_ask_who_reads_them_and_probes_are_let_through(guarded: Guarded) -> None:
    server = guarded.server
    assert http(server, "/metrics")[0] == 200
    stranger = running.Server.__new__(running.Server)
    stranger.http, stranger.tls, stranger.token = server.http, server.tls, None
    status, said = http(stranger, "/metrics")
    assert (status, said.partition(":")[0]) == (401, "CREDENTIALS_MISSING")
    assert http(stranger, "/readyz") == (200, "ready\n")
    counted = 'vedette_requests_total{model="",outcome="CREDENTIALS_MISSING",version=""}'
    assert running.sample(server, counted) >= 1


def test_a_report_is_drawn_for_who_may_read_the_metrics(guarded: Guarded, tmp_path: Path) -> None:
    out, token = tmp_path / "report.html", tmp_path / "token"
    token.write_text(guarded.token)
    told = ("--from", guarded.server.http, "--tls-ca", str(guarded.authority.path), "--out", str(out))
    refused = run("vedette-server", "report", *told)
    assert (refused.returncode, "401" in refused.stderr) == (1, True)
    drawn = run("vedette-server", "report", *told, "--token-file", str(token))
    assert drawn.returncode == 0, drawn.stderr
    assert "roadsigns" in out.read_text()
    plain = run("vedette-server", "report", "--from", "http://10.0.0.1:8002", "--token-file", str(token))
    assert (plain.returncode, "the token is not sent without TLS" in plain.stderr) == (1, True)


def test_sighup_has_everything_read_again(guarded: Guarded) -> None:
    reloads = len(guarded.server.events("reloaded"))
    guarded.server.process.send_signal(1)
    wait_for(lambda: len(guarded.server.events("reloaded")) == reloads + 3, "certificates, tokens and policy")
    assert guarded.server.process.poll() is None


def test_a_policy_holds_from_the_next_call_on(guarded: Guarded) -> None:
    before = guarded.policy.read_text()
    command = ("vedette", "contract", "roadsigns", "--server", guarded.server.address)
    shown = {"VEDETTE_TLS_CA": str(guarded.authority.path), "VEDETTE_TOKEN": guarded.token}
    assert run(*command, **shown).returncode == 0
    guarded.policy.write_text(policy("detect", "metrics"))
    assert run(*command, **shown).returncode == PERMISSION_DENIED
    guarded.policy.write_text(before)
    assert run(*command, **shown).returncode == 0


def test_nothing_secret_is_in_the_log_or_on_the_command_line(guarded: Guarded) -> None:
    """Also of a token that is not taken: it may be another server's good one."""
    wrong = "vedette_" + "W" * 43
    with (
        Client(guarded.server.address, tls=guarded.authority.tls(), token=wrong) as client,
        pytest.raises(Unauthenticated) as caught,
    ):
        client.models()
    with (
        Client(guarded.server.address, tls=guarded.authority.tls(), token=guarded.token) as client,
        pytest.raises(InvalidRequest),
    ):
        client.detect(b"no image")
    refused = wait_for(lambda: [event for event in guarded.server.events("refused") if "caller" in event], "the log")
    assert refused[-1]["caller"] == "token:operator"
    log = guarded.server.log_path.read_text()
    commands = [
        Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        for pid in (guarded.server.process.pid, *guarded.server.worker_pids())
    ]
    for secret in (wrong, guarded.token, tokens.digest(guarded.token)):
        assert not any(secret in text for text in (log, str(caught.value), *commands))
    assert not any("--token " in run("vedette", name, "--help").stdout for name in ("detect", "stream", "models"))


def test_a_token_is_not_sent_where_others_could_read_it() -> None:
    ended = run("vedette", "models", "--server", "10.0.0.1:8001", VEDETTE_TOKEN="a-secret")  # noqa: S106  of nobody
    assert (ended.returncode, "without TLS" in ended.stderr, "a-secret" in ended.stderr) == (1, True, False)


# What does not start.


@pytest.mark.parametrize(("flags", "status", "said"), [
    (("--listen", "0.0.0.0:0"), 2, "0.0.0.0:0 can be reached from other machines without TLS (--tls-cert"),
    (("--http", "[::]:0"), 2, "[::]:0 can be reached"),
    (("--listen", "0.0.0.0:0", "--insecure", "--repository", "no/such"), 1, "no/such"),
    (("--tls-cert", "x"), 2, "tls_cert requires tls_key"),
    (("--tls-cert", "x", "--tls-key", "x"), 1, "x does not exist"),
    (("--tokens", "Makefile"), 1, "Makefile, line 3 is not NAME sha256:HASH"),
    (("--policy", "Makefile"), 1, "Makefile is not TOML"),
    (("--jwks", "Makefile"), 2, "jwks requires jwt_issuer"),
    (("--jwks", "Makefile", "--jwt-issuer", "i", "--jwt-audience", "a"), 1, "Makefile is not a JWKS"),
])  # fmt: skip
def test_what_does_not_start_says_why_in_a_line(flags: tuple[str, ...], status: int, said: str) -> None:
    ended = run("vedette-server", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *flags)
    told = [line for line in ended.stderr.splitlines() if line.startswith("vedette-server: ")]
    assert (ended.returncode, len(told)) == (status, 1), ended.stderr
    assert said in told[0]
    assert "Traceback" not in ended.stderr


def test_a_token_has_a_holder_that_can_be_called_so() -> None:
    ended = run("vedette-server", "token", "no body")
    assert (ended.returncode, ended.stdout) == (2, "")

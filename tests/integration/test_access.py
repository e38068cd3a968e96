"""Who gets in, and to what: every decision over the wire, by gRPC and HTTP, from real files."""

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import Client, LocalError, NotPermitted, Overloaded, Tls, Unauthenticated
from vedette_server.access.access import AccessSources
from vedette_server.access.policy import Verb
from vedette_server.engine.query import Query
from vedette_server.engine.queue import Flow
from vedette_server.rpc import guard

from tests.support.authority import Authority
from tests.support.guarded import AUDIENCE, ISSUER, MODELS, Caller, Issuer, Models, Shown, Tokens, reason_of
from tests.support.running import wait_for

POLICY = """
[groups]
cameras = ["token:gate", "token:yard-*"]

[[rules]]
who = ["group:cameras"]
may = ["stream", "detect"]
models = ["car*"]

[[rules]]
who = ["jwt:auditor"]
may = ["describe", "metrics"]

[[rules]]
who = ["token:ops"]
may = ["detect", "stream", "diagnose", "describe", "metrics", "reflection"]

[[rules]]
who = ["anonymous"]
may = ["describe"]
models = ["faces"]

[[rules]]
who = ["*"]
may = ["detect"]
models = ["f?ces"]
"""

SECRET = "a-secret"  # noqa: S105  of nobody
OK, MISSING, REFUSED, DENIED = "OK", "CREDENTIALS_MISSING", "CREDENTIALS_REFUSED", "NOT_PERMITTED"

TABLE = [
    ("gate", "detect", "cars", OK),
    ("gate", "detect", "carts", OK),
    ("gate", "detect", "faces", OK),
    ("gate", "detect", "nobody", DENIED),
    ("gate", "stream", "cars", OK),
    ("gate", "stream", "faces", DENIED),
    ("gate", "diagnose", "cars", DENIED),
    ("gate", "describe", "cars", DENIED),
    ("gate", "metrics", "", DENIED),
    ("gate", "health", "", OK),
    ("gate", "reflection", "", DENIED),
    ("yard-7", "stream", "carts", OK),
    ("yard-7", "detect", "faces", OK),
    ("yard-7", "diagnose", "faces", DENIED),
    ("ops", "detect", "faces", OK),
    ("ops", "stream", "faces", OK),
    ("ops", "diagnose", "carts", OK),
    ("ops", "describe", "cars", OK),
    ("ops", "metrics", "", OK),
    ("ops", "reflection", "", OK),
    ("ops", "detect", "nobody", "MODEL_NOT_FOUND"),
    ("ops", "detect", "", "MODEL_NAME_MISSING"),
    ("auditor", "describe", "cars", OK),
    ("auditor", "describe", "faces", OK),
    ("auditor", "detect", "cars", DENIED),
    ("auditor", "detect", "faces", OK),
    ("auditor", "detect", "", OK),  # the only one that it may ask
    ("auditor", "metrics", "", OK),
    ("auditor", "stream", "faces", DENIED),
    ("stranger", "describe", "faces", OK),
    ("stranger", "describe", "", OK),
    ("stranger", "describe", "cars", MISSING),
    ("stranger", "detect", "faces", MISSING),
    ("stranger", "stream", "cars", MISSING),
    ("stranger", "diagnose", "cars", MISSING),
    ("stranger", "metrics", "", MISSING),
    ("stranger", "reflection", "", MISSING),
    ("stranger", "health", "", OK),
    ("stranger", "readyz", "", OK),
    ("stranger", "livez", "", OK),
    ("impostor", "detect", "faces", REFUSED),
    ("impostor", "describe", "faces", REFUSED),  # what is wrong is not taken for nothing
    ("impostor", "health", "", REFUSED),
    ("impostor", "metrics", "", REFUSED),
]


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


class Office:
    """Everybody's files, and what each shows of itself."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.pair = self.authority.server()
        self.tokens = Tokens(folder / "tokens")
        self.issuer = Issuer(folder / "jwks.json")
        self.policy = folder / "policy.toml"
        self.policy.write_text(POLICY)
        self.shown = {
            **{name: Shown(self.tokens.add(name)) for name in ("gate", "yard-7", "ops")},
            "auditor": Shown(self.issuer.token("auditor")),
            "stranger": Shown(),
            "impostor": Shown("vedette_" + "A" * 43),
        }

    @property
    def sources(self) -> AccessSources:
        return AccessSources(
            tls_cert=self.pair.cert,
            tls_key=self.pair.key,
            tokens=self.tokens.path,
            jwks=self.issuer.path,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            policy=self.policy,
        )


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@pytest.fixture(scope="module")
def decided(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Caller]]:
    office = Office(tmp_path_factory.mktemp("office"))
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(models.behind(office.sources))
        yield {name: stack.enter_context(Caller(at, office.authority, shown)) for name, shown in office.shown.items()}


@pytest.mark.parametrize(("who", "what", "model", "expected"), TABLE)
def test_who_may_do_what_with_which_model(
    decided: dict[str, Caller], who: str, what: str, model: str, expected: str
) -> None:
    assert decided[who].call(what, model) == expected


def test_a_listing_shows_what_its_reader_may_see(decided: dict[str, Caller]) -> None:
    assert decided["auditor"].list() == list(MODELS)
    assert decided["stranger"].list() == ["faces"]
    with pytest.raises(grpc.RpcError) as caught:
        decided["gate"].list()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_every_method_that_is_served_has_a_verb() -> None:
    """One that has none can be called by nobody; that is for one who adds it to notice here."""
    service = pb.DESCRIPTOR.services_by_name["DetectionService"]
    assert {guard.verb(f"/{service.full_name}/{method.name}") for method in service.methods} < set(Verb)
    for name in (service.full_name, guard.INFERENCE):
        with pytest.raises(KeyError):
            guard.verb(f"/{name}/LoadModel")


# What a policy says, evaluated once more as plainly as it can be said.


def allows(policy: Mapping[str, Any], who: str, verb: str, model: str) -> bool:
    if verb == "health" and all("health" not in rule["may"] for rule in policy["rules"]):
        return True
    return any(
        verb in rule["may"]
        and (verb in ("health", "reflection", "metrics", "share") or any(is_like(model, one) for one in rule["models"]))
        and any(is_named(policy, who, one) for one in rule["who"])
        for rule in policy["rules"]
    )


def is_named(policy: Mapping[str, Any], who: str, name: str) -> bool:
    if name.startswith("group:"):
        return any(is_named(policy, who, one) for one in policy["groups"][name[6:]])
    if who == "anonymous":
        return name == who
    return is_like(who, name)


def is_like(text: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None


names = st.sampled_from(["*", "anonymous", "token:gate", "token:*", "token:y?rd-7", "jwt:auditor", "jwt:*", "cert:*"])
some = st.lists(names, min_size=1, max_size=3)
policies = st.fixed_dictionaries(
    {
        "groups": st.fixed_dictionaries({"a": some, "b": some}),
        "rules": st.lists(
            st.fixed_dictionaries(
                {
                    "who": st.lists(st.one_of(names, st.sampled_from(["group:a", "group:b"])), min_size=1, max_size=3),
                    "may": st.lists(st.sampled_from([*Verb]).map(str), max_size=4),
                    "models": st.lists(
                        st.sampled_from(["*", "cars", "car*", "?a*", "faces", "fac", "*s"]), min_size=1, max_size=2
                    ),
                }
            ),
            max_size=4,
        ),
    }
)
CALLERS = {"gate": "token:gate", "yard-7": "token:yard-7", "auditor": "jwt:auditor", "stranger": "anonymous"}
calls = st.lists(
    st.tuples(st.sampled_from([*CALLERS]), st.sampled_from([*Verb]).map(str), st.sampled_from(MODELS)), min_size=8
)


def toml(policy: Mapping[str, Any]) -> str:
    def listed(values: list[str]) -> str:
        return "[" + ", ".join(f'"{value}"' for value in values) + "]"

    groups = "".join(f"{name} = {listed(of)}\n" for name, of in policy["groups"].items())
    rules = "".join(
        "[[rules]]\n" + "".join(f"{key} = {listed(value)}\n" for key, value in rule.items()) for rule in policy["rules"]
    )
    return ("" if policy["rules"] else "rules = []\n") + f"[groups]\n{groups}{rules}"


@pytest.fixture(scope="module")
def rewritten(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Caller]]]:
    """Callers of a server whose policy is written anew while it serves."""
    office = Office(tmp_path_factory.mktemp("rewritten"))
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(models.behind(office.sources))
        callers = {name: stack.enter_context(Caller(at, office.authority, office.shown[name])) for name in CALLERS}
        yield office.policy, callers


@given(policy=policies, asked=calls)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_policy_is_held_to_over_the_wire(
    rewritten: tuple[Path, dict[str, Caller]], policy: Mapping[str, Any], asked: list[tuple[str, str, str]]
) -> None:
    path, callers = rewritten
    beside = path.with_suffix(".new")
    beside.write_text(toml(policy))
    beside.replace(path)
    for name, verb, model in asked:
        expected = OK if allows(policy, CALLERS[name], verb, model) else MISSING if name == "stranger" else DENIED
        assert callers[name].call(verb, model) == expected, (name, verb, model)


# Without a policy, and without anything.


def test_without_a_policy_whoever_is_known_may_do_everything(models: Models, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    with models.behind(AccessSources(tokens=tokens.path)) as at:
        with Caller(at, None, Shown(tokens.add("somebody"))) as known:
            assert {known.call(str(verb), "cars") for verb in Verb} == {OK}
        with Caller(at, None, Shown()) as stranger:
            refused = {str(verb): stranger.call(str(verb), "cars") for verb in Verb}
    assert refused.pop("health") == OK
    assert set(refused.values()) == {MISSING}


def test_without_anything_everybody_may_do_everything(models: Models) -> None:
    with models.behind(AccessSources()) as at, Caller(at, None, Shown("whatever")) as caller:
        assert {caller.call(str(verb), "cars") for verb in Verb} == {OK}


# What is shown and wrong.


def test_jwts_that_are_not_taken(models: Models, office: Office, tmp_path: Path) -> None:
    stranger = Issuer(tmp_path / "other.json")
    unknown = Issuer(tmp_path / "another.json", "second")
    good = office.issuer.token("auditor")
    wrong = {
        "expired": office.issuer.token("auditor", exp=1_000_000_000),
        "not yet": office.issuer.token("auditor", nbf=4_000_000_000),
        "without an end": office.issuer.token("auditor", exp=None),
        "for others": office.issuer.token("auditor", aud="others"),
        "of others": office.issuer.token("auditor", iss="https://others.test"),
        "without a subject": office.issuer.token("auditor", sub=None),
        "of an odd subject": office.issuer.token("a\nb"),
        "signed by another": stranger.token("auditor"),
        "of an unknown key": unknown.token("auditor"),
        "unsigned": unsigned(good),
        "signed with the public key": signed_with_public_key(office.issuer.path),
        "cut": good[:-4],
        "no JWT": "a.b.c",
        "deep": deep(),
    }
    with models.behind(office.sources) as at:
        with Caller(at, office.authority, Shown(good)) as caller:
            assert caller.call("describe", "cars") == OK
        for name, token in wrong.items():
            with Caller(at, office.authority, Shown(token)) as caller:
                assert caller.call("describe", "cars") == REFUSED, name


def unsigned(good: str) -> str:
    claims = jwt.decode(good, options={"verify_signature": False})
    return jwt.encode(claims, "", "none", {"kid": "first"})


def signed_with_public_key(jwks: Path) -> str:
    """The classic: an asymmetric key's public part taken for a shared secret."""

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    claims = {"sub": "auditor", "iss": ISSUER, "aud": AUDIENCE, "exp": 4_000_000_000}
    signed = part({"alg": "HS256", "kid": "first"}) + b"." + part(claims)
    signature = hmac.new(jwks.read_bytes(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def deep() -> str:
    header = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 2_000 + b"]" * 2_000 + b"}").decode().rstrip("=")
    return f"{header}.e30.AA"


def test_a_header_that_is_no_bearer_token(models: Models, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    good = tokens.add("somebody")
    odd: list[list[tuple[str, str]]] = [
        [("authorization", good)],
        [("authorization", "Bearer")],
        [("authorization", f"Basic {good}")],
        [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")],
        [("authorization", f"Bearer {good}x")],
        [("authorization", "")],
    ]
    with models.behind(AccessSources(tokens=tokens.path)) as at, Caller(at, None, Shown()) as caller:
        for metadata in odd:
            caller._metadata = tuple(metadata)
            assert caller.call("detect", "cars") == REFUSED, metadata
        caller._metadata = (("authorization", f"bearer {good}"),)
        assert caller.call("detect", "cars") == OK, "the scheme's case says nothing"


def test_nothing_of_a_request_is_waited_for_before_its_caller_is_known(models: Models, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    sent = threading.Event()

    def nothing() -> Iterator[bytes]:
        sent.wait(60)
        yield from ()

    with models.behind(AccessSources(tokens=tokens.path)) as at, grpc.insecure_channel(at.address) as channel:
        for method in ("Detect", "Diagnose", "ListModels", "GetModel"):
            call = channel.stream_unary(f"/{guard.SERVICE}/{method}", bytes, bytes)
            with pytest.raises(grpc.RpcError) as caught:
                call(nothing(), timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    sent.set()


def test_a_call_without_a_request_is_told_so(models: Models) -> None:
    with models.behind(AccessSources()) as at, grpc.insecure_channel(at.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(f"/{guard.SERVICE}/Detect")(iter([]), timeout=30)
        assert reason_of(caught.value) == "REQUEST_UNREADABLE"


def test_a_header_of_any_bytes_is_no_bug(models: Models, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    with models.behind(AccessSources(tokens=tokens.path)) as at:
        host, _, port = at.http.removeprefix("http://").partition(":")
        for value in (b"Bearer \xff\xfe", b"\xff", b"Bearer " + b"A" * 8_000, b"Bearer a.b.\xed\xa0\x80"):
            with socket.create_connection((host, int(port)), 30) as connection:
                connection.sendall(b"GET /metrics HTTP/1.0\r\nAuthorization: " + value + b"\r\n\r\n")
                assert int(connection.recv(12)[-3:]) in (400, 401)


# What changes while the server serves.


def test_a_revoked_token_is_refused_from_the_next_call_on(models: Models, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    first, second = tokens.add("first"), tokens.add("second")
    with (
        models.behind(AccessSources(tokens=tokens.path)) as at,
        Caller(at, None, Shown(first)) as revoked,
        Caller(at, None, Shown(second)) as honest,
    ):
        assert (revoked.call("detect", "cars"), honest.call("detect", "cars")) == (OK, OK)
        tokens.revoke("first")
        assert (revoked.call("detect", "cars"), honest.call("detect", "cars")) == (REFUSED, OK)
        assert revoked.call("metrics") == REFUSED
        added = tokens.add("first")
        with Caller(at, None, Shown(added)) as again:
            assert (again.call("detect", "cars"), revoked.call("detect", "cars")) == (OK, REFUSED)


@pytest.mark.parametrize("file", ["tokens", "jwks", "policy", "tls"])
def test_a_file_that_cannot_be_read_leaves_what_was_there(models: Models, office: Office, file: str) -> None:
    paths = {
        "tokens": office.tokens.path,
        "jwks": office.issuer.path,
        "policy": office.policy,
        "tls": office.pair.cert,
    }
    path = paths[file]
    good = path.read_bytes()

    def counted(outcome: str) -> float:
        return sample(models, f'vedette_access_reloads_total{{file="{file}",outcome="{outcome}"}}')

    with models.behind(office.sources) as at:

        def works() -> bool:
            callers = ("gate", "auditor")
            made = (Caller(at, office.authority, office.shown[name]) for name in callers)
            with contextlib.ExitStack() as stack:
                gate, auditor = (stack.enter_context(one) for one in made)
                return (gate.call("stream", "cars"), auditor.call("metrics")) == (OK, OK)

        assert works()
        refused, taken = counted("refused"), counted("taken")
        for broken in (good[: len(good) // 2] + b"\xff", b"{}", b"\x00" * 100):
            path.write_bytes(broken)
            assert works(), broken
        path.unlink()
        assert works()
        assert counted("refused") == refused + 4
        assert sample(models, f'vedette_access_stale{{file="{file}"}}') == 1
        path.write_bytes(good)
        assert works()
        assert counted("taken") == taken + 1
        assert sample(models, f'vedette_access_stale{{file="{file}"}}') == 0


def sample(models: Models, series: str) -> float:
    lines = models.metrics.page("text/plain")[0].decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0.0)


# How much of it.

LIMITED = """
[[rules]]
who = ["token:gate"]
may = ["stream"]
max_streams = 2

[[rules]]
who = ["token:gate", "token:ops"]
may = ["detect", "describe"]
rate = 0.001
"""


def test_a_caller_has_its_streams_and_no_more(models: Models, office: Office) -> None:
    office.policy.write_text(LIMITED + '[[rules]]\nwho = ["token:ops"]\nmay = ["stream"]\n')
    with (
        models.behind(office.sources) as at,
        Caller(at, office.authority, office.shown["gate"]) as gate,
        Caller(at, office.authority, office.shown["ops"]) as ops,
        contextlib.ExitStack() as stack,
    ):
        done = threading.Event()
        stack.callback(done.set)
        opened = [stack.enter_context(gate.stream("cars", done)) for _ in range(2)]
        for answers in opened:
            assert next(answers).answer.frame_id == 1
        assert gate.call("stream", "cars") == "STREAMS_EXCEEDED"
        assert ops.call("stream", "cars") == OK, "others have their own"
        opened[0].cancel()
        wait_for(lambda: gate.call("stream", "cars") == OK, "the place of the stream that has ended")


def test_a_caller_has_its_rate_and_no_more(models: Models, office: Office) -> None:
    office.policy.write_text(LIMITED)
    tls = office.authority.tls()
    with models.behind(office.sources) as at:
        with Client(at.address, tls=tls, token=office.shown["gate"].token, timeout=5) as client:
            client.model("cars")
            with pytest.raises(Overloaded) as caught:
                client.models()
        assert (caught.value.reason, caught.value.metadata["who"]) == ("RATE_EXCEEDED", "token:gate")
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 900
        with Client(at.address, tls=tls, token=office.shown["ops"].token) as client:
            client.model("cars")


def test_turns_are_an_identity_s_however_many_connections_it_has(
    models: Models, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows: list[Flow] = []
    item = models.engine.item

    def noted(query: Query, deadline: float) -> Any:
        flows.append(query.flow)
        return item(query, deadline)

    monkeypatch.setattr(models.engine, "item", noted)

    def flow(name: str, verb: str) -> Flow:
        with Caller(at, office.authority, office.shown[name]) as caller:
            assert caller.call(verb, "cars") == OK
        return flows[-1]

    with models.behind(office.sources) as at:
        detects, again, streams = flow("gate", "detect"), flow("gate", "detect"), flow("gate", "stream")
        other = flow("ops", "detect")
    assert len({id(one) for one in (detects, again, streams)}) == 3, "each has turns among its owner's"
    assert detects.owner is not None
    assert again.owner is streams.owner is detects.owner
    assert other.owner not in (None, detects.owner)


# The SDK.


def test_the_sdk_shows_who_calls_and_says_who_does_not(models: Models, office: Office) -> None:
    tls = office.authority.tls()
    with models.behind(office.sources) as at:
        host = at.address.removeprefix("grpcs://")
        for address in (at.address, host, f"https://{host}"):
            with Client(address, tls=tls, token=office.shown["ops"].token) as client:
                assert [model.name for model in client.models()] == list(MODELS)
        with Client(at.address, tls=tls) as client, pytest.raises(Unauthenticated, match=r"MISSING.*no credentials"):
            client.diagnose(b"x", model="cars")
        with (
            Client(at.address, tls=tls, token=office.shown["gate"].token) as client,
            pytest.raises(NotPermitted, match="token:gate may not describe"),
        ):
            client.models()


def test_a_token_does_not_travel_without_tls(tmp_path: Path) -> None:
    for address in ("vedette.test:8001", "10.0.0.1", "http://10.0.0.1:8001", "0.0.0.0:8001", "x.localhost"):
        with pytest.raises(LocalError, match="without TLS") as caught:
            Client(address, token=SECRET)
        assert SECRET not in str(caught.value)
    for address in ("127.0.0.1:8001", "[::1]", "localhost", f"unix:{tmp_path}/x.sock", "grpcs://vedette.test"):
        with Client(address, token=SECRET) as client:
            assert SECRET not in repr(client._endpoint)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "é", "x" * 8_000, b"bytes", 7])
def test_what_is_no_token_is_refused_without_being_shown(token: Any) -> None:
    with pytest.raises(LocalError) as caught:
        Client(token=token)
    assert len(str(caught.value)) < 150
    assert not token or str(token) not in str(caught.value)


def test_the_environment_says_it_too(models: Models, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TLS_CA", str(office.authority.path))
    monkeypatch.setenv("VEDETTE_TOKEN", office.shown["ops"].token)
    with models.behind(office.sources) as at, Client(at.address) as client:
        assert client.model("cars").name == "cars"


@pytest.mark.parametrize(("given", "said"), [
    ({"ca": "no/such/file"}, "ca: 'no/such/file' cannot be read"),
    ({"ca": "tests/support/authority.py"}, "contains no PEM certificates"),
    ({"cert": "x"}, "requires its key"),
    ({"cert": "tests/support/authority.py", "key": "tests/support/authority.py"}, "not a certificate and its"),
    ({"ca": 7}, "path of a PEM file"),
])  # fmt: skip
def test_files_that_are_none_are_named_at_once(given: Any, said: str) -> None:
    with pytest.raises(LocalError, match=said):
        Client("grpcs://vedette.test", tls=Tls(**given))


def test_tls_and_its_absence_are_told_apart(models: Models, office: Office, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with models.behind(office.sources) as at, models.behind(AccessSources()) as plain:
        for address, tls, said in (
            (at.address, other.tls(), "cannot be verified"),
            (plain.address, office.authority.tls(), "does not speak TLS"),
        ):
            with Client(address, tls=tls, timeout=10) as client, pytest.raises(Exception, match=said):
                client.healthy()

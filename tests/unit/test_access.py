"""The files about who may call: what is wrong with one is said in a line, and what they allow is counted."""

import base64
import contextlib
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from vedette_server import addresses
from vedette_server.access import exposure, jwts, policy, tokens
from vedette_server.access.access import Access, AccessSources, Call, Caller, Credentials
from vedette_server.access.certificates import read as read_certificates
from vedette_server.access.files import AccessError, Kept
from vedette_server.access.limits import Quotas
from vedette_server.access.policy import Policy, Rule, Verb
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.settings import Settings, load

from tests.support.authority import Authority
from tests.support.guarded import AUDIENCE, ISSUER, Issuer

HASH = "sha256:" + "a" * 64
RSA = {"kty": "RSA", "kid": "a", "e": "AQAB", "n": base64.urlsafe_b64encode(b"\x80" + bytes(125) + b"\x01").decode()}


@pytest.mark.parametrize(("written", "said"), [
    ("gate", "line 1 is not NAME sha256:HASH"),
    (f"# of cameras\n\ngate {HASH}\nvedette_a-secret", "line 4 is not NAME"),
    (f"gate {HASH.upper()}", "line 1 is not"),
    (f"a b {HASH}", "line 1 is not"),
    (f"{'n' * 65} {HASH}", "line 1 is not"),
    (f"one {HASH}\ntwo {HASH}", "two has the same token as one"),
    (b"\xff\xfe", "is not UTF-8"),
    (b"x" * (5 * 2**20), "larger than"),
    (None, "does not exist"),
])  # fmt: skip
def test_a_file_of_tokens_that_is_none(tmp_path: Path, written: str | bytes | None, said: str) -> None:
    path = tmp_path / "tokens"
    if written is not None:
        path.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(AccessError, match=said) as caught:
        tokens.read(path)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_token_is_known_by_the_line_that_was_made_for_it(tmp_path: Path) -> None:
    line, token = tokens.make("gate")
    other, second = tokens.make("gate")
    (tmp_path / "tokens").write_text(f"{line}\n{other}\n")
    holders = tokens.read(tmp_path / "tokens")
    assert [holders[tokens.digest(one)] for one in (token, second)] == ["gate", "gate"], "two, while one takes over"
    assert token not in line
    assert len(token) > 40


@pytest.mark.parametrize(("written", "said"), [
    ("[[rules]", "is not TOML"),
    ("", "rules: Field required"),
    ('rules = [{who = ["alice"], may = []}]', "'alice' is not a caller: write one of token:NAME"),
    ('rules = [{who = ["group:ops"], may = []}]', "does not define ops"),
    ('[groups]\nops = ["group:ops"]\n[[rules]]\nwho = ["*"]\nmay = []', "'group:ops' is not a caller"),
    ('rules = [{who = ["*"], may = ["fly"]}]', "rules.0.may.0: Input should be 'detect'"),
    ('rules = [{who = ["*"], may = [], modles = []}]', "rules.0.modles: Extra inputs"),
    ('rules = [{who = ["*"], may = [], rate = 0}]', "rules.0.rate: Input should be greater than 0"),
    ('rules = [{who = ["*"], may = [], rate = inf}]', "rules.0.rate: Input should be a finite number"),
    ('rules = [{who = ["*"], may = [], max_streams = 0}]', "rules.0.max_streams"),
    ("rules = " + "9" * 5_000, "is not TOML"),
    ("rules = " + "[" * 50_000, "is not TOML"),
])  # fmt: skip
def test_a_policy_that_is_none(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "policy.toml").write_text(written)
    with pytest.raises(AccessError, match=said):
        policy.read(tmp_path / "policy.toml")


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    page = Path("deploy/docs/security.md").read_text()
    (tmp_path / "policy.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    read = policy.read(tmp_path / "policy.toml")
    camera = read.rule(("token:yard-7",), Verb.STREAM, "cars-2")
    assert camera
    assert (camera.max_streams, camera.rate) == (4, 2)
    assert read.rule(("token:yard-7",), Verb.STREAM, "roadsigns") is None
    assert read.rule(("cert:CN=ops,O=Acme",), Verb.DIAGNOSE, "roadsigns")
    assert read.rule(("anonymous",), Verb.DETECT, "roadsigns")
    assert read.rule(("anonymous",), Verb.METRICS) is None


@pytest.mark.parametrize(("keys", "said"), [
    ("[", "is not a JWKS"),
    ("[" * 100_000, "is not a JWKS"),
    ([], "is not a JWKS"),
    ([{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}], "key 1 is not asymmetric"),
    ([{"kty": ["EC"]}], "key 1 is not asymmetric"),
    ([7], "key 1 is not asymmetric"),
    ([{**RSA, "kid": ["a"]}], "key 1 has an id that is not text"),
    ([{**RSA, "d": "AQAB"}], "key 1 is a private key"),
    ([{**RSA, "alg": "HS256"}], "key 1 is for 'HS256'"),
    ([RSA], "key 1 has 1016 bits"),
    ([{"kty": "EC", "kid": "a", "crv": "P-256", "x": "AQAB", "y": "AQAB"}], "key 1 cannot be read"),
])  # fmt: skip
def test_a_jwks_that_is_none(tmp_path: Path, keys: Any, said: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(keys if isinstance(keys, str) else json.dumps({"keys": keys}))
    with pytest.raises(AccessError, match=said):
        jwts.read(path, "issuer", "audience")


def test_keys_have_ids_of_their_own(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    (key,) = json.loads(issuer.path.read_text())["keys"]
    nameless = {name: value for name, value in key.items() if name != "kid"}
    for keys in ([key, key], [key, nameless]):
        issuer.path.write_text(json.dumps({"keys": keys}))
        with pytest.raises(AccessError, match="key 2 has no unique id"):
            jwts.read(issuer.path, "issuer", "audience")


def test_a_pair_that_is_none(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    good, wrong = authority.server(), other.server()
    encrypted = tmp_path / "encrypted.key"
    private = ec.generate_private_key(ec.SECP256R1())
    encrypted.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"of nobody here"))
    )
    for cert, key, said in (
        (good.cert, wrong.key, "KEY_VALUES_MISMATCH"),
        (good.key, good.key, "are not a certificate and its key"),
        (good.cert, tmp_path, "is not a file"),
        (good.cert, encrypted, "is encrypted"),
    ):
        with pytest.raises(AccessError, match=said):
            read_certificates(cert, key, None)
    with pytest.raises(AccessError, match="no CA certificates"):
        read_certificates(good.cert, good.key, good.key)
    assert b"PRIVATE" not in repr(read_certificates(good.cert, good.key, authority.path)).encode()


def test_what_ends_first_of_what_is_needed_is_when_a_certificate_ends(tmp_path: Path) -> None:
    soon, late = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2031, 4000))
    authority = Authority(tmp_path)
    root = x509.load_pem_x509_certificate(authority.path.read_bytes()).not_valid_after_utc
    assert soon < root < late
    for ends in (soon, late):
        pair = authority.server(ends=ends)
        pair.cert.write_bytes(pair.cert.read_bytes() + authority.path.read_bytes())
        read = read_certificates(pair.cert, pair.key, authority.path)
        assert read.ends == {"server": ends.timestamp(), "client_ca": root.timestamp()}, "a root is not looked at"
    between = trustme.CA().create_child_ca()
    issued = between.issue_cert("localhost", not_after=late)
    pair.cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    pair.key.write_bytes(issued.private_key_pem.bytes())
    child = x509.load_pem_x509_certificate(between.cert_pem.bytes()).not_valid_after_utc
    assert read_certificates(pair.cert, pair.key, None).ends == {"server": child.timestamp()}


def test_what_is_kept_is_read_when_it_changes_and_only_then(tmp_path: Path) -> None:
    path, told = tmp_path / "file", list[tuple[str, bool]]()
    reads: list[str] = []

    def read() -> str:
        reads.append(path.read_text())
        if "bad" in reads[-1]:
            raise AccessError("it is bad")
        return reads[-1]

    path.write_text("one")
    kept = Kept("file", [path], read, lambda kind, taken: told.append((kind, taken)))
    assert [kept.get(), kept.get()] == ["one", "one"]
    assert reads == ["one"]
    first = kept.edition
    path.write_text("bad")
    assert [kept.get(), kept.get()] == ["one", "one"]
    assert told == [("file", False)], "said once"
    assert (kept.stale, kept.edition) == (True, first)
    path.write_text("two!")
    assert kept.get() == "two!"
    assert (kept.stale, kept.edition != first) == (False, True)
    kept.reload()
    assert told == [("file", False), ("file", True), ("file", True)]


def test_a_call_that_goes_on_outlives_its_jwt_and_not_its_key(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    access = Access(AccessSources(jwks=issuer.path, jwt_issuer=ISSUER, jwt_audience=AUDIENCE))
    call = access.begin(shown(issuer.token("auditor")), Verb.STREAM)
    old = shown(issuer.token("auditor", exp=1_000_000_000))
    access.again(call, old)
    with pytest.raises(Refused):
        access.begin(old, Verb.STREAM)
    before = access.edition
    Issuer(issuer.path, "second")
    assert access.edition != before
    with pytest.raises(Refused) as caught:
        access.again(call, old)
    assert caught.value.reason is Reason.CREDENTIALS_REFUSED


def shown(token: str) -> Credentials:
    return Credentials((f"Bearer {token}",))


# Groups.

GROUPED = """
[groups]
staff = ["jwt-group:ops-*", "token:gate"]

[[rules]]
who = ["group:staff"]
may = ["diagnose"]

[[rules]]
who = ["jwt-group:viewers"]
may = ["describe"]
"""


@pytest.mark.parametrize(("claim", "may"), [
    (["viewers", "others"], {"describe"}),
    ("viewers", {"describe"}),
    (["ops-night"], {"diagnose"}),
    (["ops-night", "viewers"], {"diagnose", "describe"}),
    (["jwt-group:viewers", "group:staff", "staff", "*", "token:gate"], set()),
    ([], set()),
    (None, set()),
])  # fmt: skip
def test_the_groups_of_a_jwt_are_names_of_the_policy(tmp_path: Path, claim: Any, may: set[str]) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    (tmp_path / "policy.toml").write_text(GROUPED)
    sources = AccessSources(
        tls_cert=None,
        tls_key=None,
        tls_client_ca=None,
        tokens=None,
        jwks=issuer.path,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_groups="roles",
        policy=tmp_path / "policy.toml",
    )
    access, who = Access(sources), shown(issuer.token("somebody", roles=claim, groups=["viewers"]))
    for verb in (Verb.DESCRIBE, Verb.DIAGNOSE):
        with contextlib.nullcontext() if verb in may else pytest.raises(Refused, match="NOT_PERMITTED"):
            access.begin(who, verb)


@pytest.mark.parametrize(
    "claim", [7, {"viewers": 1}, [7], ["a\nb"], [""], ["x" * 257], ["x"] * 257, ["viewers", ["x"]]]
)
def test_groups_that_are_none_are_refused(tmp_path: Path, claim: Any) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    access = Access(AccessSources(jwks=issuer.path, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_groups="roles"))
    with pytest.raises(Refused) as caught:
        access.begin(shown(issuer.token("somebody", roles=claim)), Verb.DETECT)
    assert "its roles is not a list" in str(caught.value.facts["why"])


def test_a_policy_with_groups_that_no_claim_has_is_refused(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    (tmp_path / "policy.toml").write_text(GROUPED)
    with pytest.raises(AccessError, match="name one with --jwt-groups"):
        Access(
            AccessSources(
                tls_cert=None,
                tls_key=None,
                tls_client_ca=None,
                tokens=None,
                jwks=issuer.path,
                jwt_issuer=ISSUER,
                jwt_audience=AUDIENCE,
                jwt_groups="",
                policy=tmp_path / "policy.toml",
            )
        )


# Limits.


def test_a_rate_is_given_back_with_time() -> None:
    now = 1000.0
    limits, rule = Quotas(lambda: now), Rule(who=("*",), may=(Verb.DETECT,), rate=2)

    told: list[Refused] = []

    def sends(who: str) -> bool:
        try:
            limits.request(who, who, rule)
        except Refused as refusal:
            told.append(refusal)
        else:
            return True
        return False

    assert [sends("a") for _ in range(3)] == [True, True, False]
    assert (told[0].reason, told[0].facts["retry_seconds"]) == (Reason.RATE_EXCEEDED, "0.5")
    assert sends("b"), "everybody has its own"
    now += 0.5
    assert [sends("a") for _ in range(2)] == [True, False]
    now += 3600
    assert [sends("a") for _ in range(3)] == [True, True, False], "and nobody saves up"


def test_accounts_that_are_as_new_are_let_go() -> None:
    now = 1000.0
    limits, rule = Quotas(lambda: now), Rule(who=("*",), may=tuple(Verb), rate=1)
    limits.open("stays", "stays", rule)
    for number in range(20_000):
        limits.request("anonymous", f"anonymous {number}", rule)
    now += 2.0
    limits.request("anonymous", "anonymous last", rule)
    assert len(limits._accounts) == 2


def test_strangers_are_told_apart_by_their_hosts() -> None:
    access = Access()
    one, other = (access.begin(Credentials(host=host), Verb.DETECT).caller for host in ("10.0.0.1", "10.0.0.2"))
    assert (one.name, other.name) == ("anonymous", "anonymous")
    assert one.key != other.key
    assert Caller("token:gate", "10.0.0.1").key == Caller("token:gate", "10.0.0.2").key


def test_nobody_reads_the_names_of_models_that_it_may_not_ask() -> None:
    rules = Policy(rules=(Rule(who=("*",), may=(Verb.DETECT,), models=("cars", "lorries")),))
    call = Call(Caller("token:gate"), Verb.DETECT, rules, Quotas(), identities=True)
    with pytest.raises(Refused) as caught:
        call.choose("lorries", ["cars", "secret"])
    assert (caught.value.reason, caught.value.facts["served"]) == (Reason.MODEL_NOT_FOUND, "cars")
    assert call.choose("", ["cars", "secret"]) == "cars"
    with pytest.raises(Refused) as caught:
        call.choose("secret", ["cars", "secret"])
    assert caught.value.reason is Reason.NOT_PERMITTED


def test_what_cannot_be_served_is_known_to_those_who_may_ask() -> None:
    rules = Policy(rules=(Rule(who=("*",), may=(Verb.DESCRIBE,), models=("cars", "broken")),))
    call = Call(Caller("token:gate"), Verb.DESCRIBE, rules, Quotas(), identities=True)
    assert call.choose("broken", ["cars", "secret"], ["broken", "hidden"]) == "broken"
    with pytest.raises(Refused) as caught:
        call.choose("hidden", ["cars", "secret"], ["broken", "hidden"])
    assert caught.value.reason is Reason.NOT_PERMITTED


# Where a server is open to others.

TLS = AccessSources(tls_cert=Path("cert"), tls_key=Path("key"))
KNOWN = AccessSources(tokens=Path("tokens"))
BOTH = AccessSources(tls_cert=Path("cert"), tls_key=Path("key"), tokens=Path("tokens"))


@pytest.mark.parametrize(("listen", "sources", "lacks"), [
    ("127.0.0.1:1", AccessSources(), ()),
    ("[::1]:1", AccessSources(), ()),
    ("localhost:1", AccessSources(), ()),
    ("unix:/run/x.sock", AccessSources(), ()),
    ("0.0.0.0:1", AccessSources(), ("--tls-cert", "--tokens")),
    ("[::]:1", TLS, ("--tokens",)),
    ("vedette.test:1", KNOWN, ("--tls-cert",)),
    ("10.0.0.1:1", BOTH, ()),
    ("10.0.0.1:1", AccessSources(tls_cert=Path("c"), tls_key=Path("k"), tls_client_ca=Path("ca")), ()),
])  # fmt: skip
def test_where_a_server_is_open(listen: str, sources: AccessSources, lacks: tuple[str, ...]) -> None:
    for addressed in (
        (addresses.grpc(listen), addresses.tcp("127.0.0.1:2")),
        (addresses.grpc("127.0.0.1:2"), addresses.grpc(listen)),
    ):
        said = exposure.problem(addressed, sources)
        assert bool(said) == bool(lacks)
        assert all(flag in said for flag in lacks)
        assert not said or listen in said
        assert ("--insecure" in said) == bool(lacks)


@pytest.mark.parametrize("given", [
    {"tls_cert": "c"}, {"tls_key": "k"}, {"tls_client_ca": "ca"}, {"jwks": "j"}, {"jwks": "j", "jwt_issuer": "i"},
    {"jwt_audience": "a"}, {"jwt_groups": "g"},
])  # fmt: skip
def test_half_of_what_belongs_together_is_an_error(given: Any) -> None:
    with pytest.raises(ValueError, match="give both"):
        _ = Settings(**given).sources


@pytest.mark.parametrize(("jwks", "said"), [
    ("ftp://issuer.test/keys", "neither a file nor an address"),
    ("https:///keys", "neither a file nor an address"),
    ("http://issuer.test/keys", "without TLS"),
    ("http://10.0.0.1/keys", "without TLS"),
    ("http://localhost.test/keys", "without TLS"),
    ("https://somebody:secret@issuer.test/keys", "a name, a password"),
])  # fmt: skip
def test_addresses_that_keys_are_not_fetched_from(jwks: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load({"jwks": jwks})


@pytest.mark.parametrize("jwks", ["https://issuer.test/keys", "http://127.0.0.1:1/keys", "http://[::1]:1/keys"])
def test_addresses_that_keys_are_fetched_from(jwks: str) -> None:
    assert load({"jwks": jwks}).jwks == jwks


def test_what_is_no_address_is_a_file() -> None:
    assert load({"jwks": "keys.json"}).jwks == Path("keys.json")

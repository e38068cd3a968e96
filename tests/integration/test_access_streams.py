"""A stream outlives neither its caller's token, nor the key of its JWT, nor the rule that allows it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from vedette_server.access.access import AccessSources

from tests.support.guarded import AUDIENCE, ISSUER, Caller, Issuer, Models, Shown, Tokens, reason_of

RULES = """
[[rules]]
who = ["token:gate", "token:ops", "jwt:auditor"]
may = ["stream"]
models = ["cars"]
"""


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


class Office:
    """Everybody's files."""

    def __init__(self, folder: Path) -> None:
        self.tokens = Tokens(folder / "tokens")
        self.issuer = Issuer(folder / "jwks.json")
        self.policy = folder / "policy.toml"
        self.policy.write_text(RULES)
        self.sources = AccessSources(
            tokens=self.tokens.path,
            jwks=self.issuer.path,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            policy=self.policy,
        )
        self.shown = {name: Shown(self.tokens.add(name)) for name in ("gate", "ops")}
        self.shown["auditor"] = Shown(self.issuer.token("auditor"))

    def rule_out(self, models: str) -> None:
        beside = self.policy.with_suffix(".new")
        beside.write_text(RULES.replace("cars", models))
        beside.replace(self.policy)

    def new_key(self) -> None:
        beside = self.issuer.path.with_suffix(".new")
        Issuer(beside)
        beside.replace(self.issuer.path)


@pytest.mark.parametrize(("who", "revoke", "reason", "honest"), [
    ("gate", lambda office: office.tokens.revoke("gate"), "CREDENTIALS_REFUSED", "ops"),
    ("auditor", Office.new_key, "CREDENTIALS_REFUSED", "ops"),
    ("gate", lambda office: office.rule_out("faces"), "NOT_PERMITTED", None),
])  # fmt: skip
def test_a_stream_ends_with_what_allows_it(
    models: Models, tmp_path: Path, who: str, revoke: Callable[[Office], None], reason: str, honest: str | None
) -> None:
    office, over = Office(tmp_path), threading.Event()
    before = counted(models, reason)
    with (
        models.behind(office.sources) as at,
        Caller(at, None, office.shown[who]) as caller,
        Caller(at, None, office.shown[honest or who]) as other,
        caller.stream("cars", over) as answers,
        other.stream("cars", over) as others,
    ):
        assert next(answers).HasField("answer")
        assert next(others).HasField("answer")
        revoke(office)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert reason_of(caught.value) == reason
        if not honest:
            with pytest.raises(grpc.RpcError):
                next(others)
        over.set()
        if honest:
            assert not list(others), "it goes on to its own end"
    assert counted(models, reason) == before + (1 if honest else 2)


def counted(models: Models, reason: str) -> float:
    series = f'vedette_requests_total{{model="",outcome="{reason}",version=""}} '
    lines = models.metrics.page("")[0].decode().splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def test_a_stream_too_many_is_counted(models: Models) -> None:
    over, before = threading.Event(), counted(models, "TOO_MANY_STREAMS")
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(models.behind(AccessSources()))
        caller = stack.enter_context(Caller(at, None, Shown()))
        for _ in range(8):
            next(stack.enter_context(caller.stream("cars", over)))
        assert caller.call("stream", "cars") == "TOO_MANY_STREAMS"
        over.set()
    assert counted(models, "TOO_MANY_STREAMS") == before + 1

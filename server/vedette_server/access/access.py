"""The one place of decisions: who a caller is, and whether it may do what it asks. gRPC and HTTP both ask here."""

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from vedette_server.access import certificates, jwts, policy, tokens
from vedette_server.access.certificates import Certificates
from vedette_server.access.fetched import Fetched
from vedette_server.access.files import Kept, Told
from vedette_server.access.jwts import Issuer, JwtRefusedError, KeyUnknownError
from vedette_server.access.limits import Quotas
from vedette_server.access.policy import ANONYMOUS, JWT_GROUP, Policy, Rule, Verb
from vedette_server.contract.refusal import Reason, Refused

_DOTS = 2  # in a JWT, and in no token of ours
_REVOKED = "it is unknown, or was revoked"


@dataclass(frozen=True)
class AccessSources:
    """The files that say who may call. Without any, everybody may do everything."""

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    jwks: Path | str | None = None  # a file, or an address
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_groups: str = ""  # the claim that has a caller's groups; empty: none has
    policy: Path | None = None

    @property
    def identities(self) -> bool:
        """Whether callers can show who they are."""
        return any((self.tls_client_ca, self.tokens, self.jwks))


@dataclass(frozen=True)
class Credentials:
    """What a call shows."""

    authorization: tuple[str, ...] = field(default=(), repr=False)  # the header's values
    certificate: bytes | None = None  # that was verified, as PEM or DER
    host: str = ""  # it comes from, for telling those apart that show nothing


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    name: str  # as the policy has it
    host: str = ""
    groups: tuple[str, ...] = ()  # of its JWT, likewise

    @property
    def known(self) -> bool:
        """Whether it has shown who it is."""
        return self.name != ANONYMOUS

    @property
    def names(self) -> tuple[str, ...]:
        """All that rules may call it."""
        return (self.name, *self.groups)

    @property
    def key(self) -> str:
        """By what its limits are counted."""
        return self.name if self.known else f"{ANONYMOUS} {self.host}"


class Call:
    """One call that is under way. Its limits are those of the policy of its beginning."""

    def __init__(self, caller: Caller, verb: Verb, by: Policy, limits: Quotas, *, identities: bool) -> None:
        self.caller = caller
        self._model: str | None = None  # that it was admitted about
        self._verb = verb
        self._policy = by
        self._limits = limits
        self._identities = identities
        self._stream: Rule | None = None  # under which it is counted as an open stream

    def may(self, model: str) -> bool:
        """Whether it may be about a model."""
        return self._policy.rule(self.caller.names, self._verb, model) is not None

    def check(self) -> None:
        """Raise `Refused` where it may be about no model at all: CREDENTIALS_MISSING, NOT_PERMITTED."""
        self._rule(None)

    def admit(self, model: str | None = None) -> None:
        """Count it, if it may be about that model. Raises `Refused`: also RATE_EXCEEDED, STREAMS_EXCEEDED."""
        rule, caller, self._model = self._rule(model), self.caller, model
        self._limits.request(caller.name, caller.key, rule)
        if self._verb is Verb.STREAM:
            self._limits.open(caller.name, caller.key, rule)
            self._stream = rule

    def check_under(self, now: Policy) -> None:
        """The same by the policy of now, and about what it was admitted about."""
        self._policy = now
        self._rule(self._model)

    def choose(self, name: str, served: Sequence[str], aside: Sequence[str] = ()) -> str:
        """Admit it about the model that is meant: without a name, the only one that it may be about.

        `aside` are those that are known and cannot be served, of which the engine says more.

        Raises `Refused`: also MODEL_NAME_MISSING, MODEL_NOT_FOUND, which name no model that it may not be about.
        """
        visible = [one for one in served if self.may(one)]
        if not name and len(visible) == 1:
            name = visible[0]
        if name or (served and not visible):
            self.admit(name or served[0])
        if name not in (*visible, *aside):
            reason = Reason.MODEL_NOT_FOUND if name else Reason.MODEL_NAME_MISSING
            raise Refused(reason, model=name, served=", ".join(visible))
        return name

    def _rule(self, model: str | None) -> Rule:
        rule = self._policy.rule(self.caller.names, self._verb, model)
        if rule is not None:
            return rule
        if self._identities and not self.caller.known:
            raise Refused(Reason.CREDENTIALS_MISSING, verb=self._verb)
        what = "" if model is None else f" with {model!r}"
        raise Refused(Reason.NOT_PERMITTED, who=self.caller.name, verb=self._verb, what=what)

    def close(self) -> None:
        """It has ended."""
        if self._stream is not None:
            self._limits.close(self.caller.key, self._stream)
            self._stream = None


class Access:
    """Tells who calls and begins their calls. What the files say is looked up at each."""

    def __init__(self, sources: AccessSources | None = None, told: Told = lambda _file, _taken: None) -> None:
        """Read the files; raises `AccessError`. `told` hears when one was read again."""
        given = sources or AccessSources()
        self._identities = given.identities
        self._limits = Quotas()
        self.certificates: Kept[Certificates] | None = None
        self._tokens: Kept[Mapping[str, str]] | None = None
        self._issuer: Kept[Issuer] | Fetched | None = None
        self._policy: Kept[Policy] | None = None
        self._takes_certificates = given.tls_client_ca is not None
        if given.tls_cert and given.tls_key:
            paths = [path for path in (given.tls_cert, given.tls_key, given.tls_client_ca) if path]
            read = functools.partial(certificates.read, given.tls_cert, given.tls_key, given.tls_client_ca)
            self.certificates = Kept("tls", paths, read, told)
        if path := given.tokens:
            self._tokens = Kept("tokens", [path], functools.partial(tokens.read, path), told)
        if given.jwks:
            self._issuer = _issuer(given.jwks, (given.jwt_issuer, given.jwt_audience, given.jwt_groups), told)
        if path := given.policy:
            rules = functools.partial(policy.read, path, jwt_groups=bool(given.jwt_groups))
            self._policy = Kept("policy", [path], rules, told)

    @property
    def _kept(self) -> "Mapping[str, Kept[Any] | Fetched]":
        """Everything that is kept, by what the log and the metrics call it."""
        kept = {"tls": self.certificates, "tokens": self._tokens, "jwks": self._issuer, "policy": self._policy}
        return {kind: one for kind, one in kept.items() if one is not None}

    @property
    def stale(self) -> Mapping[str, bool]:
        """Whether what was there before holds on, since what is there now cannot be read; of each kind."""
        return {kind: kept.stale for kind, kept in self._kept.items()}

    @property
    def ends(self) -> Mapping[str, float]:
        """When certificates end, in seconds since the epoch."""
        return self.certificates.get().ends if self.certificates else {}

    def reload(self) -> None:
        """Read every file again."""
        for kept in self._kept.values():
            kept.reload()

    async def fetch(self) -> None:
        """Fetch what is at an address, before the first call."""
        if isinstance(self._issuer, Fetched):
            await self._issuer.fetch()

    async def follow(self) -> None:
        """Fetch it again and again, until cancelled. Files are looked at when they are used."""
        await (self._issuer.follow() if isinstance(self._issuer, Fetched) else asyncio.Event().wait())

    def begin(self, shown: Credentials, verb: Verb) -> Call:
        """Begin a call. Raises `Refused`: CREDENTIALS_MISSING, CREDENTIALS_REFUSED, NOT_PERMITTED."""
        call = Call(self._caller(shown), verb, self._rules, self._limits, identities=self._identities)
        call.check()
        return call

    @property
    def edition(self) -> tuple[int, ...]:
        """Something else whenever it may be decided otherwise who calls, and what it may."""
        return tuple(kept.edition for kept in self._kept.values())

    def again(self, call: Call, shown: Credentials) -> None:
        """Decide about a call once more, while it goes on: its credentials may have been revoked, but not run out.

        Raises `Refused` as `begin`.
        """
        if self._caller(shown, expired=True).name != call.caller.name:
            raise Refused(Reason.CREDENTIALS_REFUSED, why=_REVOKED)
        call.check_under(self._rules)

    @property
    def _rules(self) -> Policy:
        if self._policy is not None:
            return self._policy.get()
        return policy.THE_KNOWN if self._identities else policy.EVERYBODY

    def _caller(self, shown: Credentials, *, expired: bool = False) -> Caller:
        """Who calls. What is shown and wrong is refused, whatever else is shown; `expired` takes old JWTs, too."""
        if shown.authorization and (self._tokens or self._issuer):
            name, groups = self._bearer(shown.authorization, expired=expired)
            return Caller(name, shown.host, groups)
        if shown.certificate is not None and self._takes_certificates:
            return Caller(f"cert:{_subject(shown.certificate)}", shown.host)
        return Caller(ANONYMOUS, shown.host)

    def _bearer(self, values: tuple[str, ...], *, expired: bool) -> tuple[str, tuple[str, ...]]:
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token:
            raise Refused(Reason.CREDENTIALS_REFUSED, why="authorization is not one 'Bearer TOKEN'")
        if self._tokens and (name := self._tokens.get().get(tokens.digest(token))):
            return f"token:{name}", ()
        if self._issuer and token.count(".") == _DOTS:
            try:
                subject = self._issuer.get().subject(token, expired=expired)
            except JwtRefusedError as error:
                if isinstance(error, KeyUnknownError) and isinstance(self._issuer, Fetched):
                    self._issuer.reload()  # it may be a new one
                raise Refused(Reason.CREDENTIALS_REFUSED, why=str(error)) from None
            return f"jwt:{subject.name}", tuple(f"{JWT_GROUP}{group}" for group in subject.groups)
        raise Refused(Reason.CREDENTIALS_REFUSED, why=_REVOKED)


def _issuer(jwks: Path | str, of: tuple[str, str, str], told: Told) -> Kept[Issuer] | Fetched:
    """Whose JWTs are taken; `of` names who makes them, for whom, and the claim of groups. Raises `AccessError`."""
    if isinstance(jwks, str):
        return Fetched(jwks, Issuer({}, *of), lambda written: jwts.parse(written, jwks, *of), told)
    return Kept("jwks", [jwks], lambda: jwts.read(jwks, *of), told)


@functools.lru_cache(1_000)
def _subject(certificate: bytes) -> str:
    """Whom a verified certificate names, as RFC 4514 writes it: CN=alice,O=Acme. Raises `Refused`."""
    try:
        pem = certificate.startswith(b"-----")
        found = x509.load_pem_x509_certificate(certificate) if pem else x509.load_der_x509_certificate(certificate)
        name = found.subject.rfc4514_string()
    except ValueError:
        raise Refused(Reason.CREDENTIALS_REFUSED, why="the certificate cannot be read") from None
    if not name or not name.isprintable():
        raise Refused(Reason.CREDENTIALS_REFUSED, why="the certificate's subject is empty, or cannot be printed")
    return name

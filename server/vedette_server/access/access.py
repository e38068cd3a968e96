"""The single place of access decisions, for gRPC and HTTP: who a caller is, and what it may do."""

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

_DOTS = 2  # in a JWT; our own tokens have none
_REVOKED = "it is unknown or was revoked"


@dataclass(frozen=True, kw_only=True)
class AccessSources:
    """The files that define who may call. Without any, everyone may do everything."""

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    jwks: Path | str | None = None  # a file or a URL
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_groups: str = ""  # claim with a caller's groups; empty: no groups
    policy: Path | None = None

    @property
    def identities(self) -> bool:
        """True if callers can prove their identity."""
        return any((self.tls_client_ca, self.tokens, self.jwks))


@dataclass(frozen=True)
class Credentials:
    """The credentials that a call presents."""

    authorization: tuple[str, ...] = field(default=(), repr=False)  # values of the header
    certificate: bytes | None = None  # verified certificate, as PEM or DER
    host: str = ""  # origin, which tells anonymous callers apart


@dataclass(frozen=True)
class Caller:
    """An authenticated or anonymous caller."""

    name: str  # as in the policy
    host: str = ""
    groups: tuple[str, ...] = ()  # from its JWT, as in the policy

    @property
    def known(self) -> bool:
        """True if it has proved its identity."""
        return self.name != ANONYMOUS

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which rules may refer to it."""
        return (self.name, *self.groups)

    @property
    def key(self) -> str:
        """The key by which its limits are counted."""
        return self.name if self.known else f"{ANONYMOUS} {self.host}"


class Call:
    """A call in flight, under the policy and limits in force when it began."""

    def __init__(self, caller: Caller, verb: Verb, by: Policy, limits: Quotas, *, identities: bool) -> None:
        self.caller = caller
        self._model: str | None = None  # for which it was admitted
        self._verb = verb
        self._policy = by
        self._limits = limits
        self._identities = identities
        self._stream: Rule | None = None  # under which it counts as an open stream

    def may(self, model: str) -> bool:
        """Return whether it may concern `model`."""
        return self._policy.rule(self.caller.names, self._verb, model) is not None

    def check(self) -> None:
        """Raise `Refused` if it may concern no model at all: CREDENTIALS_MISSING, NOT_PERMITTED."""
        self._rule(None, self._verb)

    def also(self, verb: Verb) -> None:
        """Raise `Refused` if its caller may not do `verb` too: CREDENTIALS_MISSING, NOT_PERMITTED."""
        self._rule(None, verb)

    def admit(self, model: str | None = None) -> None:
        """Admit and count it, if it may concern `model`. Raises `Refused`: also RATE_EXCEEDED, STREAMS_EXCEEDED.

        A stream that concerns several models counts once, for the first of them.
        """
        rule, caller = self._rule(model, self._verb), self.caller
        if self._stream is not None:
            return
        self._model = model
        self._limits.request(caller.name, caller.key, rule)
        if self._verb is Verb.STREAM:
            self._limits.open(caller.name, caller.key, rule)
            self._stream = rule

    def check_under(self, now: Policy) -> None:
        """Check it again under the current policy, for the model for which it was admitted."""
        self._policy = now
        self._rule(self._model, self._verb)

    def choose(self, name: str, served: Sequence[str], aside: Sequence[str] = ()) -> str:
        """Admit it for the intended model: without a name, the only one that it may concern.

        `aside` are known models that cannot be served; the engine reports them. Raises `Refused`: also
        MODEL_NAME_MISSING, MODEL_NOT_FOUND, whose messages list only models that it may concern.
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

    def _rule(self, model: str | None, verb: Verb) -> Rule:
        rule = self._policy.rule(self.caller.names, verb, model)
        if rule is not None:
            return rule
        if self._identities and not self.caller.known:
            raise Refused(Reason.CREDENTIALS_MISSING, verb=verb)
        what = "" if model is None else f" with {model!r}"
        raise Refused(Reason.NOT_PERMITTED, who=self.caller.name, verb=verb, what=what)

    def close(self) -> None:
        """End the call, and with it its share of the limits."""
        if self._stream is not None:
            self._limits.close(self.caller.key, self._stream)
            self._stream = None


class Access:
    """Authenticates callers and begins their calls. Changed files take effect at the next call."""

    def __init__(self, sources: AccessSources | None = None, told: Told = lambda _file, _taken: None) -> None:
        """Read the files. Raises `AccessError`. `told` is called whenever one is reloaded."""
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
        """All reloadable sources, by their names in log and metrics."""
        kept = {"tls": self.certificates, "tokens": self._tokens, "jwks": self._issuer, "policy": self._policy}
        return {kind: one for kind, one in kept.items() if one is not None}

    @property
    def stale(self) -> Mapping[str, bool]:
        """True for each kind whose new content cannot be read, so that the previous one remains in force."""
        return {kind: kept.stale for kind, kept in self._kept.items()}

    @property
    def ends(self) -> Mapping[str, float]:
        """The expiry times of certificates, in seconds since the epoch."""
        return self.certificates.get().ends if self.certificates else {}

    def reload(self) -> None:
        """Reload every file."""
        for kept in self._kept.values():
            kept.reload()

    async def fetch(self) -> None:
        """Fetch keys from a URL, before the first call."""
        if isinstance(self._issuer, Fetched):
            await self._issuer.fetch()

    async def follow(self) -> None:
        """Refetch keys periodically, until cancelled. Files are checked on use instead."""
        await (self._issuer.follow() if isinstance(self._issuer, Fetched) else asyncio.Event().wait())

    def begin(self, shown: Credentials, verb: Verb) -> Call:
        """Begin a call. Raises `Refused`: CREDENTIALS_MISSING, CREDENTIALS_REFUSED, NOT_PERMITTED."""
        call = Call(self._caller(shown), verb, self._rules, self._limits, identities=self._identities)
        call.check()
        return call

    @property
    def edition(self) -> tuple[int, ...]:
        """A value that changes whenever authentication or authorisation may have changed."""
        return tuple(kept.edition for kept in self._kept.values())

    def again(self, call: Call, shown: Credentials) -> None:
        """Check a call in flight again: its credentials may have been revoked; mere expiry is ignored.

        Raises `Refused` like `begin`.
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
        """Authenticate the caller.

        Any invalid credential is refused, even beside a valid one; `expired` accepts old JWTs.
        """
        if shown.authorization and (self._tokens or self._issuer):
            name, groups = self._bearer(shown.authorization, expired=expired)
            return Caller(name, shown.host, groups)
        if shown.certificate is not None and self._takes_certificates:
            return Caller(f"cert:{_subject(shown.certificate)}", shown.host)
        return Caller(ANONYMOUS, shown.host)

    def _bearer(self, values: tuple[str, ...], *, expired: bool) -> tuple[str, tuple[str, ...]]:
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token:
            raise Refused(Reason.CREDENTIALS_REFUSED, why="authorization is not a single 'Bearer TOKEN'")
        if self._tokens and (name := self._tokens.get().get(tokens.digest(token))):
            return f"token:{name}", ()
        if self._issuer and token.count(".") == _DOTS:
            try:
                subject = self._issuer.get().subject(token, expired=expired)
            except JwtRefusedError as error:
                if isinstance(error, KeyUnknownError) and isinstance(self._issuer, Fetched):
                    self._issuer.reload()  # the key may be new
                raise Refused(Reason.CREDENTIALS_REFUSED, why=str(error)) from None
            return f"jwt:{subject.name}", tuple(f"{JWT_GROUP}{group}" for group in subject.groups)
        raise Refused(Reason.CREDENTIALS_REFUSED, why=_REVOKED)


def _issuer(jwks: Path | str, of: tuple[str, str, str], told: Told) -> Kept[Issuer] | Fetched:
    """Return the accepted issuer; `of` holds the issuer, the audience and the claim of groups. Raises `AccessError`."""
    if isinstance(jwks, str):
        return Fetched(jwks, Issuer({}, *of), lambda written: jwts.parse(written, jwks, *of), told)
    return Kept("jwks", [jwks], lambda: jwts.read(jwks, *of), told)


@functools.lru_cache(1_000)
def _subject(certificate: bytes) -> str:
    """Return the subject of a verified certificate in RFC 4514 form: CN=alice,O=Acme. Raises `Refused`."""
    try:
        pem = certificate.startswith(b"-----")
        found = x509.load_pem_x509_certificate(certificate) if pem else x509.load_der_x509_certificate(certificate)
        name = found.subject.rfc4514_string()
    except ValueError:
        raise Refused(Reason.CREDENTIALS_REFUSED, why="the certificate cannot be read") from None
    if not name or not name.isprintable():
        raise Refused(Reason.CREDENTIALS_REFUSED, why="the certificate's subject is empty or not printable")
    return name

"""Verification of JSON Web Tokens against the public keys of a JWKS."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from vedette_server.access.files import AccessError, text

# Asymmetric only: with a shared secret, anyone who can verify a token could create one.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_BY_TYPE = {"RSA": _ALGORITHMS[:6], "EC": _ALGORITHMS[6:9], "OKP": _ALGORITHMS[9:]}
_LEAST_RSA_BITS = 2048
_LEEWAY_SECONDS = 30.0  # tolerated clock skew of the issuer
_LONGEST_NAME, _MOST_GROUPS = 256, 256

# The message for each exception of the library; the first match counts. The library's own text may quote input.
_WHY: Sequence[tuple[type[Exception], str]] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.InvalidIssuerError, "it is from another issuer"),
    (jwt.MissingRequiredClaimError, "it lacks exp, sub, aud or iss"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
    (jwt.InvalidAlgorithmError, "its algorithm does not match its key"),
)


class JwtRefusedError(Exception):
    """A token is refused; the message says why, in our own words."""


class KeyUnknownError(JwtRefusedError):
    """The token's key is not, or not yet, among its issuer's keys."""


@dataclass(frozen=True)
class Subject:
    """The subject of a token."""

    name: str
    groups: tuple[str, ...] = ()  # according to its issuer


@dataclass(frozen=True)
class Issuer:
    """The issuer of tokens, and their audience."""

    keys: Mapping[str | None, tuple[jwt.PyJWK, tuple[str, ...]]]  # by key id, each with its permitted algorithms
    issuer: str
    audience: str
    groups: str = ""  # claim that holds them; empty: no groups

    def subject(self, token: str, *, expired: bool = False) -> Subject:
        """Verify a token and return its subject; `expired` accepts expired ones. Raises `JwtRefusedError`."""
        try:
            claims = self._claims(token, expired=expired)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            why = next((why for kind, why in _WHY if isinstance(error, kind)), "it cannot be read")
            raise JwtRefusedError(why) from None
        if not _is_name(claims["sub"]):
            msg = f"its sub is not from 1 to {_LONGEST_NAME} printable characters"
            raise JwtRefusedError(msg)
        return Subject(claims["sub"], self._groups(claims))

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the groups of a token; a single one may be given without a list."""
        given = claims.get(self.groups, []) if self.groups else []
        found = [given] if isinstance(given, str) else given
        if not (isinstance(found, list) and len(found) <= _MOST_GROUPS and all(map(_is_name, found))):
            msg = f"its {self.groups} is not a list of up to {_MOST_GROUPS} names of printable characters"
            raise JwtRefusedError(msg)
        return tuple(found)

    def _claims(self, token: str, *, expired: bool) -> dict[str, Any]:
        named = jwt.get_unverified_header(token).get("kid")
        if named is None and len(self.keys) == 1:
            named = next(iter(self.keys))
        if named not in self.keys:
            raise KeyUnknownError("its key is not in the JWKS")
        key, algorithms = self.keys[named]
        return jwt.decode(
            token,
            key.key,
            algorithms=list(algorithms),
            audience=self.audience,
            issuer=self.issuer,
            leeway=_LEEWAY_SECONDS,
            options={"require": ["exp", "sub", "aud", "iss"], "verify_exp": not expired},
        )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def read(path: Path, issuer: str, audience: str, groups: str = "") -> Issuer:
    """Read a JWKS file. Raises `AccessError`."""
    return parse(text(path), str(path), issuer, audience, groups)


def parse(written: str, path: str, issuer: str, audience: str, groups: str = "") -> Issuer:
    """Parse a JWKS; `path` says where it is from. Raises `AccessError`."""
    try:
        entries = json.loads(written)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not entries:
        msg = f'{path} is not a JWKS: it must be {{"keys": [...]}} with at least one key'
        raise AccessError(msg)
    keys: dict[str | None, tuple[jwt.PyJWK, tuple[str, ...]]] = {}
    for number, entry in enumerate(entries, start=1):
        key = _key(path, number, entry)
        if key[0].key_id in keys or (key[0].key_id is None and len(entries) > 1):
            msg = f"{path}, key {number} has no unique id: give each a kid"
            raise AccessError(msg)
        keys[key[0].key_id] = key
    return Issuer(keys, issuer, audience, groups)


def _key(path: str, number: int, entry: Any) -> tuple[jwt.PyJWK, tuple[str, ...]]:  # noqa: ANN401  JSON
    algorithms = _BY_TYPE.get(str(entry.get("kty"))) if isinstance(entry, dict) else None
    if algorithms is None:
        msg = f"{path}, key {number} is not asymmetric: RSA, EC and OKP keys are supported"
        raise AccessError(msg)
    if "d" in entry:
        msg = f"{path}, key {number} is a private key: give its public part, and replace the key pair"
        raise AccessError(msg)
    if not isinstance(entry.get("kid"), str | None):
        msg = f"{path}, key {number} has an id that is not text"
        raise AccessError(msg)
    stated = entry.get("alg")
    if stated is not None and stated not in algorithms:
        msg = f"{path}, key {number} is for {str(stated)[:20]!r}; supported for its type are {', '.join(algorithms)}"
        raise AccessError(msg)
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        msg = f"{path}, key {number} cannot be read as a public key"
        raise AccessError(msg) from error
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS:
        msg = f"{path}, key {number} has {key.key.key_size} bits; RSA keys need at least {_LEAST_RSA_BITS}"
        raise AccessError(msg)
    return key, (stated,) if stated else algorithms

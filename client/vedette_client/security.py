"""Authentication of servers and callers: TLS, and tokens, which are never sent without it."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

import grpc

from vedette_client import arguments
from vedette_client.address import Address
from vedette_client.errors import LocalError

_LONGEST_TOKEN = 7_000  # characters; gRPC accepts 8 KiB of metadata
_LARGEST = 4 * 2**20  # bytes per PEM file
_CA, _CERT, _KEY, _TOKEN = "VEDETTE_TLS_CA", "VEDETTE_TLS_CLIENT_CERT", "VEDETTE_TLS_CLIENT_KEY", "VEDETTE_TOKEN"

PathLike: TypeAlias = str | os.PathLike[str]


@arguments.named_fields
@dataclass(frozen=True)
class Tls:
    """The PEM files for an encrypted connection."""

    ca: PathLike | None = None  # authority for the server; None: gRPC's default authorities
    cert: PathLike | None = None  # client certificate, if the server requires one
    key: PathLike | None = None

    def __post_init__(self) -> None:
        """Raise `LocalError` for an invalid path, or an incomplete pair."""
        for name in ("ca", "cert", "key"):
            if (path := getattr(self, name)) is not None and not isinstance(path, str | os.PathLike):
                raise arguments.wrong(name, path, "the path of a PEM file")
        if (self.cert is None) != (self.key is None):
            msg = "a client certificate requires its key, and vice versa: give both"
            raise LocalError(msg)


@dataclass(frozen=True)
class Security:
    """The credentials of a channel, and of each of its calls."""

    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)  # None: no TLS
    metadata: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, address: Address, tls: Tls | None, token: str | None, environment: Mapping[str, str] = os.environ
    ) -> "Security":
        """Read the files, and defaults from the environment. Raises `LocalError`."""
        if tls is not None and not isinstance(tls, Tls):
            raise arguments.wrong("tls", tls, "a TLS, such as Tls(ca='ca.pem')")
        given = {name: environment.get(variable) or None for name, variable in (("ca", _CA), ("cert", _CERT))}
        if tls is None and (address.secure or given["ca"]):
            tls = Tls(**given, key=environment.get(_KEY) or None)
        if tls is not None and len(address.hosts) > 1:
            msg = f"{address.text} cannot use TLS, which verifies one name: give one that resolves to all of them"
            raise LocalError(msg)
        shown = environment.get(_TOKEN) or None if token is None else token
        if shown is None:
            return cls(_credentials(tls) if tls else None)
        _check(shown, name := "token" if token is not None else _TOKEN)
        if tls is None and not address.loopback:
            msg = (
                f"{name} cannot be sent to {address.text} without TLS, because others could read it: "
                "add grpcs:// before the address, or give tls="
            )
            raise LocalError(msg)
        return cls(_credentials(tls) if tls else None, (("authorization", f"Bearer {shown}"),))


def _check(token: object, name: str) -> None:
    """Raise `LocalError` for an invalid token, without showing it."""
    if not isinstance(token, str):
        msg = f"{name} has the type {type(token).__name__}: it must be a string"
        raise LocalError(msg)
    if not token or len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        msg = f"{name} is not a token: it needs 1 to {_LONGEST_TOKEN} printable ASCII characters without blanks"
        raise LocalError(msg)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, cert, key = (_read(name, path) for name, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the files; gRPC would only fail later
    if ca is not None:
        try:
            context.load_verify_locations(cadata=ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            msg = f"ca: {os.fspath(tls.ca or '')} contains no PEM certificates"
            raise LocalError(msg) from error
    if tls.cert is not None and tls.key is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_encrypted)
        except (ssl.SSLError, OSError, ValueError) as error:
            msg = f"{os.fspath(tls.cert)} and {os.fspath(tls.key)} are not a certificate and its unencrypted key in PEM"
            raise LocalError(msg) from error
    return grpc.ssl_channel_credentials(ca, key, cert)


def _encrypted() -> NoReturn:
    raise ValueError("passwords are not supported")


def _read(name: str, path: PathLike | None) -> bytes | None:
    if path is None:
        return None
    try:
        if Path(path).exists() and not Path(path).is_file():  # opening a FIFO would block
            msg = f"{name}: {os.fspath(path)!r} is not a file"
            raise LocalError(msg)
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        msg = f"{name}: {os.fspath(path)!r} cannot be read: {getattr(error, 'strerror', error)}"
        raise LocalError(msg) from error
    if len(data) > _LARGEST:
        msg = f"{name}: {os.fspath(path)!r} is larger than {_LARGEST} bytes"
        raise LocalError(msg)
    return data

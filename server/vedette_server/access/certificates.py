"""What the server shows who it is with, and whose certificates it takes from callers."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography import x509

from vedette_server.access.files import AccessError, content

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are sound as they are


@dataclass(frozen=True)
class Certificates:
    """A key with its certificates, and the authority of callers' own; all of them PEM."""

    key: bytes = field(repr=False)
    chain: bytes
    client_ca: bytes | None
    context: ssl.SSLContext = field(repr=False)  # the same, for HTTP
    ends: Mapping[
        str, float
    ]  # when the first of the server's certificates ends, and of the authority's; since the epoch

    def front(self) -> ssl.SSLContext:
        """The same once more, to hang a callback on that chooses another."""
        return _make(self.key, self.chain, self.client_ca)


def read(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Read them. Raises `AccessError` for what is half there, does not belong together or is no certificate."""
    pair = content(key), content(cert)
    authority = content(client_ca) if client_ca else None
    try:
        context = _make(*pair, authority)
        return Certificates(*pair, authority, context, _ends(pair[1], context))
    except _EncryptedError:
        msg = f"{key} is encrypted, and nobody is there to type its password: decrypt it with openssl pkey"
    except _AuthorityError:
        msg = f"{client_ca} holds no certificates of an authority: give them as PEM"
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or "no PEM"
        msg = f"{cert} and {key} are no certificate and its key ({why}): give both as PEM, the chain in order"
    raise AccessError(msg)


def _ends(chain: bytes, context: ssl.SSLContext) -> Mapping[str, float]:
    """When the first certificate ends of those that are shown, and of those that callers' own are checked against."""
    shown = x509.load_pem_x509_certificates(chain)
    # A root at the end of the chain is not looked at by whoever trusts it.
    needed = [one.not_valid_after_utc.timestamp() for one in shown if one is shown[0] or one.issuer != one.subject]
    authorities = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    return {"server": min(needed), **({"client_ca": float(min(authorities))} if authorities else {})}


def _make(key: bytes, chain: bytes, authority: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would outlive the certificates that it was begun with.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    with _Anonymous(b"\n".join((key, chain))) as path:
        context.load_cert_chain(path, password=_encrypted)
    if authority is not None:
        try:
            context.load_verify_locations(cadata=authority.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise _AuthorityError from error
        context.verify_mode = ssl.CERT_OPTIONAL  # probes of orchestrators have none; the policy says what they may
    return context


class _EncryptedError(Exception):
    """A key has a password."""


class _AuthorityError(Exception):
    """What is to be an authority is none."""


def _encrypted() -> NoReturn:
    raise _EncryptedError


class _Anonymous:
    """Bytes as a file without a name, for a library that reads paths: what was checked is what is used."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> str:
        """Its path, which is this process' alone."""
        self._descriptor = os.memfd_create("vedette-tls")
        os.write(self._descriptor, self._data)
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_raised: object) -> None:
        """Nothing of it stays."""
        os.close(self._descriptor)

"""The server's TLS certificates, and the authority for those of callers."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography import x509

from vedette_server.access.files import AccessError, content

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; the defaults of 1.3 are sound


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """A key with its certificate chain, and the authority for client certificates; all PEM."""

    key: bytes = field(repr=False)
    chain: bytes
    client_ca: bytes | None
    context: ssl.SSLContext = field(repr=False)  # equivalent, for HTTP
    ends: Mapping[str, float]  # earliest expiry of the server's certificates, and of the authority's; since the epoch

    def front(self) -> ssl.SSLContext:
        """Return another context like this one, for a callback that swaps contexts."""
        return _make(self.key, self.chain, self.client_ca)


def read(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Read the files. Raises `AccessError` if one is incomplete, invalid, or does not match the other."""
    private, chain = content(key), content(cert)
    authority = content(client_ca) if client_ca else None
    try:
        context = _make(private, chain, authority)
        ends = _ends(chain, context)
        return Certificates(key=private, chain=chain, client_ca=authority, context=context, ends=ends)
    except _EncryptedError:
        msg = f"{key} is encrypted, and the server cannot ask for its password: decrypt it with openssl pkey"
    except _AuthorityError:
        msg = f"{client_ca} holds no CA certificates: give them as PEM"
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or "not PEM"
        msg = f"{cert} and {key} are not a certificate and its key ({why}): give both as PEM, the chain in order"
    raise AccessError(msg)


def _ends(chain: bytes, context: ssl.SSLContext) -> Mapping[str, float]:
    """Return the earliest expiry of the presented certificates, and of the authorities for clients."""
    shown = x509.load_pem_x509_certificates(chain)
    # Clients that trust a root do not check the copy at the end of the chain.
    needed = [one.not_valid_after_utc.timestamp() for one in shown if one is shown[0] or one.issuer != one.subject]
    authorities = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    return {"server": min(needed), **({"client_ca": float(min(authorities))} if authorities else {})}


def _make(key: bytes, chain: bytes, authority: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would outlive its certificates.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    with _Anonymous(b"\n".join((key, chain))) as path:
        context.load_cert_chain(path, password=_encrypted)
    if authority is not None:
        try:
            context.load_verify_locations(cadata=authority.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise _AuthorityError from error
        context.verify_mode = ssl.CERT_OPTIONAL  # orchestrators' probes have no certificate; the policy decides
    return context


class _EncryptedError(Exception):
    """A key has a password."""


class _AuthorityError(Exception):
    """The authority file holds no authority."""


def _encrypted() -> NoReturn:
    raise _EncryptedError


class _Anonymous:
    """Bytes as an unnamed file, for a library that reads paths: the bytes checked are the bytes used."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> str:
        """Return its path, which is valid only in this process."""
        self._descriptor = os.memfd_create("vedette-tls")
        os.write(self._descriptor, self._data)
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_raised: object) -> None:
        """Close the file, which deletes it."""
        os.close(self._descriptor)

"""Certificates of tests, made as they run, by an authority that nobody else trusts."""

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from vedette_client import Tls


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def server(self, name: str = "server", *, expired: bool = False, ends: dt.datetime | None = None) -> Pair:
        """A server's, for the loopback; a name that is there already has its files replaced, each at once."""
        ends = dt.datetime(2001, 1, 1, tzinfo=dt.UTC) if expired else ends
        return self._write(name, self._ca.issue_cert("127.0.0.1", "localhost", not_after=ends))

    def client(self, common_name: str, *, expired: bool = False) -> Pair:
        """A caller's."""
        ends = dt.datetime(2001, 1, 1, tzinfo=dt.UTC) if expired else None
        issued = self._ca.issue_cert(f"{common_name}@test", common_name=common_name, not_after=ends)
        return self._write(common_name, issued)

    def _write(self, name: str, issued: trustme.LeafCert) -> Pair:
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = b"".join(one.bytes() for one in issued.cert_chain_pems)
        for path, data in ((pair.key, issued.private_key_pem.bytes()), (pair.cert, chain)):
            beside = path.with_suffix(".new")
            beside.write_bytes(data)
            beside.replace(path)
        return pair

    def tls(self, own: Pair | None = None) -> Tls:
        """The settings of a client that trusts it."""
        return Tls(self.path, own.cert if own else None, own.key if own else None)

    def context(self, own: Pair | None = None) -> ssl.SSLContext:
        """The same for Python's own clients."""
        context = ssl.create_default_context(cafile=self.path)
        if own:
            context.load_cert_chain(own.cert, own.key)
        return context

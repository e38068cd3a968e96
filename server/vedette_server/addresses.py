"""Listening addresses, HOST:PORT or a Unix socket, parsed so strictly that gRPC has nothing to guess."""

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import NoReturn

_LARGEST_PORT = 65535
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path on Linux
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?", re.IGNORECASE
)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


@dataclass(frozen=True)
class Tcp:
    """An interface and a port; port 0 means any free port."""

    host: str  # without brackets
    port: int

    def __str__(self) -> str:
        """Format as HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Unix:
    """A Unix socket."""

    path: str

    def __str__(self) -> str:
        """Format as unix:PATH."""
        return f"unix:{self.path}"


def tcp(text: str) -> Tcp:
    """Parse HOST:PORT. Raises `ValueError`."""
    _check_letters(text)
    if text.lower().startswith("unix:"):
        _refuse(text, "HTTP requires HOST:PORT")
    scheme, found, _rest = text.partition("://")
    if found:
        _refuse(text, f"{scheme}:// is for clients; use HOST:PORT")
    if "/" in text or "@" in text:
        _refuse(text, "use only HOST:PORT")
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        _refuse(text, "it has no port" if not text.isdecimal() else "it is a port without a host")
    if not host:
        _refuse(text, f"it has no host: 127.0.0.1{text} is this machine only, 0.0.0.0{text} is all interfaces")
    if not (port.isascii() and port.isdecimal()):
        _refuse(text, f"its port {port!r} is not a number")
    if len(port) > len(str(_LARGEST_PORT)) or int(port) > _LARGEST_PORT:
        _refuse(text, f"its port {port[:20]} is not from 0 to {_LARGEST_PORT}")
    return Tcp(_host(text, host), int(port))


def grpc(text: str) -> Tcp | Unix:
    """Parse HOST:PORT or unix:PATH. Raises `ValueError`."""
    _check_letters(text)
    if not text.lower().startswith("unix:"):
        return tcp(text)
    path = text[len("unix:") :]
    if path.startswith("//"):
        path = path[len("//") :]
        if not path.startswith("/"):
            _refuse(text, "unix:// requires an absolute path, as in unix:///run/vedette.sock")
    if not path or path.endswith("/"):
        _refuse(text, "it does not name a file")
    if path.startswith("//"):  # unix://PATH would be read in another way
        path = "/" + path.lstrip("/")
    if (size := len(os.fsencode(path))) > _LONGEST_SOCKET:
        _refuse(text, f"its path has {size} bytes, but a Unix socket's may have at most {_LONGEST_SOCKET}")
    return Unix(path)


def _check_letters(text: str) -> None:
    if not text:
        _refuse(text, "it is empty")
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        _refuse(text, "it contains a space or a non-printable character")


def _host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            _refuse(text, f"{host[1:-1]!r} is not an IPv6 address")
    if ":" in host:
        _refuse(text, "an IPv6 address needs brackets, as in [::1]:8001")
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):  # legacy rules accept 127.1 and 8001 as addresses
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            _refuse(text, f"{host!r} is not an IPv4 address")
    if not _HOST.fullmatch(host):
        _refuse(text, f"{host!r} is not a host name")
    return host


def _refuse(text: str, why: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"{text[:99]}…"
    msg = f"{shown!r} is not an address to listen on: {why}; an example is 127.0.0.1:8001"
    raise ValueError(msg)

"""Where the server listens: HOST:PORT or a Unix socket, read so that gRPC has nothing to guess about."""

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import NoReturn

_LARGEST_PORT = 65535
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path, on Linux
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?", re.IGNORECASE
)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


@dataclass(frozen=True)
class Tcp:
    """An interface and a port; port 0 is any that is free."""

    host: str  # without brackets
    port: int

    def __str__(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Unix:
    """A Unix socket."""

    path: str

    def __str__(self) -> str:
        """unix:PATH."""
        return f"unix:{self.path}"


def tcp(text: str) -> Tcp:
    """Read HOST:PORT. Raises `ValueError`."""
    _check_letters(text)
    if text.lower().startswith("unix:"):
        _refuse(text, "HTTP is served at HOST:PORT alone")
    scheme, found, _rest = text.partition("://")
    if found:
        _refuse(text, f"{scheme}:// is for those who call; it takes HOST:PORT")
    if "/" in text or "@" in text:
        _refuse(text, "it takes HOST:PORT and nothing else")
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        _refuse(text, "it has no port" if not text.isdecimal() else "it is a port without a host")
    if not host:
        _refuse(text, f"it has no host: 127.0.0.1{text} is this machine alone, 0.0.0.0{text} all interfaces")
    if not (port.isascii() and port.isdecimal()):
        _refuse(text, f"its port {port!r} is not a number")
    if len(port) > len(str(_LARGEST_PORT)) or int(port) > _LARGEST_PORT:
        _refuse(text, f"its port {port[:20]} is not from 0 to {_LARGEST_PORT}")
    return Tcp(_host(text, host), int(port))


def grpc(text: str) -> Tcp | Unix:
    """Read HOST:PORT or unix:PATH. Raises `ValueError`."""
    _check_letters(text)
    if not text.lower().startswith("unix:"):
        return tcp(text)
    path = text[len("unix:") :]
    if path.startswith("//"):
        path = path[len("//") :]
        if not path.startswith("/"):
            _refuse(text, "unix:// is followed by a path from the root, as in unix:///run/vedette.sock")
    if not path or path.endswith("/"):
        _refuse(text, "it names no file")
    if (size := len(os.fsencode(path))) > _LONGEST_SOCKET:
        _refuse(text, f"its path has {size} bytes, and a Unix socket's at most {_LONGEST_SOCKET}")
    return Unix(path)


def _check_letters(text: str) -> None:
    if not text:
        _refuse(text, "it is empty")
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        _refuse(text, "it holds a space or a character that cannot be printed")


def _host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            _refuse(text, f"{host[1:-1]!r} is not an IPv6 address")
    if ":" in host:
        _refuse(text, "an IPv6 address stands in brackets, as in [::1]:8001")
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):  # old rules take 127.1 for an address, and 8001
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            _refuse(text, f"{host!r} is not an IPv4 address")
    if not _HOST.fullmatch(host):
        _refuse(text, f"{host!r} is not a host's name")
    return host


def _refuse(text: str, why: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"{text[:99]}…"
    msg = f"{shown!r} is not an address to listen at: {why}; such as 127.0.0.1:8001"
    raise ValueError(msg)

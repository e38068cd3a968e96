"""Server addresses, one or several, parsed the same way in every notation, so that gRPC has nothing to guess.

On its own, gRPC takes port 99999 for 34463, the host `8001` for 0.0.31.65, and `http` for a host name.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, urlsplit

from vedette_client.errors import LocalError

DEFAULT_PORT = 8001
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
_LARGEST_PORT = 65535
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path on Linux
_LONGEST_HOST, _LONGEST_LABEL = 253, 63
_SCHEME = re.compile(
    r"([a-z][a-z0-9+.-]*)://|(unix):|(dns|ipv4|ipv6|xds|vsock|unix-abstract):(?![0-9]+$)", re.IGNORECASE
)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_SECURE = "grpcs://", "https://"
_PROXIES = "grpc_proxy", "https_proxy", "http_proxy"  # gRPC uses the first that is set


@dataclass(frozen=True)
class Address:
    """The address of a server, or of several that serve the same, as shown to users and as passed to gRPC."""

    text: str  # HOST:PORT, grpcs://HOST:PORT, or unix:PATH; several are separated by commas
    target: str  # gRPC target
    hosts: tuple[str, ...] = ()  # without brackets; none for a Unix socket
    secure: bool = False  # requires TLS

    @property
    def local(self) -> bool:
        """True if it is on this machine, so that no proxy is used."""
        return all(map(_local, self.hosts))

    @property
    def loopback(self) -> bool:
        """True if traffic certainly stays on this machine: the only trusted name is localhost."""
        return all(map(_loopback, self.hosts))


def _local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Proxy:
    """A proxy from the environment."""

    variable: str
    url: str

    def __str__(self) -> str:
        """Name the proxy and its variable, without a password."""
        parts = urlsplit(self.url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return f"the proxy {shown} of the variable {self.variable}"


def parse(text: str) -> Address:
    """Parse HOST:PORT, HOST, [IPV6]:PORT, or unix:PATH; several are separated by commas. Raises `LocalError`.

    The host may have the prefix grpc://, http:// or dns:///, or grpcs:// or https:// for TLS.
    """
    if "," in text and not text.lower().startswith("unix:"):
        return _several(text, text.split(","))
    return _one(text)


def _several(text: str, parts: list[str]) -> Address:
    """Combine addresses into one target; gRPC takes several of one family, and resolves a single name."""
    if not all(parts):
        _refuse(text, "it has a comma without an address")
    given = [_one(part) for part in parts]
    versions = {_version(one) for one in given}
    if len(versions) > 1 or None in versions:
        _refuse(text, "several must all be IPv4 or all IPv6: otherwise, give one name that resolves to all of them")
    target = ",".join(one.target.removeprefix("dns:///") for one in given)
    return Address(
        ",".join(one.text for one in given),
        f"ipv{versions.pop()}:{target}",
        tuple(host for one in given for host in one.hosts),
        secure=any(one.secure for one in given),
    )


def _version(address: Address) -> int | None:
    try:
        return ipaddress.ip_address("".join(address.hosts)).version
    except ValueError:
        return None


def _one(text: str) -> Address:
    if not text:
        _refuse(text, "it is empty")
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        _refuse(text, "it contains a space or a non-printable character")
    if (match := _SCHEME.match(text)) and match[2]:
        return _socket(text, text[match.end() :], slashes=False)
    if text.lower().startswith("unix://"):
        return _socket(text, text[len("unix://") :], slashes=True)
    rest, port = _without_scheme(text, match) if match else (text, str(DEFAULT_PORT))
    secure = match is not None and text.lower().startswith(_SECURE)
    if "/" in rest or "?" in rest or "#" in rest:
        _refuse(text, "it has a path, but gRPC servers have none")
    if "@" in rest:
        _refuse(text, "it contains a user name, which is not supported")
    host, port = _split(text, rest, port)
    found = _host_and_port(text, host, port)
    return dataclasses.replace(found, text=f"grpcs://{found.text}", secure=True) if secure else found


def _without_scheme(text: str, match: re.Match[str]) -> tuple[str, str]:
    """Return the rest after the scheme, and the scheme's default port."""
    scheme, slashes, rest = match[match.lastindex or 0].lower(), match[1] is not None, text[match.end() :]
    if slashes and scheme in ("grpc", "grpcs", "http", "https"):
        default = str(DEFAULT_PORT) if scheme.startswith("grpc") else ""  # 80 is certainly not intended
        return rest.removesuffix("/"), default
    if scheme == "dns" and (not slashes or rest.startswith("/")):
        return rest.removeprefix("/"), str(DEFAULT_PORT)
    if scheme not in ("ipv4", "ipv6") or slashes:
        _refuse(text, f"{match[0]} is not supported")
    return rest, str(DEFAULT_PORT)


def _refuse(text: str, why: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"{text[:99]}…"
    msg = f"{shown!r} is not a server's address: {why}; try {DEFAULT_ADDRESS}, [::1]:8001 or unix:/run/vedette.sock"
    raise LocalError(msg)


def _socket(text: str, path: str, *, slashes: bool) -> Address:
    if not path or path.endswith("/"):
        _refuse(text, "it does not name a file")
    if slashes and not path.startswith("/"):
        _refuse(text, "unix:// requires an absolute path, as in unix:///run/vedette.sock")
    if path.startswith("//"):  # unix://PATH would be read in another way
        path = "/" + path.lstrip("/")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        _refuse(text, "its path is not a valid file name")
    if size > _LONGEST_SOCKET:
        _refuse(text, f"its path has {size} bytes, but a Unix socket's may have at most {_LONGEST_SOCKET}")
    return Address(f"unix:{path}", f"unix:{quote(path)}")  # gRPC reads a URI


def _split(text: str, rest: str, port: str) -> tuple[str, str]:
    """Return the host, without brackets, and the port or the default."""
    if rest.startswith("["):
        host, closed, after = rest[1:].partition("]")
        if not closed or (after and not after.startswith(":")):
            _refuse(text, "the brackets of an IPv6 address must be followed by :PORT or nothing")
        if ":" not in host:
            _refuse(text, "brackets are for an IPv6 address")
        given, port = bool(after), after[1:] if after else port
    elif rest.count(":") > 1:
        _refuse(text, "an IPv6 address needs brackets, as in [::1]:8001")
    else:
        host, colon, after = rest.partition(":")
        given, port = bool(colon), after if colon else port
    if not host:
        _refuse(text, "it has no host")
    if not given and host.isdecimal():
        _refuse(text, "it is a port without a host")
    if not port:
        _refuse(text, "it has no port" + ("" if given else f", and gRPC's is usually {DEFAULT_PORT}"))
    return host, port


def _host_and_port(text: str, host: str, port: str) -> Address:
    if not (port.isascii() and port.isdecimal()):
        _refuse(text, f"its port {port!r} is not a number")
    number = int(port) if len(port) <= len(str(_LARGEST_PORT)) + 10 else _LARGEST_PORT + 1
    if not 1 <= number <= _LARGEST_PORT:
        _refuse(text, f"its port {port[:20]} is not from 1 to {_LARGEST_PORT}")
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            _refuse(text, f"{host!r} is not an IPv6 address")
        shown = f"[{address}]:{number}"
        return Address(shown, f"dns:///[{str(address).replace('%', '%25')}]:{number}", (str(address),))
    name = _name(text, host)
    return Address(f"{name}:{number}", f"dns:///{name}:{number}", (name,))


def _name(text: str, host: str) -> str:
    """Return a host name or an IPv4 address."""
    if not host.isascii():
        _refuse(text, f"{host!r} is not ASCII: use its DNS form, xn--…")
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):  # then it is an address: legacy rules accept 127.1
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            _refuse(text, f"{host!r} is not an IPv4 address")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(one) and len(one) <= _LONGEST_LABEL for one in labels):
        _refuse(text, f"{host!r} is not a host name")
    return host.lower()


def proxy(address: Address, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """Return the proxy for a server; None for several, for servers on this machine and those in no_proxy."""
    if address.local or len(address.hosts) > 1:
        return None
    named = ((variable, environment.get(variable, "")) for variable in _PROXIES)
    variable, url = next(((variable, url) for variable, url in named if url), ("", ""))
    if not variable or _exempt(address.hosts[0], environment):
        return None
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    return Proxy(variable, url) if usable else None  # gRPC ignores proxies that it cannot use


def _exempt(host: str, environment: Mapping[str, str]) -> bool:
    """Return whether no_grpc_proxy or no_proxy names a host, its domain or its network."""
    for entry in (environment.get("no_grpc_proxy") or environment.get("no_proxy") or "").split(","):
        one = entry.strip().lower()
        if not one:
            continue
        if one == "*" or host == one.lstrip(".") or host.endswith(f".{one.lstrip('.')}"):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(one, strict=False):
                return True
        except (ValueError, TypeError):
            continue
    return False

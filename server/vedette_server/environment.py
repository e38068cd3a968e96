"""Classification of VEDETTE_ variables as settings, as someone else's, or as mistakes.

Kubernetes passes every pod of a namespace variables about each of its Services, like Docker's links. A Service named
`vedette` or `vedette-gpu` creates variables with our prefix. They are recognised by name and value together, so
VEDETTE_PORT=9000, which somebody means as a setting, is still an error.
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

import ipaddress
import os
import re
from collections.abc import Callable, Collection, Mapping

PREFIX = "VEDETTE_"
_CLIENTS = ("SERVER", "TOKEN", "TOKEN_FILE", "TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY")
OTHERS = ("CONFIG", "TRACEBACK", *_CLIENTS)  # used by the commands
_PORT = re.compile(r"[0-9]{1,5}")
_SERVICE = r"VEDETTE(?:_[A-Z0-9_]+)?"
_PROTOCOL = r"(?:TCP|UDP|SCTP)"


def _address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _port(value: str) -> bool:
    return _PORT.fullmatch(value) is not None and int(value) <= 65_535


def _url(value: str) -> bool:
    match = re.fullmatch(r"(?:tcp|udp|sctp)://(?:\[(?P<six>[^\]]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]+)", value)
    return match is not None and _address(match["six"] or match["four"]) and _port(match["port"])


def _protocol(value: str) -> bool:
    return value in ("tcp", "udp", "sctp")


_LINKS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (re.compile(_SERVICE + rest), check)
    for rest, check in (
        (r"_SERVICE_HOST", _address),
        (r"_SERVICE_PORT(?:_[A-Z0-9_]+)?", _port),
        (r"_PORT", _url),
        (rf"_PORT_[0-9]{{1,5}}_{_PROTOCOL}", _url),
        (rf"_PORT_[0-9]{{1,5}}_{_PROTOCOL}_PROTO", _protocol),
        (rf"_PORT_[0-9]{{1,5}}_{_PROTOCOL}_PORT", _port),
        (rf"_PORT_[0-9]{{1,5}}_{_PROTOCOL}_ADDR", _address),
    )
)


def _is_link(name: str, value: str) -> bool:
    return any(pattern.fullmatch(name) and check(value) for pattern, check in _LINKS)


def links(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables that describe Kubernetes Services, recognised by name and value."""
    return sorted(name for name, value in environment.items() if name.startswith(PREFIX) and _is_link(name, value))


def unknown(settings: Collection[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables with our prefix that are neither settings nor known otherwise."""
    known = {PREFIX + name.upper() for name in (*settings, *OTHERS)}
    ours = {name for name in environment if name.startswith(PREFIX)}
    return sorted(ours - known - set(links(environment)))

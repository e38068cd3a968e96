"""Callers on this machine, and the users that their connections belong to, as the kernel's tables name them."""

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"  # the tables name no user, but 0, for connections that are closing
_UNIX = "unix"

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_here(host: str) -> bool:
    """Return whether a caller's host is this machine: the loopback, or a Unix socket."""
    if host == _UNIX:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def user(peer: str) -> int | None:
    """Return the user at the other end of a connection from this machine, by gRPC's name for it; None: unknown.

    On a Unix socket that is the server's own user: only that user and its group can connect, and gRPC does not tell
    them apart. Reading the kernel's tables takes milliseconds on a large machine.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind == _UNIX:
        return os.geteuid()
    host, _, port = rest.rpartition(":")
    address = _address(host)
    if address is None or not address.is_loopback:
        return None
    wanted = {f"{_hexadecimal(one)}:{int(port):04X}" for one in _forms(address)}
    # Sockets of several users can share an address towards different servers.
    users = {int(row[7]) for row in _rows() if row[1] in wanted and row[3] == _ESTABLISHED}
    return users.pop() if len(users) == 1 else None


def _rows() -> Iterator[list[str]]:
    for table in _TABLES:
        with contextlib.suppress(FileNotFoundError):  # a machine without IPv6 has one table
            yield from (line.split() for line in table.read_text().splitlines()[1:])


def _address(host: str) -> Address | None:
    """Parse a host, with or without brackets; an IPv4 address within IPv6 becomes the former."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _forms(address: Address) -> tuple[Address, ...]:
    """Return an address as sockets of either kind have it."""
    if isinstance(address, ipaddress.IPv6Address):
        return (address,)
    return address, ipaddress.IPv6Address(f"::ffff:{address}")


def _hexadecimal(address: Address) -> str:
    """Format an address as the tables do: words of 32 bits in this machine's byte order."""
    packed = address.packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)

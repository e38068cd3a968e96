"""Detection of servers that are more open than intended."""

import ipaddress

from vedette_server.access.access import AccessSources
from vedette_server.addresses import Tcp, Unix


def problem(listening: tuple[Tcp | Unix, ...], sources: AccessSources) -> str:
    """Return the problem with listening there, and its remedy; empty if there is none."""
    beyond = [str(address) for address in listening if not _here(address)]
    lacking = []
    if not sources.tls_cert:
        lacking.append("TLS (--tls-cert and --tls-key)")
    if not sources.identities:
        lacking.append("identities (--tokens, --jwks or --tls-client-ca)")
    if not beyond or not lacking:
        return ""
    return (
        f"{' and '.join(beyond)} can be reached from other machines without {' and '.join(lacking)}: "
        "add what is missing, listen at 127.0.0.1, or give --insecure if anyone there may call"
    )


def _here(address: Tcp | Unix) -> bool:
    """Return whether only this machine can connect there."""
    if isinstance(address, Unix) or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:  # a name, whatever it resolves to today
        return False

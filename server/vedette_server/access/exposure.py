"""Where a server would be open to others than it seems to be meant for."""

import ipaddress

from vedette_server.access.access import AccessSources
from vedette_server.addresses import Tcp, Unix


def problem(listening: tuple[Tcp | Unix, ...], sources: AccessSources) -> str:
    """What is wrong with listening there, and what to do; empty: nothing."""
    beyond = [str(address) for address in listening if not _here(address)]
    lacking = []
    if not sources.tls_cert:
        lacking.append("TLS (--tls-cert and --tls-key)")
    if not sources.identities:
        lacking.append("identities (--tokens, --jwks or --tls-client-ca)")
    if not beyond or not lacking:
        return ""
    return (
        f"{' and '.join(beyond)} can be reached from other machines, without {' and '.join(lacking)}: "
        "give what is missing, listen at 127.0.0.1, or say --insecure if anybody there may call"
    )


def _here(address: Tcp | Unix) -> bool:
    """Whether this machine alone can call there."""
    if isinstance(address, Unix) or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:  # a name, whatever it stands for today
        return False

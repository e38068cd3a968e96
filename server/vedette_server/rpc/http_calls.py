"""The HTTP side of a call: the peer, its credentials, and the status, headers and text that a refusal becomes."""

import traceback
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from vedette_server.access.access import Credentials
from vedette_server.contract.refusal import Refused
from vedette_server.rpc import errors, guard

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]


def peer(request: web.Request) -> str:
    """Return the peer as gRPC names it."""
    host, port, *_ = request.get_extra_info("peername") or ("", 0)
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def shown(request: web.Request) -> Credentials:
    """Return the credentials that a request presents."""
    connection = request.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True) if connection else None
    return Credentials(tuple(request.headers.getall("Authorization", ())), certificate, guard.host(peer(request)))


@dataclass(frozen=True)
class Failure:
    """A refusal as HTTP tells it."""

    status: int
    headers: dict[str, str]
    text: str  # the reason, the message and the remedy


def failure(refusal: Refused, request_id: str | None = None) -> Failure:
    """Return how HTTP tells of a refusal, and let go of what its traceback holds."""
    traceback.clear_frames(refusal.__traceback__)
    row, headers = errors.TABLE[refusal.reason], {}
    if row.code is errors.Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if row.retry:
        headers["Retry-After"] = str(max(1, round(errors.retry_seconds(refusal))))
    told = errors.status(refusal, request_id or uuid.uuid4().hex).message
    return Failure(row.http, headers, f"{refusal.reason}: {told}")

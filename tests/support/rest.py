"""Calls of the Open Inference Protocol over HTTP as any client makes them, without Triton's."""

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from vedette_server.contract.refusal import Reason
from vedette_server.rpc.errors import TABLE

from tests.support import running
from tests.support.open_inference import MODEL, values

LENGTH = "Inference-Header-Content-Length"
INFER = f"/v2/models/{MODEL}/infer"
NAMES = {"model_name", "model_version"}  # in the path


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of a refusal; empty for a success."""
        return "" if self.status == 200 else str(self.json["error"].partition(":")[0])


def call(
    http: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """GET a path, or POST a body to it."""
    request = urllib.request.Request(http + path, body, dict(headers or {}))  # noqa: S310  our own server
    try:
        with urllib.request.urlopen(request, timeout=running.PATIENCE, context=context) as told:  # noqa: S310  the same
            return Reply(told.status, told.read(), dict(told.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read(), dict(error.headers))


@dataclass(frozen=True)
class Body:
    """A body of JSON and binary data, and the path that it is sent to."""

    head: bytes
    data: bytes = b""
    path: str = INFER

    def send(self, http: str) -> Reply:
        return call(http, self.path, self.head + self.data, {LENGTH: str(len(self.head))})


def binary(request: Any) -> Body:
    """A gRPC request with raw contents as a body with binary data."""
    inputs = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": list(one.shape),
            "parameters": {**values(one.parameters), "binary_data_size": len(raw)},
        }
        for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    head = {
        "id": request.id,
        "parameters": values(request.parameters),
        "inputs": inputs,
        "outputs": [{"name": one.name} for one in request.outputs],
    }
    version = f"/versions/{request.model_version}" if request.model_version else ""
    path = f"/v2/models/{request.model_name}{version}/infer"
    return Body(json.dumps(head).encode(), b"".join(request.raw_input_contents), path)


def connect(http: str) -> socket.socket:
    url = urlsplit(http)
    assert url.hostname
    assert url.port
    return socket.create_connection((url.hostname, url.port), running.PATIENCE)


def head(path: str, length: int, **headers: object) -> bytes:
    """The head of a POST, as it is on the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def asked(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": inputs, **fields}).encode()


def listed(name: str, datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}


def assert_refused(reply: Reply, reason: str) -> None:
    assert reply.reason == reason, reply.body
    assert reply.status == TABLE[Reason(reason)].http
    assert "?" not in reply.json["error"]
    assert ("Retry-After" in reply.headers) == TABLE[Reason(reason)].retry

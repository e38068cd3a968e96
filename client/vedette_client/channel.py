"""Connections to a server: their options, keepalive, and description in errors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import grpc
import grpc.aio
from vedette.v1 import detection_service_pb2 as pb

from vedette_client.address import Address, Proxy, parse, proxy
from vedette_client.security import Security, Tls

LoadBalancing: TypeAlias = Literal["pick_first", "round_robin"]

SERVICE = pb.DESCRIPTOR.services_by_name["DetectionService"].full_name
KEEPALIVE_SECONDS = 20.0  # between keepalive pings during a call
_PATIENCE = 0.5  # of that, for the server's reply
_LONGEST_BACKOFF = 5.0  # seconds between attempts to connect; gRPC's default of two minutes outlasts most restarts

# gRPC itself retries calls that a server refused temporarily, after the delay that the server gives (its RetryInfo is
# also sent as grpc-retry-pushback-ms), or soon. Detection has no side effects, so retrying is safe.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE, "method": name} for name in ("Detect", "ListModels", "GetModel")],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
# Each server is watched for as long as there is a connection to it, and gets calls only while its models answer.
_HEALTH_CHECKS = {"healthCheckConfig": {"serviceName": SERVICE}}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, and the settings to reach it."""

    address: Address
    proxy: Proxy | None
    keepalive_seconds: float | None  # None: a silent connection is trusted forever
    security: Security
    load_balancing: LoadBalancing = "pick_first"

    @classmethod
    def of(
        cls,
        address: str,
        keepalive_seconds: float | None = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
        token: str | None = None,
        load_balancing: LoadBalancing = "pick_first",
    ) -> "Endpoint":
        """Parse an address, and read the proxy and credentials from the environment. Raises `LocalError`."""
        parsed = parse(address)
        security = Security.of(parsed, tls, token)
        return cls(
            address=parsed,
            proxy=proxy(parsed),
            keepalive_seconds=keepalive_seconds,
            security=security,
            load_balancing=load_balancing,
        )

    def __str__(self) -> str:
        """The address for messages, with the proxy if one is involved."""
        return f"{self.address.text} through {self.proxy}" if self.proxy else self.address.text

    def options(self, *, alone: bool = False) -> Sequence[tuple[str, str | int]]:
        """Return gRPC's options; `alone`: do not share a connection with other channels."""
        options: list[tuple[str, str | int]] = [
            # A single answer with many masks, or a raw image, exceeds gRPC's default of 4 MiB.
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.per_rpc_retry_buffer_size", 256 * 2**20),
            ("grpc.service_config", json.dumps(self._service_config())),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", round(_LONGEST_BACKOFF * 1e3)),
            ("grpc.use_local_subchannel_pool", int(alone)),
        ]
        if self.proxy:
            options.append(("grpc.http_proxy", self.proxy.url))
        else:
            options.append(("grpc.enable_http_proxy", 0))
        if self.keepalive_seconds is not None:
            every = max(round(self.keepalive_seconds * 1e3), 1)
            patience = max(round(every * _PATIENCE), 1)
            options += [
                ("grpc.keepalive_time_ms", every),
                ("grpc.keepalive_timeout_ms", patience),
                ("grpc.http2.ping_timeout_ms", patience),
                ("grpc.http2.max_pings_without_data", 0),  # a camera may have nothing to show for hours
            ]
        return options

    def _service_config(self) -> dict[str, Any]:
        """Return gRPC's own settings; round_robin alone looks at health checks."""
        balancing: dict[str, Any] = {"loadBalancingConfig": [{self.load_balancing: {}}]}
        return _RETRIES | _HEALTH_CHECKS | balancing

    def open(self, *, alone: bool = False) -> grpc.Channel:
        """Return a blocking channel, not yet connected."""
        target, options, credentials = self.address.target, self.options(alone=alone), self.security.credentials
        if credentials is not None:
            return grpc.secure_channel(target, credentials, options)
        return grpc.insecure_channel(target, options)

    def open_async(self, *, alone: bool = False) -> grpc.aio.Channel:
        """Return a channel for the running event loop, not yet connected."""
        target, options, credentials = self.address.target, self.options(alone=alone), self.security.credentials
        if credentials is not None:
            return grpc.aio.secure_channel(target, credentials, options)
        return grpc.aio.insecure_channel(target, options)

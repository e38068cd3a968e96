"""The gRPC server: our service, health and reflection; how its connections are kept, and with which certificates."""

import asyncio
import functools
import resource
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from vedette.v1 import detection_service_pb2 as pb

from vedette_server.access.access import Access
from vedette_server.access.certificates import Certificates
from vedette_server.access.files import Kept
from vedette_server.addresses import Tcp, Unix
from vedette_server.engine.engine import Engine
from vedette_server.rpc import wire
from vedette_server.rpc.detection import DetectionService
from vedette_server.rpc.guard import SERVICE, Guard
from vedette_server.rpc.intake import Intake
from vedette_server.rpc.socket_file import SocketFile

_LOOKAHEAD = 256 * 1024  # bytes
_MOST_CONNECTIONS = 2_000
_MOST_CALLS = 256  # at once on one connection; a client waits before it begins more
# That gRPC has received and not yet handed over, beyond which it cancels some of the new ones, and then all.
_MOST_UNSEEN, _CANCELLED = 10_000, 20_000
_KEPT_FILES = 320  # descriptors that connections of gRPC leave for workers, their images, HTTP and the log
_SLACK = 2  # times the largest message that is served: up to there it is refused by us, beyond it by gRPC alone


def _handlers(service: DetectionService) -> grpc.GenericRpcHandler:
    """What the generated code registers, but that `rpc.wire` reads requests that hold images."""
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    answered, streamed = pb.DetectResponse.SerializeToString, pb.StreamDetectResponse.SerializeToString
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Detect": unary(service.Detect, wire.sent(wire.detect_request), answered),
            "StreamDetect": stream(service.StreamDetect, wire.sent(wire.stream_request), streamed),
            "ListModels": unary(
                service.ListModels, wire.sent(pb.ListModelsRequest.FromString), pb.ListModelsResponse.SerializeToString
            ),
            "GetModel": unary(
                service.GetModel, wire.sent(pb.GetModelRequest.FromString), pb.GetModelResponse.SerializeToString
            ),
            "Diagnose": unary(
                service.Diagnose, wire.sent(pb.DiagnoseRequest.FromString), pb.DiagnoseResponse.SerializeToString
            ),
        },
    )


def _connections() -> int:
    """How many connections there may be, after the limit of open files was raised as far as this process may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = _MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - _KEPT_FILES
    return max(1, min(files, _MOST_CONNECTIONS))


@dataclass(frozen=True)
class Keepalive:
    """How connections are told alive from dead, in seconds."""

    permitted: float = 5.0  # between two pings of a client, calls or not; gRPC's own limit is five minutes
    strikes: int = 2  # pings that may come sooner, since the server last sent anything, before the client is sent away
    every: float = 30.0  # between two pings of the server on a connection that is silent
    patience: float = 15.0  # for the answer; then the connection is closed, and what was asked on it is given up

    def options(self) -> list[tuple[str, int]]:
        """The same for gRPC."""
        return [
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.permitted * 1e3)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", self.strikes),
            ("grpc.keepalive_time_ms", round(self.every * 1e3)),
            ("grpc.keepalive_timeout_ms", round(self.patience * 1e3)),
            ("grpc.http2.ping_timeout_ms", round(self.patience * 1e3)),  # which a server goes by
            ("grpc.http2.max_pings_without_data", 0),
        ]


def _credentials(kept: Kept[Certificates]) -> grpc.ServerCredentials:
    """Certificates of which each new connection has the newest; calls under way keep theirs."""
    given = kept.get()

    def fetch() -> Any:  # noqa: ANN401  None, as before, which its types do not know
        nonlocal given
        if (found := kept.get()) is given:
            return None
        given = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), fetch, require_client_authentication=given.client_ca is not None
    )


def _configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(found.key, found.chain)], found.client_ca)


class RpcServer:
    """Listens, and tells who asks whether the models answer."""

    def __init__(
        self,
        engine: Engine,
        max_image_bytes: int,
        max_streams: int,
        access: Access | None = None,
        keepalive: Keepalive | None = None,
    ) -> None:
        """Without `access`, everybody may do everything."""
        access = access or Access()
        self._certificates = access.certificates
        most = _SLACK * (max_image_bytes + wire.MOST_BESIDE_IMAGE)
        refused = functools.partial(engine.monitor.refused, "", "")
        self._intake = Intake(lambda: engine.held_bytes, refused)
        self._watching: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            interceptors=(Guard(access, refused), self._intake),
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                # A compressed request of 32 KB can hold 33 MB. Pictures are compressed already.
                ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression),
                # What gRPC may buffer of a call before its message is asked for. It would be megabytes.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
                ("grpc.max_concurrent_streams", _MOST_CALLS),
                ("grpc.server.max_pending_requests", _MOST_UNSEEN),
                ("grpc.server.max_pending_requests_hard_limit", _CANCELLED),
                ("grpc.max_allowed_incoming_connections", _connections()),
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.http2.settings_timeout", 10_000),
                ("grpc.max_connection_idle_ms", 10 * 60_000),
                *(keepalive or Keepalive()).options(),
            ],
        )
        self._socket: SocketFile | None = None
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers((_handlers(DetectionService(engine, max_streams)),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: Tcp | Unix) -> str:
        """Listen, not serving yet; returns the address. Raises `OSError` if it cannot be had."""
        await self.tell(serving=False)
        if isinstance(address, Unix):
            self._socket = SocketFile(address.path)
            with self._socket.making():
                self._listen(f"unix:{address.path.replace('%', '%25')}", address)
        else:
            address = Tcp(address.host, self._listen(str(address), address))
        await self._server.start()
        self._watching = asyncio.create_task(self._intake.watch())
        return f"grpcs://{address}" if self._certificates and isinstance(address, Tcp) else str(address)

    def _listen(self, target: str, address: Tcp | Unix) -> int:
        try:
            if self._certificates:
                return self._server.add_secure_port(target, _credentials(self._certificates))
            return self._server.add_insecure_port(target)
        except RuntimeError as error:
            msg = f"cannot listen on {address}: {error}"
            raise OSError(msg) from error

    async def ended(self) -> None:
        """Wait for gRPC to end. Unless it was told to, raises `RuntimeError`: nobody listens any more."""
        waiting = asyncio.ensure_future(self._server.wait_for_termination())
        await asyncio.shield(waiting)  # to cancel it would cancel what gRPC itself waits for when it stops
        msg = "gRPC has ended by itself"
        raise RuntimeError(msg)

    async def tell(self, *, serving: bool) -> None:
        """Tell health checks, for the whole server and for our service."""
        serving_status = health_pb2.HealthCheckResponse.ServingStatus
        state = serving_status.SERVING if serving else serving_status.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def stop(self, seconds: float) -> None:
        """Refuse new calls, and cancel those that are not through after `seconds`."""
        await self._server.stop(seconds)
        if self._watching:
            self._watching.cancel()
        if self._socket:
            self._socket.remove()

"""The gRPC server: our service, the Open Inference Protocol, health and reflection; connections and certificates."""

import asyncio
import functools
import importlib.util
import resource
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from vedette.v1 import detection_service_pb2 as pb

from vedette_server.access.access import Access
from vedette_server.access.certificates import Certificates
from vedette_server.access.files import Kept
from vedette_server.addresses import Tcp, Unix
from vedette_server.engine.control import Control
from vedette_server.engine.engine import Engine
from vedette_server.rpc import wire
from vedette_server.rpc.calls import Calls
from vedette_server.rpc.detection import DetectionService
from vedette_server.rpc.guard import INFERENCE, SERVICE, Guard
from vedette_server.rpc.http_connections import Port
from vedette_server.rpc.intake import Intake
from vedette_server.rpc.open_streams import OpenStreams
from vedette_server.rpc.socket_file import SocketFile

_LOOKAHEAD = 256 * 1024  # bytes
_MOST_CONNECTIONS = 2_000
_MOST_CALLS = 256  # concurrent calls on one connection; a client waits before it begins more
# Calls that gRPC has received but not handed over, beyond which it cancels some of the new ones, and all of them.
_MOST_PENDING, _CANCELLED = 10_000, 20_000
_KEPT_FILES = 320  # descriptors reserved for workers, their images, HTTP and the log
_SLACK = 2  # times the largest supported message: up to there we refuse it, beyond it gRPC does


def _handlers(service: DetectionService) -> grpc.GenericRpcHandler:
    """Register the methods as generated code would, but with `rpc.wire` reading requests that hold images."""
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


@dataclass(frozen=True)
class _Inference:
    """The Open Inference Protocol, over gRPC and over HTTP."""

    handlers: tuple[grpc.GenericRpcHandler, ...] = ()
    rest: Port | None = None


def _inference(
    engine: Engine,
    calls: Calls,
    streams: OpenStreams,
    control: Control | None,
    intake: Intake,
    access: Access,
    most: int,
) -> _Inference:
    """Return the Open Inference Protocol; empty without the extra `triton`, which has its messages."""
    if importlib.util.find_spec("tritonclient") is None:
        return _Inference()
    from vedette_server.rpc.inference import InferenceService  # imports the extra
    from vedette_server.rpc.inference_control import ModelControl  # the same
    from vedette_server.rpc.inference_stream import InferenceStreams  # the same
    from vedette_server.rpc.rest import Rest  # the same

    service = InferenceService(engine, calls, control)
    controlling = ModelControl(engine, calls, control)
    methods = (service, InferenceStreams(engine, calls, service, streams), controlling)
    rest = Rest(service, controlling, calls, intake, access, most)
    return _Inference(tuple(one.handlers() for one in methods), rest)


def _connections() -> int:
    """Return the limit of connections, after raising the limit of open files as far as permitted."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = _MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - _KEPT_FILES
    return max(1, min(files, _MOST_CONNECTIONS))


@dataclass(frozen=True)
class Keepalive:
    """Detection of dead connections; times in seconds."""

    permitted: float = 5.0  # minimum between a client's pings, with or without calls; gRPC's default is five minutes
    strikes: int = 2  # premature pings since the server last sent data before a client is disconnected
    every: float = 30.0  # between the server's pings on a silent connection
    patience: float = 15.0  # for the response to a ping; then the connection is closed and its calls are cancelled

    def options(self) -> list[tuple[str, int]]:
        """Return the equivalent gRPC options."""
        return [
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.permitted * 1e3)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", self.strikes),
            ("grpc.keepalive_time_ms", round(self.every * 1e3)),
            ("grpc.keepalive_timeout_ms", round(self.patience * 1e3)),
            ("grpc.http2.ping_timeout_ms", round(self.patience * 1e3)),  # the one that applies to servers
            ("grpc.http2.max_pings_without_data", 0),
        ]


def _credentials(kept: Kept[Certificates]) -> grpc.ServerCredentials:
    """Return credentials that give each new connection the newest certificates; calls in flight keep theirs."""
    given = kept.get()

    def fetch() -> Any:  # noqa: ANN401  None if unchanged, which its type stubs do not know
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
    """gRPC server that also reports to health checks whether the models answer."""

    def __init__(
        self,
        engine: Engine,
        max_image_bytes: int,
        max_streams: int,
        access: Access | None = None,
        keepalive: Keepalive | None = None,
        control: Control | None = None,
    ) -> None:
        """Without `access`, allow everyone to do everything; without `control`, nobody to load models."""
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
                # A compressed request of 32 KB can expand to 33 MB, and pictures are compressed already.
                ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression),
                # Limit what gRPC buffers of a call before its message is requested; the default is megabytes.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
                ("grpc.max_concurrent_streams", _MOST_CALLS),
                ("grpc.server.max_pending_requests", _MOST_PENDING),
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
        calls, streams = Calls(engine), OpenStreams(engine, max_streams)
        inference = _inference(engine, calls, streams, control, self._intake, access, most)
        self.rest = inference.rest  # for the HTTP port
        self.services = (SERVICE, INFERENCE) if inference.handlers else (SERVICE,)  # of models
        ours = _handlers(DetectionService(engine, calls, streams))
        self._server.add_generic_rpc_handlers((ours, *inference.handlers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self.services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: Tcp | Unix) -> str:
        """Listen without serving yet, and return the address. Raises `OSError` if it is unavailable."""
        await self.tell(serving=False)
        if isinstance(address, Unix):
            self._socket = SocketFile(address.path)
            with self._socket.making():
                self._listen(f"unix:{quote(address.path)}", address)
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
        """Wait for gRPC to end. Raises `RuntimeError` if it ended by itself: nobody listens any more."""
        waiting = asyncio.ensure_future(self._server.wait_for_termination())
        await asyncio.shield(waiting)  # cancelling it would cancel what gRPC itself awaits when it stops
        msg = "gRPC has ended by itself"
        raise RuntimeError(msg)

    async def tell(self, *, serving: bool) -> None:
        """Set the status in health checks, for the whole server and for each service of models."""
        serving_status = health_pb2.HealthCheckResponse.ServingStatus
        state = serving_status.SERVING if serving else serving_status.NOT_SERVING
        for name in ("", *self.services):
            await self._health.set(name, state)

    async def stop(self, seconds: float) -> None:
        """Refuse new calls, and cancel those still in flight after `seconds`."""
        await self._server.stop(seconds)
        if self._watching:
            self._watching.cancel()
        if self._socket:
            self._socket.remove()

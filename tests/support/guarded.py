"""Servers of scripted models behind files about who may call, on a loop of their own; and calls of every kind."""

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from tritonclient.grpc import service_pb2, service_pb2_grpc
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.access import tokens
from vedette_server.access.access import Access, AccessSources
from vedette_server.addresses import Tcp
from vedette_server.engine.engine import Engine
from vedette_server.engine.standing import State
from vedette_server.monitor.metrics import Metrics
from vedette_server.rpc.http import HttpServer
from vedette_server.rpc.server import RpcServer
from vedette_server.watch.probe import Probe

from tests.support.authority import Authority, Pair
from tests.support.scripted import MODEL, SETTINGS

MODELS = ("cars", "carts", "faces")
ISSUER, AUDIENCE = "https://issuer.test", "vedette"
_PATIENCE = 60.0

T = TypeVar("T")


class Models:
    """An engine with those models, each with a worker, and the servers in front of it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.metrics = Metrics()
        self.engine: Engine = self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    async def _start(self) -> Engine:
        settings = dataclasses.replace(SETTINGS, workers=1, max_queued=64)
        engine = Engine(settings, self.metrics, Probe(self.metrics), max_seconds=60)
        for name in MODELS:
            engine.load(dataclasses.replace(MODEL, name=name))
        while any(served.standing.state is not State.READY for served in engine.served):
            engine.changed.clear()
            await engine.changed.wait()
        return engine

    @contextlib.contextmanager
    def behind(self, sources: AccessSources) -> Iterator["Guarded"]:
        """Servers that let in whom those files name."""

        async def start() -> tuple[Guarded, RpcServer, HttpServer, asyncio.Task[None]]:
            access = Access(sources, self.metrics.reloaded)
            await access.fetch()
            rpc = RpcServer(self.engine, 1_000_000, 8, access)
            http = HttpServer(self.metrics, lambda: True, access, rpc.rest)
            listening = await rpc.start(Tcp("127.0.0.1", 0)), await http.start(Tcp("127.0.0.1", 0))
            await rpc.tell(serving=True)
            return Guarded(*listening, rpc), rpc, http, asyncio.create_task(access.follow())

        async def stop() -> None:
            following.cancel()
            await rpc.stop(0)
            await http.stop()

        guarded, rpc, http, following = self.run(start())
        try:
            yield guarded
        finally:
            self.run(stop())

    def stop(self) -> None:
        self.run(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class Guarded:
    """Where they listen."""

    address: str
    http: str
    rpc: RpcServer


class Issuer:
    """Makes JWTs, and the JWKS file that they are checked against."""

    def __init__(self, path: Path, key_id: str = "first") -> None:
        self.path = path
        self._id = key_id
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.jwks = json.dumps({"keys": [{**public, "kid": key_id, "use": "sig"}]}).encode()
        path.write_bytes(self.jwks)

    def token(self, subject: str, **changes: Any) -> str:
        """A token; `changes` are claims, None for none of it."""
        claims = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self._key, "ES256", {"kid": self._id})


class Tokens:
    """A file of tokens, and the tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, str] = {}
        self._write()

    def add(self, name: str) -> str:
        self._lines[name], token = tokens.make(name)
        self._write()
        return token

    def revoke(self, name: str) -> None:
        del self._lines[name]
        self._write()

    def _write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text("# who may call\n" + "".join(f"{line}\n" for line in self._lines.values()))
        beside.replace(self.path)


@dataclass(frozen=True)
class Shown:
    """The credentials of a caller."""

    token: str = ""
    own: Pair | None = None


class Caller:
    """Calls, and says what came of it: OK, or the reason of the refusal; without a reason, the code's name."""

    def __init__(self, at: Guarded, authority: Authority | None, shown: Shown) -> None:
        self._at = at
        self._metadata: tuple[tuple[str, str], ...] = (
            (("authorization", f"Bearer {shown.token}"),) if shown.token else ()
        )
        self._context = authority.context(shown.own) if authority else None
        target = at.address.removeprefix("grpcs://")
        options = [("grpc.enable_retries", 0)]
        if authority:
            own = (shown.own.key.read_bytes(), shown.own.cert.read_bytes()) if shown.own else (None, None)
            credentials = grpc.ssl_channel_credentials(authority.path.read_bytes(), *own)
            self._channel = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._stub = DetectionServiceStub(self._channel)
        self._actions: dict[str, Callable[[str], Any]] = {
            "detect": self._detect,
            "stream": self._stream,
            "share": self._share,
            "load": self._load,
            "diagnose": self._diagnose,
            "describe": self._describe,
            "health": self._health,
            "reflection": self._reflection,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._channel.close()

    def call(self, verb: str, model: str = "") -> str:
        if verb in ("metrics", "livez", "readyz"):
            return self._get(verb)
        try:
            self._actions[verb](model)
        except grpc.RpcError as error:
            reason = reason_of(error)
            # What is past the guard: there is no budget for diagnoses here, and no control of models.
            return "OK" if reason == "FEATURE_NOT_SERVED" else reason
        return "OK"

    def list(self) -> list[str]:
        listed = self._stub.ListModels(pb.ListModelsRequest(), metadata=self._metadata, timeout=_PATIENCE)
        return [model.name for model in listed.models]

    def _detect(self, model: str) -> None:
        request = pb.DetectRequest(model_name=model, image=image())
        self._stub.Detect(request, metadata=self._metadata, timeout=_PATIENCE)

    def _stream(self, model: str) -> None:
        with self.stream(model) as answers:
            for _answer in answers:
                pass

    @contextlib.contextmanager
    def stream(self, model: str, until: threading.Event | None = None) -> Iterator[Any]:
        """The answers of a stream of one frame, which ends when it is told to."""

        def requests() -> Iterator[pb.StreamDetectRequest]:
            config = pb.StreamConfig(model_name=model, drop_policy=pb.DROP_POLICY_LOSSLESS)
            yield pb.StreamDetectRequest(config=config)
            yield pb.StreamDetectRequest(frame=pb.Frame(frame_id=1, image=image()))
            if until:
                until.wait(_PATIENCE)

        answers = self._stub.StreamDetect(requests(), metadata=self._metadata, timeout=_PATIENCE)
        try:
            yield answers
        finally:
            answers.cancel()

    def _share(self, _model: str) -> None:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        request = service_pb2.SystemSharedMemoryStatusRequest()
        stub.SystemSharedMemoryStatus(request, metadata=self._metadata, timeout=_PATIENCE)

    def _load(self, model: str) -> None:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        stub.RepositoryModelLoad(request, metadata=self._metadata, timeout=_PATIENCE)

    def _diagnose(self, model: str) -> None:
        request = pb.DiagnoseRequest(model_name=model, image=image())
        self._stub.Diagnose(request, metadata=self._metadata, timeout=_PATIENCE)

    def _describe(self, model: str) -> None:
        self._stub.GetModel(pb.GetModelRequest(model_name=model), metadata=self._metadata, timeout=_PATIENCE)

    def _health(self, _model: str) -> None:
        request = health_pb2.HealthCheckRequest()
        health_pb2_grpc.HealthStub(self._channel).Check(request, metadata=self._metadata, timeout=_PATIENCE)

    def _reflection(self, _model: str) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(self._channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        list(stub.ServerReflectionInfo(iter([request]), metadata=self._metadata, timeout=_PATIENCE))

    def _get(self, path: str) -> str:
        headers = {key.title(): value for key, value in self._metadata}
        request = urllib.request.Request(f"{self._at.http}/{path}", headers=headers)  # noqa: S310  our own server
        try:
            with urllib.request.urlopen(request, context=self._context) as response:  # noqa: S310  the same
                response.read()
        except urllib.error.HTTPError as error:
            return error.read().decode().partition(":")[0]
        return "OK"


def image() -> image_pb2.Image:
    raw = image_pb2.RawImage(data=bytes(300), height=10, width=10, pixel_format=image_pb2.PIXEL_FORMAT_BGR8)
    return image_pb2.Image(raw=raw)


def reason_of(error: Any) -> str:
    status: status_pb2.Status | None = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        return str(error.code().name)
    return str(info.reason)

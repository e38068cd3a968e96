"""Every reader of bytes that others have made: what it may refuse with, and sound bytes to begin with."""

import contextlib
import dataclasses
import datetime as dt
import functools
import io
import json
import logging
import pickle
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jwt
import msgspec
import numpy as np
import structlog
import torch
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry
from pycocotools import mask as rle
from safetensors.torch import save
from vedette.v1 import answer_pb2, model_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import errors as client_errors
from vedette_client import results
from vedette_server.access import certificates, jwts, policy, tokens
from vedette_server.access.files import AccessError
from vedette_server.baseline import stored
from vedette_server.baseline.scrape import Page
from vedette_server.baseline.stored import BaselineRefusedError
from vedette_server.contract import avif, convert, layout, markup, tiff
from vedette_server.contract.answer import Answer, Detections, Evidence, Mask, StageTimes
from vedette_server.contract.contract import ImageLimits, Input
from vedette_server.contract.image import (
    ChannelOrder,
    EncodedImage,
    ImageSpec,
    Orientation,
    PixelFormat,
    RawImage,
    SentImage,
    TensorImage,
    TensorLayout,
    ValueRange,
    YuvMatrix,
    YuvRange,
)
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.contract.refusal import Refused
from vedette_server.monitor.baselines import Baselines
from vedette_server.predictor import checkpoint, pickled, weights, written
from vedette_server.predictor.pickled import AttackError, BrokenPickleError
from vedette_server.predictor.stored import Stored
from vedette_server.report import reading
from vedette_server.report.page import Scrape, compose
from vedette_server.repository import golden, repository
from vedette_server.rpc import convert as rpc_convert
from vedette_server.rpc import wire
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.bench import requests
from tests.support import wire_requests
from tests.support.pictures import pictures

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

_LONGEST = 4_096  # bytes that most are given
Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Reader:
    """A function that is given bytes, and what it may raise at them; more is a fault."""

    read: Read
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = _LONGEST  # bytes that are tried

    def takes(self, data: bytes) -> bool:
        """True if it reads these bytes and refuses nothing."""
        try:
            self.read(data)
        except self.refusals:
            return False
        return True

    def fails(self, data: bytes) -> Exception | None:
        """The exception at these bytes that it must not raise."""
        try:
            self.read(data)
        except self.refusals:
            return None
        except Exception as error:  # noqa: BLE001  whatever it is
            return error
        return None


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="vedette-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108  no disk is worn out


def remove() -> None:
    """Remove what readers of files were given."""
    shutil.rmtree(_folder(), ignore_errors=True)


def _file(data: bytes, name: str) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


@functools.cache
def _model() -> repository.ModelVersion:
    (version,) = repository.read(BUNDLED_REPOSITORY)
    contract = dataclasses.replace(version.contract, limits=ImageLimits(2**20, 2**18, 4_096), inputs=tuple(Input))
    return dataclasses.replace(version, contract=contract)


def _decoded(spec: ImageSpec, data: bytes) -> None:
    """Check an image as the gateway does, and decode it as a worker does."""
    height, width = convert.check(SentImage(spec, data), _model().contract)
    pixels = convert.decode(SentImage(spec, data))
    convert.read(SentImage(spec, data))
    assert pixels.dtype == np.uint8
    assert pixels.shape in ((height, width, 3), (width, height, 3)), (pixels.shape, height, width)


def _image(data: bytes) -> None:
    _decoded(EncodedImage(Orientation.APPLY, drop_alpha=True), data)


def _avif(data: bytes) -> None:
    avif.is_avif(data)
    avif.check(data, 64 * 64)


def _tiff(data: bytes) -> None:
    tiff.size(data)
    tiff.orientation(data)


_DECLARED = struct.Struct("<8B4h")


def _samples(data: bytes) -> None:
    """Raw samples or a tensor: what is declared of them is the beginning."""
    if len(data) < _DECLARED.size:
        return
    kind, form, matrix, of_range, alpha, order, planes, values, height, width, stride, _ = _DECLARED.unpack_from(data)
    rest = data[_DECLARED.size :]
    if kind % 3 == 0:
        spec: ImageSpec = TensorImage(
            _one(ChannelOrder, order), _one(TensorLayout, planes), _one(ValueRange, values), height, width
        )
    else:
        spec = RawImage(
            _one(PixelFormat, form),
            height,
            width,
            stride if kind % 3 == 1 else None,
            _one(YuvMatrix, matrix) if matrix % 3 else None,
            _one(YuvRange, of_range) if of_range % 3 else None,
            bool(alpha % 2),
        )
    _decoded(spec, rest)


def _one(kind: Any, number: int) -> Any:
    members = list(kind)
    return members[number % len(members)]


def _samples_seeds() -> Iterator[bytes]:
    for kind, form in ((0, 0), (1, 0), (2, 1), (2, 2), (2, 3), (2, 5), (2, 6)):
        for length in (6 * 4 * 3, 6 * 4 * 3 // 2, 6 * 4, 6 * 4 * 4, 6 * 4 * 12):
            yield _DECLARED.pack(kind, form, 1, 1, 1, 0, 0, 0, 4, 6, 18, 0) + bytes(range(length % 251)) * 2
            yield _DECLARED.pack(kind, form, 1, 1, 1, 0, 0, 0, 4, 6, 18, 0) + bytes(length)


def _wire(data: bytes) -> None:
    """A request: read as Protobuf reads it, and converted; its first byte says of which method."""
    method = ("Detect", "StreamDetect", "Diagnose")[data[0] % 3] if data else "Detect"
    with mock.patch.object(wire, "_SMALL", 0):  # short ones are read as long ones are
        _request(method, data)


def _request(method: str, data: bytes) -> None:
    assert not (told := requests.differs(method, data[1:])), told
    received = wire.sent(
        {"Detect": wire.detect_request, "StreamDetect": wire.stream_request}.get(method, pb.DiagnoseRequest.FromString)
    )(data[1:])
    read: Any = received.read()
    if method == "StreamDetect":
        if read.message.WhichOneof("message") == "config":
            rpc_convert.stream_settings(read.message.config, "")
            rpc_convert.asked(read.message.config.options)
        else:
            rpc_convert.frame(read.message.frame, read.data)
        return
    message = read.message if method == "Detect" else read
    rpc_convert.asked(message.options)
    rpc_convert.priority(message.options)
    rpc_convert.image(message.image, getattr(read, "data", None))


def _wire_seeds() -> Iterator[bytes]:
    for number, method in enumerate(("Detect", "StreamDetect", "Diagnose")):
        yield from (bytes([number]) + one for one in wire_requests.valid(method) if len(one) < _LONGEST)


def _pickled(data: bytes) -> None:
    pickled.read(io.BytesIO(data), checkpoint._CALLS)


def _stored(node: Any, depth: int = 0) -> Iterator[Stored]:
    """The tensors that were read, in whatever they lie; what holds itself is left at some depth."""
    if isinstance(node, Stored) and getattr(node, "numeric", True):
        yield node
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    if depth < 8:
        for child in list(children)[:50]:
            yield from _stored(child, depth + 1)


def _weights(data: bytes) -> None:
    """A checkpoint of any kind, and each of its tensors."""
    path = _file(data, "model.pkl")
    found = {str(number): one for number, one in enumerate(_stored(checkpoint.load(path)))}
    for name, tensor in weights._read(found, path).items():
        assert tuple(tensor.shape) == tuple(found[name].shape)


def _safetensors(data: bytes) -> None:
    """Any file that passes the check can be read by the library."""
    path = _file(data, "model.safetensors")
    layout.check(path)
    found = checkpoint.load(path)
    for name, tensor in weights._read(found, path).items():
        assert tuple(tensor.shape) == tuple(found[name].shape)


@functools.cache
def _state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16), "c": torch.tensor(1)}


def _weights_seeds() -> Iterator[bytes]:
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"model": _state(), "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped)
        yield buffer.getvalue()
        buffer = io.BytesIO()
        torch.save({"p": torch.nn.Parameter(torch.ones(2)), "e": torch.ones(2).to(torch.float8_e4m3fn)}, buffer)
        yield buffer.getvalue()
    yield save(_state())
    yield from _pickles()


def _pickles() -> Iterator[bytes]:
    arrays = {"model": {name: one.numpy() for name, one in _state().items()}, "names": ["a", ("b", 1.5, None, True)]}
    for protocol in range(6):
        yield pickle.dumps(arrays, protocol=protocol)
    yield pickle.dumps({"set": {1, 2}, "frozen": frozenset("ab"), "when": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)})


def _yaml(data: bytes) -> None:
    """A config, as the importer reads it and as the server does; both are then held to their bounds."""
    with contextlib.suppress(LoadRefusedError):
        list(written.expressions(written.read(_file(data, "config.yaml"))))
    markup.plain(data)


def _yaml_seeds() -> Iterator[bytes]:
    yield (_model().folder / "config.yaml").read_bytes()[:3_000]
    yield b"a: &x [1, 2.5, .inf, null, true, '\xc3\xa9']\nb: {<<: {c: 1}, d: *x}\n"
    yield b"a: !!python/tuple [1]\nb: !!python/object:numpy.ndarray {args: [1]}\nc: !!python/name:os.system ''\n"
    yield b"when: 2001-12-14t21:59:43.10-05:00\nbin: !!binary YWJj\nset: !!set {a, b}\npairs: !!omap [a: 1]\n"
    yield yaml.dump(
        {
            "a": np.float32(1.5),
            "b": np.arange(3),
            "c": np.dtype("float32"),
            "d": (1, Path("x")),
            "e": torch.device("cpu"),
        }
    ).encode()
    yield b"! [!!int '0x1f', !!float '1e3', !!bool yes, !!null ~, !!str 1, !!timestamp '2001-01-01']"


_OF_VERSION = ("config.yaml", "manifest.json", "../model.toml", "golden/expected.json")


@functools.cache
def _version() -> tuple[Path, dict[str, bytes]]:
    """A version with little in it, whose sums nobody checks, and the files that are exchanged."""
    folder = _folder() / "model" / "1"
    shutil.copytree(_model().folder, folder)
    (folder / "model.safetensors").write_bytes(save({"a": torch.ones(1)}))
    (folder.parent / "model.toml").write_text('threshold = 0.5\nwaivers = ["CHECKSUM_CHANGED"]\n')
    return folder, {name: (folder / name).read_bytes() for name in _OF_VERSION}


def _read_version(data: bytes) -> None:
    """One of the files of a version that the gateway reads; which, the first byte says."""
    folder, files = _version()
    name = _OF_VERSION[data[0] % len(_OF_VERSION)] if data else _OF_VERSION[0]
    (folder / name).write_bytes(data[1:])
    try:
        repository.read_version(folder)
    finally:
        (folder / name).write_bytes(files[name])


def _version_seeds() -> Iterator[bytes]:
    for number, (_, content) in enumerate(_version()[1].items()):
        yield bytes([number]) + content
    yield b"\2threshold = 0.5\ninputs = ['BGR8']\nwaivers = ['CHECKSUM_CHANGED']\n[limits]\nmax_edge = 9\n"


_ANSWERED = Answer(
    height=30,
    width=40,
    threshold=0.5,
    detections=Detections(
        boxes=np.array([[1, 1, 9, 9], [2, 3, 20, 25]], np.float32),
        scores=np.array([0.9, 0.6], np.float32),
        class_ids=np.array([0, 1], np.int32),
        masks=tuple(Mask(rle.encode(np.asfortranarray(np.eye(30, 40, k, np.uint8)))["counts"]) for k in range(2)),
    ),
    evidence=Evidence(best_scores=np.ones(2, np.float32), scored=1),
    times=StageTimes(0, 0, 0, 0),
)


def _golden(data: bytes) -> None:
    """The expectations of golden images, compared with an answer."""
    expected = msgspec.json.decode(data, type=dict[str, tuple[golden.ExpectedObject, ...] | golden.ExpectedAnswer])
    for name, one in expected.items():
        known = golden.read(name, b"", one)
        golden.difference(known, _ANSWERED, golden.tolerance("exact"))
        golden.agreed(known, "abc", _ANSWERED, "ab")


def _golden_seeds() -> Iterator[bytes]:
    yield msgspec.json.encode({"a.jpg": golden.describe(_ANSWERED.detections)})
    yield (_model().folder / "golden" / "expected.json").read_bytes()[:4_000]
    labels = io.BytesIO()
    pictures()  # Pillow's codecs are loaded
    from PIL import Image

    Image.new("L", (40, 30)).save(labels, "PNG")
    yield msgspec.json.encode({"a": golden.ExpectedAnswer(golden.describe(_ANSWERED.detections), labels.getvalue())})


def _baseline(data: bytes) -> None:
    """A baseline, and the page of metrics that shows it."""
    model = dataclasses.replace(_model(), folder=_folder())
    _file(data, "baseline.json")
    stored.limits(model)
    shown, registry = Baselines(), CollectorRegistry(auto_describe=False)
    shown.loaded(model)
    registry.register(shown)
    Page.parse(generate_latest(registry).decode())
    stored.read(model)


def _baseline_seeds() -> Iterator[bytes]:
    classes = {"stop": stored.ClassProfile(0.5, 1.0, 1.0)}
    statistics = {"empty": stored.Limits(0, 0.1, 0.2), "brightness": stored.Limits(50, 100, 150)}
    whole = stored.Profile("", None, 9, 900, statistics, [0.5, 1.0], [0.2, 1.0], classes)
    street = stored.Profile("street", 7, 9, 900, statistics, [0.5, 1.0])
    both = [whole, street, msgspec.structs.replace(street, hour=None)]
    one = stored.Baseline(1, "m", 1, _model().contract.fingerprint, 1e9, "x", 60.0, ["0.5", "+Inf"], both)
    yield msgspec.json.encode(one)


def _access(data: bytes) -> None:
    """A file about who may call: its first byte says which."""
    kind, rest = (data[0] % 4, data[1:]) if data else (0, b"")
    path = _file(rest, "access")
    match kind:
        case 0:
            read = policy.read(path)
            for verb in policy.Verb:
                read.rule(("token:gate",), verb, "signs")
                read.rule((policy.ANONYMOUS,), verb)
        case 1:
            tokens.read(path)
        case 2:
            jwts.read(path, "issuer", "audience")
        case _:
            certificates.read(path, path, path)


@functools.cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(12345, ec.SECP256R1())


def _jwks() -> dict[str, Any]:
    return {"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(_key().public_key())) | {"kid": "a", "alg": "ES256"}]}


def _access_seeds() -> Iterator[bytes]:
    yield b"""\0[groups]\ncameras = ["token:gate-*", "jwt:a"]\n[[rules]]\nwho = ["group:cameras", "anonymous"]
may = ["detect", "stream"]\nmodels = ["road*"]\nrate = 2.5\nmax_streams = 3\n"""
    yield b"\1# who\ngate sha256:" + b"0a" * 32 + b"\n\ngate-2 sha256:" + b"1b" * 32 + b"\n"
    yield b"\2" + json.dumps(_jwks()).encode()
    yield b"\2" + json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "b"}]}).encode()
    yield b"\3-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMIIB\n"


@functools.cache
def _issuer() -> jwts.Issuer:
    return jwts.read(_file(json.dumps(_jwks()).encode(), "jwks"), "issuer", "audience")


def _jwt(data: bytes) -> None:
    """A token as a header carries it: HTTP's is Latin-1. The second time it is signed rightly, whatever it says."""
    _issuer().subject(data.decode("latin-1"))


def _claims(data: bytes) -> None:
    """Claims that the issuer itself has signed."""
    signed = jwt.api_jws.encode(data, _key(), "ES256", headers={"kid": "a"})
    _issuer().subject(signed)


def _right() -> dict[str, object]:
    return {"sub": "gate", "iss": "issuer", "aud": "audience", "exp": int(time.time()) + 10**8, "nbf": 1, "iat": 1}


def _metrics(data: bytes) -> None:
    """A page of metrics, as `report` reads it: its facts, and the page that tells them."""
    page = Page.parse(data.decode())
    page.since(page)
    page + page
    with contextlib.suppress(ArithmeticError, LookupError, ValueError):  # as its command takes them
        versions = reading.read(page)
        scrape = Scrape("here", dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "1", running=False)
        compose(scrape, versions, reading.elsewhere(page, versions), None)


def _metrics_seeds() -> Iterator[bytes]:
    yield b"""# HELP vedette_build_info x
# TYPE vedette_build_info gauge
vedette_build_info{release="1.0"} 1
vedette_model_info{model="m",version="1",fingerprint="ab",precision="exact",waivers=""} 1
vedette_model_ready{model="m",version="1"} 1
vedette_workers_ready{model="m",version="1"} 1
vedette_workers_wanted{model="m",version="1"} 2
# TYPE vedette_requests_total counter
vedette_requests_total{model="m",version="1",outcome="OK"} 90
vedette_answers_total{model="m",version="1",stream="s"} 90
vedette_empty_answers_total{model="m",version="1",stream="s",reason="QUIET_SCENE"} 30
vedette_input_brightness_levels_sum{model="m",version="1",stream="s"} 9000
vedette_input_brightness_levels_count{model="m",version="1",stream="s"} 90
"""
    yield b"""vedette_build_info{release="1.0"} 1
# TYPE vedette_best_score histogram
vedette_model_ready{model="m",version="1"} 1
vedette_answers_total{model="m",version="1",stream=""} 90 1395066363000
vedette_best_score_bucket{model="m",version="1",le="0.5"} 10
vedette_best_score_bucket{model="m",version="1",le="+Inf"} 90
vedette_best_score_sum{model="m",version="1"} 3e1
vedette_suspected_cause{model="m",version="1",stream="s",cause="CHANNEL_ORDER"} 1
vedette_baseline_limit{model="m",version="1",stream="",statistic="empty",bound="low"} NaN
"""


def _answer(data: bytes) -> None:
    """A server's answer, as the client reads it; the first byte says which kind it is."""
    kind, rest = (data[0] % 4, data[1:]) if data else (0, b"")
    match kind:
        case 0:
            _look(results.result(pb.DetectResponse.FromString(rest)))
        case 1:
            results.model(model_pb2.Model.FromString(rest))
        case 2:
            results.diagnosis(pb.DiagnoseResponse.FromString(rest))
        case _:
            client_errors.from_status(status_pb2.Status.FromString(rest))


def _look(result: results.Result) -> None:
    """Take the answer apart as callers do; what is no picture and no mask says so."""
    assert result.boxes.shape == (len(result), 4)
    assert result.rotated_boxes.shape[1] == 5
    for one in result:
        if one.mask and one.mask.height * one.mask.width < 2**20:
            with contextlib.suppress(client_errors.InternalError):
                one.mask.decode()
    result.to_json()
    result.to_coco(1)


def _answer_seeds() -> Iterator[bytes]:
    counts = rle.encode(np.asfortranarray(np.eye(30, 40, 0, np.uint8)))["counts"]
    masks = [
        answer_pb2.Mask(height=30, width=40, counts=counts),
        answer_pb2.Mask(height=22, width=37, png=pictures()["PNG 1 0"]),
        answer_pb2.Mask(
            height=30,
            width=40,
            polygons=answer_pb2.Polygons(polygons=[answer_pb2.Polygon(coordinates=[1, 1, 9, 1, 5, 8])]),
        ),
    ]
    for mask in masks:
        found = answer_pb2.Detection(box=answer_pb2.Box(x1=3, y1=4), score=0.5, class_name="stop", mask=mask)
        found.keypoints.add(x=1, y=2, score=0.5)
        yield b"\0" + pb.DetectResponse(answer=answer_pb2.Answer(detections=[found])).SerializeToString()
    empty = answer_pb2.EmptyAnswer(reason=1, best_score=0.1)  # type: ignore[arg-type]  # its number
    yield b"\0" + pb.DetectResponse(answer=answer_pb2.Answer(empty=empty)).SerializeToString()
    yield b"\1" + rpc_convert._contract(_model().contract).SerializeToString()
    yield b"\1" + model_pb2.Model(contract=rpc_convert._contract(_model().contract)).SerializeToString()
    yield b"\2" + pb.DiagnoseResponse(summary="x", candidates=[pb.DiagnosisCandidate(helps=True)]).SerializeToString()
    refusal = Refused(_reason(), model="m", queued=1, limit="x", expected="1", left="1", retry_seconds="3")
    from vedette_server.rpc import errors

    yield b"\3" + errors.status(refusal, "7").SerializeToString()


def _reason() -> Any:
    from vedette_server.contract.refusal import Reason

    return Reason.OVERLOADED


def _of(*codecs: str) -> Callable[[], Iterable[bytes]]:
    return lambda: [data for name, data in pictures().items() if name.startswith(codecs)]


READERS = {
    "image": Reader(_image, (Refused,), _of(""), 20_000),
    "tiff": Reader(_tiff, (Refused,), _of("TIFF")),
    "avif": Reader(_avif, (Refused,), _of("AVIF")),
    "samples": Reader(_samples, (Refused,), _samples_seeds),
    "wire": Reader(_wire, (Refused,), _wire_seeds),
    "pickle": Reader(_pickled, (BrokenPickleError, AttackError), _pickles),
    "weights": Reader(_weights, (LoadRefusedError,), _weights_seeds),
    "safetensors": Reader(_safetensors, (LoadRefusedError,), lambda: [save(_state()), save(_state(), {"a": "b"})]),
    "yaml": Reader(_yaml, (yaml.YAMLError, ValueError), _yaml_seeds),
    "version": Reader(_read_version, (repository.VersionError,), _version_seeds, 20_000),
    "golden": Reader(_golden, (msgspec.DecodeError, UnicodeDecodeError, RecursionError), _golden_seeds),
    "baseline": Reader(_baseline, (BaselineRefusedError,), _baseline_seeds),
    "access": Reader(_access, (AccessError,), _access_seeds),
    "jwt": Reader(
        _jwt, (jwts.JwtRefusedError,), lambda: [jwt.encode(_right(), _key(), "ES256", {"kid": "a"}).encode()]
    ),
    "claims": Reader(_claims, (jwts.JwtRefusedError,), lambda: [json.dumps(_right()).encode()]),
    "metrics": Reader(_metrics, (ValueError,), _metrics_seeds),
    "answer": Reader(_answer, (DecodeError, client_errors.InternalError), _answer_seeds),
}

"""Empty frames that a running server keeps, with what it thinks of them: asked for by Diagnose, one at a time."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from PIL import Image, ImageChops
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_commands.shown import NOTHING, Shown

from vedette_server.baseline.scrape import is_here
from vedette_server.explain.diagnosis import COLUMNS
from vedette_server.monitor.streams import OTHER, UNNAMED
from vedette_server.report.facts import Version
from vedette_server.report.verdict import beyond

_PATIENCE_SECONDS = 120.0  # for each: beside traffic the server takes its time
_QUALITY = 80  # of the pictures, which are made to be mailed


@dataclass(frozen=True)
class Wanted:
    """A source whose empty frame is asked for."""

    model: str
    number: str
    source: str


@dataclass(frozen=True)
class Sample:
    """The outcome of asking for a sample."""

    wanted: Wanted
    summary: str  # the diagnosis in words, or why there is none
    picture: bytes | None  # WebP: the frame as sent, and with the likeliest mistakes undone


def wanted(versions: Sequence[Version], most: int) -> list[Wanted]:
    """The sources whose emptiness calls for a look, those first whose cause is suspected."""
    found = [
        (version, source)
        for version in versions
        for source in version.sources
        if (source.suspected or beyond(source)) and source.name not in (UNNAMED, OTHER)  # many streams, or none
    ]
    found.sort(key=lambda pair: (not pair[1].suspected, -pair[1].empty))
    return [Wanted(version.model, version.number, source.name) for version, source in found[:most]]


def take(address: str, asked: Sequence[Wanted], shown: Shown = NOTHING) -> Iterator[Sample]:
    """Ask a server for each. What it cannot give is said in the sample's words."""
    secure = address.startswith("grpcs://") or shown.ca is not None
    here = address.startswith("unix:") or is_here(address.rpartition(":")[0].strip("[]"))
    metadata = (("authorization", f"Bearer {shown.token}"),) if shown.token and (secure or here) else None
    with _channel(address.removeprefix("grpcs://"), shown if secure else None) as channel:
        stub = DetectionServiceStub(channel)
        for one in asked:
            request = pb.DiagnoseRequest(model_name=one.model, model_version=one.number, stream_id=one.source)
            try:
                given = stub.Diagnose(request, timeout=_PATIENCE_SECONDS, metadata=metadata)
            except grpc.RpcError as error:
                yield Sample(one, _why_not(error, address), None)
            else:
                yield Sample(one, given.summary, _first_row(given.comparison_png, 1 + len(given.candidates)))


def _channel(target: str, shown: Shown | None) -> grpc.Channel:
    """To a server that has given its metrics, by TLS if something is shown."""
    options = (("grpc.max_receive_message_length", -1),)
    if shown is None:
        return grpc.insecure_channel(target, options)
    ca, key, cert = (path.read_bytes() if path else None for path in (shown.ca, shown.key, shown.cert))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), options)


def _why_not(error: grpc.RpcError, address: str) -> str:
    code, details = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return f"Could not be asked for: no server answers gRPC at {address}."
        case grpc.StatusCode.NOT_FOUND:
            return "The server keeps no frame of it: it keeps those whose emptiness it had to look into."
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"Not diagnosed within {_PATIENCE_SECONDS:.0f} seconds: the server does so beside its traffic."
    return details


def _first_row(png: bytes, tiles: int) -> bytes:
    """The frame as it was sent and what comes next to it in the comparison, without the empty rim below."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as sheet:
        rows = -(-tiles // COLUMNS)
        row = sheet.convert("RGB").crop((0, 0, sheet.width, sheet.height // rows))
    rim = Image.new("RGB", row.size, row.getpixel((row.width - 1, 0)))
    _, _, _, bottom = ImageChops.difference(row, rim).getbbox() or (0, 0, *row.size)
    row.crop((0, 0, row.width, bottom)).save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()

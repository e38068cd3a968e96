"""Bad requests get precise errors over a real connection, and the server answers the next one."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server.contract.refusal import Reason
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture
from vedette_server.rpc.errors import TABLE

from tests.support import running
from tests.support.bad_requests import CASES, encoded, raw


@pytest.fixture
def stub(bundled: running.Server) -> Iterator[DetectionServiceStub]:
    with grpc.insecure_channel(bundled.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield DetectionServiceStub(channel)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_precisely(
    case: str, stub: DetectionServiceStub, bundled: running.Server, scene: Picture
) -> None:
    request, code, reason, field = CASES[case]
    workers, counted = bundled.worker_pids(), refusals(bundled, reason)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detect(request, timeout=30)
    assert refusals(bundled, reason) == counted + 1
    assert caught.value.code() is code
    info, violations = details(caught.value)
    assert (info.reason, info.domain) == (reason, "vedette")
    assert [violation.field for violation in violations] == ([field] if field else [])
    message, row = caught.value.details(), TABLE[Reason(reason)]
    assert message == f"{row.message} {row.remedy}".format_map(info.metadata), "with every fact that it names"
    answered = stub.Detect(encoded(jpeg(scene.pixels)), timeout=60)
    assert answered.answer.detections
    assert bundled.worker_pids() == workers


def test_a_streams_refusals_are_counted(stub: DetectionServiceStub, bundled: running.Server) -> None:
    """One fails a frame; the other ends the stream."""
    config = pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS)
    undeclared = pb.Frame(frame_id=1, image=raw(pixel_format=0).image)
    sent = [pb.StreamDetectRequest(config=config), *2 * [pb.StreamDetectRequest(frame=undeclared)]]
    reasons = ("PIXEL_FORMAT_MISSING", "FRAME_OUT_OF_ORDER")
    counted = [refusals(bundled, reason) for reason in reasons]
    with pytest.raises(grpc.RpcError):
        list(stub.StreamDetect(iter(sent), timeout=30))
    assert [refusals(bundled, reason) for reason in reasons] == [count + 1 for count in counted]


def refusals(server: running.Server, reason: str) -> float:
    """Return how many requests a server has refused for a reason, by its metrics."""
    lines = running.http(server, "/metrics")[1].splitlines()
    named = f'outcome="{reason}"'
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("vedette_requests_total{") and named in line
    )


def details(
    error: grpc.RpcError,
) -> tuple[error_details_pb2.ErrorInfo, list[error_details_pb2.BadRequest.FieldViolation]]:
    status = rpc_status.from_call(error)
    assert status is not None
    infos, violations = [], []
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            infos.append(info)
        elif detail.Unpack(bad):
            violations.extend(bad.field_violations)
    (info,) = infos  # exactly one
    return info, violations


def test_padded_rows_are_the_same_picture(stub: DetectionServiceStub, scene: Picture) -> None:
    height, width = scene.pixels.shape[:2]
    padded = np.pad(scene.pixels.reshape(height, width * 3), ((0, 0), (0, 20)), constant_values=99)
    fields = {"pixel_format": image_pb2.PIXEL_FORMAT_RGB8, "height": height, "width": width}
    plain = stub.Detect(raw(data=scene.pixels.tobytes(), **fields))
    strided = stub.Detect(raw(data=padded.tobytes(), row_stride=width * 3 + 20, **fields))
    assert plain.answer.detections
    assert list(plain.answer.detections) == list(strided.answer.detections)


@pytest.mark.parametrize("size", [(1, 1024), (1024, 1), (16, 16_384)])
def test_a_strip_that_detectron2_leaves_one_pixel_is_answered(
    size: tuple[int, int], stub: DetectionServiceStub
) -> None:
    """Rounded to even, its edge would be 0: an answer for a size that nobody estimated once never came."""
    height, width = size
    answered = stub.Detect(raw(data=bytes(height * width * 3), height=height, width=width), timeout=60)
    assert (answered.answer.image_size.height, answered.answer.image_size.width) == size


def test_a_bomb_costs_the_gateway_no_memory(stub: DetectionServiceStub, bundled: running.Server) -> None:
    """A file of 50 KB that would decode to 10 gigapixels: refused by its header, peak growth under 50 MB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    def peaks() -> list[int]:
        pids = [bundled.process.pid, *bundled.worker_pids()]
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]

    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9)) + chunk(b"IEND", b"")
    bomb = b"\x89PNG\r\n\x1a\n" + body
    assert len(bomb) < 55_000
    before = peaks()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detect(encoded(bomb), timeout=30)
    assert details(caught.value)[0].reason == "IMAGE_TOO_LARGE"
    assert all(after - first < 50_000 for first, after in zip(before, peaks(), strict=True)), "in KiB"

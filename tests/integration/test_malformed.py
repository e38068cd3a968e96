"""Messages that no Protobuf reader reads, and messages that are too large: answered with a reason of ours, cheaply."""

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette_server.contract.contract import ImageLimits

from tests.support import raw_frames, running

SERVICE = "/vedette.v1.DetectionService/"
GARBAGE = b"\x0a\xff\xff\xff\xff\x0f garbage"  # a length-delimited field that promises far more than there is
TINY_FIELDS = b"\x80\x7d\x01" * 5_000_000  # field 2000, value 1: unknown to every method
OVER = ImageLimits().max_bytes + 1
DETECT = pb.DetectRequest(image=image_pb2.Image(encoded=image_pb2.EncodedImage(data=bytes(OVER)))).SerializeToString()


@pytest.fixture
def channel(bundled: running.Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(bundled.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert "DecodeError" not in status.message
    return str(info.reason)


@pytest.mark.parametrize(
    "method",
    [
        *(SERVICE + name for name in ("Detect", "ListModels", "GetModel", "Diagnose")),
        *(f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelMetadata", "ServerLive")),
        "/grpc.health.v1.Health/Check",
    ],
)
def test_what_no_reader_reads_is_refused_with_a_reason(channel: grpc.Channel, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method, bytes, bytes)(GARBAGE, timeout=30)
    assert reason(caught.value) == "REQUEST_UNREADABLE"


def test_a_stream_that_sends_garbage_ends_with_the_reason(channel: grpc.Channel) -> None:
    config = pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS)).SerializeToString()
    ours, reflection = SERVICE + "StreamDetect", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    for method, sent in ((ours, [GARBAGE]), (ours, [config, GARBAGE]), (reflection, [GARBAGE])):
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(method, bytes, bytes)(iter(sent), timeout=30))
        assert reason(caught.value) == "REQUEST_UNREADABLE"


@pytest.mark.parametrize("path", [b"/\xff\xfe/\x00", b"\xff", b"", b"/", b"/x", b"/" + b"x" * 3_000])
def test_a_call_of_a_path_that_is_none_ends_alone(bundled: running.Server, channel: grpc.Channel, path: bytes) -> None:
    """From its version 1.84 on, gRPC ended with one whose path is no UTF-8."""
    connection = raw_frames.Connection(bundled.address)
    connection.send(raw_frames.PREFACE + raw_frames.settings())
    call = connection.call()
    headers = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x", b"te": b"trailers"}
    connection.send(connection.headers(call, [*headers.items(), (b"content-type", b"application/grpc")]))
    connection.send(raw_frames.frame(raw_frames.DATA, bytes(5), call=call, flags=raw_frames.END_STREAM))
    assert connection.listen(lambda: call in connection.ended, running.PATIENCE)
    assert connection.ended.get(call, "closed") != "0"
    connection.close()
    assert channel.unary_unary(SERVICE + "ListModels", bytes, bytes)(b"", timeout=30)


@pytest.mark.parametrize(
    ("message", "expected"),
    [(DETECT, "IMAGE_TOO_MANY_BYTES"), (TINY_FIELDS, "REQUEST_TOO_LARGE")],
    ids=["image", "fields"],
)
def test_what_is_too_large_is_refused_with_a_reason(channel: grpc.Channel, message: bytes, expected: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(SERVICE + "Detect", bytes, bytes)(message, timeout=30)
    assert reason(caught.value) == expected


def test_a_frame_that_is_too_large_fails_alone(channel: grpc.Channel) -> None:
    def requests() -> Iterator[bytes]:
        yield pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS)).SerializeToString()
        for number, size in enumerate((12, OVER, 12)):
            raw = image_pb2.RawImage(data=bytes(size), height=2, width=2, pixel_format=image_pb2.PIXEL_FORMAT_BGR8)
            frame = pb.Frame(frame_id=number, image=image_pb2.Image(raw=raw))
            yield pb.StreamDetectRequest(frame=frame).SerializeToString()

    read: Callable[[bytes], pb.StreamDetectResponse] = pb.StreamDetectResponse.FromString
    told = channel.stream_stream(SERVICE + "StreamDetect", bytes, read)(requests(), timeout=60)
    assert [one.WhichOneof("message") for one in told] == ["answer", "error", "answer"]


def test_a_compressed_request_is_not_inflated(bundled: running.Server) -> None:
    """32 KB on the wire would be 33 MB in memory; what grpc says names the algorithms that are taken."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(bundled.address, options, compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SERVICE + "Detect", bytes, bytes)(bytes(30_000_000), timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_streams_without_a_configuration_take_nobodys_place(channel: grpc.Channel) -> None:
    idle = threading.Event()

    def nothing() -> Iterator[bytes]:
        idle.wait()
        yield from ()

    open_ = [channel.stream_stream(SERVICE + "StreamDetect", bytes, bytes)(nothing(), timeout=60) for _ in range(80)]
    config = pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS)).SerializeToString()
    assert list(channel.stream_stream(SERVICE + "StreamDetect", bytes, bytes)(iter([config]), timeout=30)) == []
    idle.set()
    for call in open_:
        call.cancel()

"""The image's bytes beside the message: what one end writes, any protobuf reader reads, and the other end."""

import itertools

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette_client import File, ImageLike, Raw, Tensor
from vedette_client import images as client_images
from vedette_client.images import Beside
from vedette_client.wire import Outgoing, serialize
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc import wire

LARGE = bytes(range(256)) * 1000
PIXELS = np.frombuffer(LARGE[: 3 * 250 * 300], np.uint8).reshape(250, 300, 3)
IMAGES: dict[str, ImageLike] = {
    "file": File(LARGE, orientation="IGNORE"),
    "raw": Raw(
        LARGE[: 400 * 426 * 3 // 2],
        pixel_format="NV12",
        height=400,
        width=426,
        yuv_matrix="BT709",
        yuv_range="FULL",
    ),
    "tensor": Tensor(PIXELS / np.float32(255), "RGB", "HWC", "0-1"),
    "small": b"a few bytes",
}


def requests(image: ImageLike) -> list[tuple[Outgoing, type[pb.DetectRequest | pb.StreamDetectRequest], str]]:
    declared, data = client_images.message(image, Beside())
    detect = pb.DetectRequest(model_name="signs", image=declared, request_id="7")
    frame = pb.StreamDetectRequest(frame=pb.Frame(frame_id=3, image=declared))
    return [(Outgoing(detect, data), pb.DetectRequest, ""), (Outgoing(frame, data), pb.StreamDetectRequest, "frame")]


def image_of(message: pb.DetectRequest | pb.StreamDetectRequest) -> image_pb2.Image:
    return message.image if isinstance(message, pb.DetectRequest) else message.frame.image


@pytest.mark.parametrize("kind", IMAGES)
def test_what_the_client_writes_every_reader_reads(kind: str) -> None:
    for outgoing, message_type, _ in requests(IMAGES[kind]):
        read = message_type.FromString(serialize(outgoing))
        content = getattr(image_of(read), image_of(read).WhichOneof("content") or "")
        assert content.data == bytes(outgoing.data)
        content.ClearField("data")
        assert read == outgoing.message


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("written_by", ["the client", "protobuf"])
def test_the_server_reads_both_without_a_copy_of_what_is_large(kind: str, written_by: str) -> None:
    for outgoing, message_type, _ in requests(IMAGES[kind]):
        sent = serialize(outgoing)
        if written_by == "protobuf":
            sent = message_type.FromString(sent).SerializeToString()
        read = wire.detect_request if message_type is pb.DetectRequest else wire.stream_request
        received = read(sent)
        content = getattr(image_of(received.message), image_of(received.message).WhichOneof("content") or "")
        if kind == "small":
            assert (received.data, content.data) == (None, outgoing.data)
            continue
        assert isinstance(received.data, memoryview)
        assert received.data.obj is sent
        assert bytes(received.data) == bytes(outgoing.data)
        assert received.message == outgoing.message


def test_the_last_of_two_is_what_counts() -> None:
    first, second = (serialize(requests(File(bytes([value]) * 50_000))[0][0]) for value in (1, 2))
    assert bytes(wire.detect_request(first + second).data or b"") == bytes([2]) * 50_000


def encoded(data: bytes) -> image_pb2.Image:
    return image_pb2.Image(encoded=image_pb2.EncodedImage(data=data))


RAW = image_pb2.Image(raw=image_pb2.RawImage(height=4))
CONFIG = pb.StreamDetectRequest(config=pb.StreamConfig(stream_id="x"))
FIRST = (pb.DetectRequest(image=encoded(LARGE)), pb.StreamDetectRequest(frame=pb.Frame(image=encoded(LARGE))))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (FIRST[0], [pb.DetectRequest(image=RAW)]),
        (FIRST[0], [pb.DetectRequest(image=RAW), pb.DetectRequest(image=encoded(b""))]),
        (FIRST[1], [pb.StreamDetectRequest(frame=pb.Frame(image=RAW))]),
        (FIRST[1], [CONFIG]),
        (FIRST[1], [CONFIG, pb.StreamDetectRequest(frame=pb.Frame(image=encoded(b"")))]),
    ],
)
def test_an_image_that_another_kind_follows_gives_it_no_bytes(
    first: pb.DetectRequest | pb.StreamDetectRequest, then: list[pb.DetectRequest | pb.StreamDetectRequest]
) -> None:
    """Of a oneof's fields the last is what counts, without what another has left."""
    sent = b"".join(one.SerializeToString() for one in (first, *then))
    received = wire.detect_request(sent) if isinstance(first, pb.DetectRequest) else wire.stream_request(sent)
    assert received.data is None
    assert received.message == type(first).FromString(sent)


@pytest.mark.parametrize("cut", [1, 5, 1000, 100_000])
def test_a_truncated_message_is_no_message(cut: int) -> None:
    sent = serialize(requests(File(LARGE))[0][0])
    with pytest.raises(DecodeError):
        wire.detect_request(sent[:-cut])


def test_millions_of_fields_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read to the end, they would hold the event loop for seconds."""
    read = itertools.count()
    original = wire._read_varint

    def counted(message: memoryview, at: int) -> tuple[int, int]:
        next(read)
        return original(message, at)

    monkeypatch.setattr(wire, "_read_varint", counted)
    with pytest.raises(Refused) as caught:
        wire.detect_request(b"\x80\x7d\x01" * 5_000_000)  # field 2000, which no message has
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE
    assert next(read) < wire.MOST_BESIDE_IMAGE

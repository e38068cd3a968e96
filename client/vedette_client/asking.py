"""What can be asked about an image, and the request that asks it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

from vedette.v1 import answer_pb2
from vedette.v1 import detection_service_pb2 as pb

from vedette_client import images
from vedette_client.images import ImageLike, PixelFormat
from vedette_client.wire import Outgoing

OutputKind: TypeAlias = Literal["boxes", "masks", "keypoints", "panoptic", "semantic"]
MaskFormat: TypeAlias = Literal["COCO_RLE", "POLYGONS", "PNG", "NONE"]


class Ask(TypedDict, total=False):
    """What `detect` takes beside the image; what is left out takes the model's own value."""

    model: str  # left out: the only one that is served
    version: str  # left out: the newest that is ready
    threshold: float | None  # operating score, 0 to 1
    outputs: Sequence[OutputKind]  # left out: everything that the model produces
    mask_format: MaskFormat  # left out: COCO_RLE
    classes: Sequence[str | int]  # names or ids; left out: all
    max_detections: int | None
    panoptic_threshold: float | None  # score that a thing needs to enter the panoptic map
    contract: str  # refuse to be answered under any other contract than the one with this fingerprint
    priority: Literal["LOW", "NORMAL", "HIGH"]  # what goes first where workers are scarce
    request_id: str  # for the server's log


def request(image: ImageLike, pixel_format: PixelFormat | None, ask: Ask) -> Outgoing:
    """The request. Raises `LocalError` for an image that cannot be sent."""
    declared, data = images.message(image, pixel_format)
    message = pb.DetectRequest(
        model_name=ask.get("model", ""),
        model_version=ask.get("version", ""),
        image=declared,
        options=options(ask),
        request_id=ask.get("request_id", ""),
    )
    return Outgoing(message, data)


def diagnosis(
    image: ImageLike | None, pixel_format: PixelFormat | None, stream_id: str, ask: Ask
) -> pb.DiagnoseRequest:
    """The request to diagnose an image, or else a stream's last empty frame. Raises `LocalError`."""
    message = pb.DiagnoseRequest(
        model_name=ask.get("model", ""),
        model_version=ask.get("version", ""),
        options=options(ask),
        stream_id=stream_id,
    )
    if image is not None:
        declared, data = images.message(image, pixel_format)
        message.image.CopyFrom(declared)
        content = getattr(message.image, message.image.WhichOneof("content") or "")
        content.data = bytes(data)
    return message


def options(ask: Ask) -> pb.DetectOptions:
    """What is asked about an image, or about every frame of a stream."""
    classes = ask.get("classes", ())
    return pb.DetectOptions(
        threshold=ask.get("threshold"),
        outputs=[answer_pb2.OutputKind.Value(f"OUTPUT_KIND_{kind.upper()}") for kind in ask.get("outputs", ())],
        mask_format=answer_pb2.MaskFormat.Value(f"MASK_FORMAT_{ask.get('mask_format', 'COCO_RLE')}"),
        class_names=[name for name in classes if isinstance(name, str)],
        class_ids=[number for number in classes if isinstance(number, int)],
        max_detections=ask.get("max_detections"),
        panoptic_threshold=ask.get("panoptic_threshold"),
        contract_fingerprint=ask.get("contract", ""),
        priority=pb.Priority.Value(f"PRIORITY_{ask.get('priority', 'NORMAL')}"),
    )

"""The options of a request, and the requests built from them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from vedette.v1 import answer_pb2
from vedette.v1 import detection_service_pb2 as pb

from vedette_client import arguments, images
from vedette_client.errors import LocalError
from vedette_client.images import Beside
from vedette_client.limits import Limits
from vedette_client.wire import Outgoing

OutputKind: TypeAlias = Literal["boxes", "rotated_boxes", "masks", "keypoints", "panoptic", "semantic"]
MaskFormat: TypeAlias = Literal["COCO_RLE", "POLYGONS", "PNG", "NONE"]
Priority: TypeAlias = Literal["LOW", "NORMAL", "HIGH"]


class Options(TypedDict, total=False):
    """Options for an image, or for the next frames of a stream; omitted ones take the model's own values."""

    threshold: float | None  # operating score, 0 to 1
    outputs: Sequence[OutputKind]  # omitted or empty: everything that the model produces
    mask_format: MaskFormat  # default: COCO_RLE
    classes: Sequence[str | int]  # strings are names, integers (also NumPy's) are ids; omitted or empty: all
    max_detections: int | None  # from 1
    panoptic_threshold: float | None  # minimum score of a thing in the panoptic map, 0 to 1
    contract: str  # refuse any contract other than the one with this fingerprint


class StreamAsk(Options, total=False):
    """Keywords of `stream` and `diagnose` besides the images."""

    model: str  # default: the only model served
    version: str  # default: the newest that is ready
    priority: Priority  # order of service when workers are scarce


class Ask(StreamAsk, total=False):
    """Keywords of `detect` besides the image."""

    request_id: str  # for the server's log


def request(image: object, beside: Beside, ask: Mapping[str, Any], known: Limits) -> Outgoing:
    """Build a request. Raises `LocalError` for an image that cannot be sent, or an invalid option."""
    model, version = target(ask)
    request_id = arguments.text(ask.get("request_id", ""), "request_id")
    message = pb.DetectRequest(model_name=model, model_version=version, options=options(ask), request_id=request_id)
    declared, data = images.message(image, beside, known)
    message.image.CopyFrom(declared)
    return Outgoing(message, data)


def diagnosis(
    image: object, beside: Beside, stream_id: object, ask: Mapping[str, Any], known: Limits
) -> pb.DiagnoseRequest:
    """Build a request to diagnose an image, or a stream's last empty frame. Raises `LocalError`."""
    model, version = target(ask)
    stream = arguments.text(stream_id, "stream_id")
    message = pb.DiagnoseRequest(model_name=model, model_version=version, options=options(ask), stream_id=stream)
    if image is None:
        images.check_beside(None, beside)
        return message
    if message.stream_id:
        msg = "image and stream_id were both given: give only one"
        raise LocalError(msg)
    declared, data = images.message(image, beside, known)
    message.image.CopyFrom(declared)
    content = getattr(message.image, message.image.WhichOneof("content") or "")
    content.data = bytes(data)
    return message


def about_model(name: object, version: object) -> pb.GetModelRequest:
    """Build a request to describe a model. Raises `LocalError`."""
    return pb.GetModelRequest(model_name=arguments.text(name, "name"), model_version=arguments.text(version, "version"))


def target(ask: Mapping[str, Any]) -> tuple[str, str]:
    """Return the requested model and version. Raises `LocalError`."""
    return arguments.text(ask.get("model", ""), "model"), arguments.text(ask.get("version", ""), "version")


def options(ask: Mapping[str, Any]) -> pb.DetectOptions:
    """Build the options for an image, or for every frame of a stream. Raises `LocalError`."""
    outputs = arguments.several(ask.get("outputs", ()), "outputs", "['masks']")
    kinds = [arguments.one_of(kind, "outputs", get_args(OutputKind)).upper() for kind in outputs]
    mask_format = arguments.one_of(ask.get("mask_format", "COCO_RLE"), "mask_format", get_args(MaskFormat))
    priority = arguments.one_of(ask.get("priority", "NORMAL"), "priority", get_args(Priority))
    names, numbers = _classes(ask.get("classes", ()))
    most = ask.get("max_detections")
    if most is not None:
        most = arguments.whole(most, "max_detections", 1, reason="MAX_DETECTIONS_INVALID")
    return pb.DetectOptions(
        threshold=_score(ask, "threshold"),
        outputs=[answer_pb2.OutputKind.Value(f"OUTPUT_KIND_{kind}") for kind in kinds],
        mask_format=answer_pb2.MaskFormat.Value(f"MASK_FORMAT_{mask_format}"),
        class_names=names,
        class_ids=numbers,
        max_detections=most,
        panoptic_threshold=_score(ask, "panoptic_threshold"),
        contract_fingerprint=arguments.text(ask.get("contract", ""), "contract"),
        priority=pb.Priority.Value(f"PRIORITY_{priority}"),
    )


def check_names(given: object) -> None:
    """Refuse options that cannot change within a stream. Raises `TypeError` and `LocalError`."""
    if not isinstance(given, Mapping):
        raise arguments.wrong("ask", given, "a dictionary, such as {'threshold': 0.5}")
    for name in map(str, given):
        if name in Options.__annotations__:
            continue
        if name in StreamAsk.__annotations__:
            msg = f"{name} cannot change within a stream: open another"
            raise LocalError(msg)
        raise arguments.unknown(name, Options.__annotations__, "Reconfigure()")


def _score(ask: Mapping[str, Any], name: str) -> float | None:
    given = ask.get(name)
    return None if given is None else arguments.number(given, name, 0, 1, "THRESHOLD_OUT_OF_RANGE")


def _classes(given: object) -> tuple[list[str], list[int]]:
    """Split classes into names and ids: any string is a name, and any integer is an id."""
    names, numbers = [], []
    for item in arguments.several(given, "classes", "['dog'] or [16]"):
        if isinstance(item, str):
            names.append(arguments.text(item, "classes"))
        else:
            numbers.append(arguments.whole(item, "classes", 0))
    return names, numbers

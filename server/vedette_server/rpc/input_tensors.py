"""The inputs of an inference request: tensors that become an image and options, or are refused if they do not fit."""

import math
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.image import (
    Buffer,
    ChannelOrder,
    EncodedImage,
    PixelFormat,
    RawImage,
    SentImage,
    TensorImage,
    TensorLayout,
    ValueRange,
)
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc import wire
from vedette_server.rpc.convert import decimal

Parameters: TypeAlias = Mapping[str, bool | int | float | str]

IMAGES = ("IMAGE", "ENCODED")
_RANKS = {"IMAGE": 3, "ENCODED": 1, "SCORE_THRESHOLD": 1, "CLASSES_FILTER": 1}
_DATATYPES = {
    "IMAGE": ("UINT8", "FP32"),
    "ENCODED": ("BYTES", "UINT8"),
    "SCORE_THRESHOLD": ("FP32",),
    "CLASSES_FILTER": ("BYTES", "INT32", "INT64"),
}
_NUMBERS = {"UINT8": "u1", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4"}
_CONTENTS = {
    "UINT8": "uint_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
# Planar formats have no shape of height, width and channels.
_CHANNELS = {"BGR8": 3, "RGB8": 3, "GRAY8": 1, "BGRA8": 4, "RGBA8": 4, "8UCN": None}
_ORDERS = {ChannelOrder.BGR: 3, ChannelOrder.RGB: 3, ChannelOrder.GRAY: 1, ChannelOrder.MODEL: None}
_NOT_SERVED = ("classification",)  # parameters of Triton's extensions for single tensors that this server lacks
# The one reserved parameter that Triton's clients send. Here every response is final, and so none is empty.
_EMPTY_FINAL = "triton_enable_empty_final_response"
_LENGTH = struct.Struct("<I")  # before each element of BYTES


@dataclass(frozen=True, kw_only=True)
class InputTensor:
    """One input, whose data has the bytes that its datatype and shape need."""

    datatype: str
    shape: tuple[int, ...]
    data: Buffer
    parameters: Parameters

    def numbers(self) -> list[int] | list[float]:
        """Return the elements of a small tensor of numbers."""
        found: list[int] | list[float] = np.frombuffer(self.data, _NUMBERS[self.datatype]).tolist()
        return found

    def elements(self) -> list[Buffer]:
        """Return the elements of a tensor of BYTES."""
        return list(elements(self.data))


def parameters(fields: Mapping[str, Any]) -> Parameters:
    """Return parameters with their values. Raises `Refused` (PARAMETER_INVALID) for those that Triton reserves."""
    for name, field in fields.items():
        if name == _EMPTY_FINAL and field.HasField("bool_param"):
            continue
        if name.startswith("triton_"):
            raise Refused(
                Reason.PARAMETER_INVALID, parameter=name, seen="reserved by Triton", expected="another name, or none"
            )
    chosen = {name: field.WhichOneof("parameter_choice") for name, field in fields.items()}
    return {name: getattr(fields[name], kind) for name, kind in chosen.items() if kind}


def check_tensor_parameters(fields: Mapping[str, Any]) -> Parameters:
    """Return the parameters of one tensor. Raises `Refused` (PARAMETER_INVALID) also for extensions not served."""
    for name in _NOT_SERVED:
        if name in fields:
            raise Refused(
                Reason.PARAMETER_INVALID,
                parameter=name,
                seen="of an extension that this server does not have",
                expected="the contents of inputs in the request itself, and outputs without parameters",
            )
    return parameters(fields)


def read(message: pb.ModelInferRequest, contents: Sequence[Buffer]) -> dict[str, InputTensor]:
    """Return the inputs by name. `contents` are the request's raw ones.

    Raises `Refused`: INPUT_TENSOR_INVALID, PARAMETER_INVALID, REQUEST_TOO_LARGE.
    """
    raw: Sequence[Buffer | None] = contents or [None] * len(message.inputs)
    if len(raw) != len(message.inputs):
        raise _unfit(
            seen=f"there are {len(message.inputs)} inputs and {len(raw)} raw_input_contents",
            expected="the contents of each input, in order",
        )
    tensors: dict[str, InputTensor] = {}
    beside = 0
    for given, data in zip(message.inputs, raw, strict=True):
        _check(given, tensors)
        beside += len(data or b"") if given.name not in IMAGES else 0
        if beside > wire.MOST_BESIDE_IMAGE:
            raise wire.too_large(beside)
        tensors[given.name] = _tensor(given, data)
    return tensors


def check(inputs: Iterable[Any]) -> None:
    """Check everything about inputs but their data. Raises `Refused`: INPUT_TENSOR_INVALID."""
    seen: set[str] = set()
    for given in inputs:
        _check(given, seen)
        seen.add(given.name)


def _check(given: Any, seen: Collection[str]) -> None:  # noqa: ANN401  generated code without types
    """Check everything about an input but its data."""
    if given.name not in _RANKS:
        raise _unfit(seen=f"{given.name!r} is none of the inputs", expected=f"only {', '.join(_RANKS)}")
    if given.name in seen:
        raise _unfit(seen=f"{given.name} was sent twice", expected="each input once")
    if given.datatype not in _DATATYPES[given.name]:
        expected = f"{given.name} as {' or '.join(_DATATYPES[given.name])}"
        raise _unfit(seen=f"{given.name} is {given.datatype!r}", expected=expected)
    if len(given.shape) != _RANKS[given.name]:
        axes = "height, width and channels, and no batch" if given.name == "IMAGE" else "one dimension"
        raise _unfit(seen=f"{given.name} has {len(given.shape)} dimensions", expected=f"{given.name} with {axes}")
    single = given.name == "SCORE_THRESHOLD" or (given.name == "ENCODED" and given.datatype == "BYTES")
    if single and list(given.shape) != [1]:
        raise _unfit(
            seen=f"{given.name} has the shape {list(given.shape)}", expected=f"{given.name} with the shape [1]"
        )


def _tensor(given: Any, raw: Buffer | None) -> InputTensor:  # noqa: ANN401  the same
    data = typed(given) if raw is None else raw
    if raw is not None and given.HasField("contents"):
        raise _unfit(
            seen=f"{given.name} has contents beside raw_input_contents", expected="all inputs in one of the two ways"
        )
    wanted = math.prod(given.shape)
    if given.datatype == "BYTES":
        if sum(1 for _ in elements(data, most=wanted)) != wanted:
            raise _unfit(
                seen=f"{given.name} does not hold the {wanted} elements of BYTES that its shape says",
                expected="as many elements as the shape says, each after its length as 4 bytes, little-endian",
            )
    elif len(data) != (size := wanted * np.dtype(_NUMBERS[given.datatype]).itemsize):
        raise _unfit(
            seen=f"{given.name} has {len(data)} bytes; {given.datatype} of the shape {list(given.shape)} has {size}",
            expected="all elements of the shape, packed",
        )
    return InputTensor(
        datatype=given.datatype,
        shape=tuple(given.shape),
        data=data,
        parameters=check_tensor_parameters(given.parameters),
    )


def typed(given: Any) -> bytes:  # noqa: ANN401  the same
    """Return the bytes of an input that has its elements in `contents`."""
    values = getattr(given.contents, _CONTENTS[given.datatype])
    if given.datatype == "BYTES":
        return packed(values)
    if given.datatype == "UINT8" and max(values, default=0) > 255:
        raise _unfit(seen=f"{given.name} has elements above 255", expected="UINT8 from 0 to 255")
    return np.array(values, _NUMBERS[given.datatype]).tobytes()


def packed(elements: Sequence[bytes]) -> bytes:
    """Return elements of BYTES as raw contents hold them: each after its length."""
    return b"".join(_LENGTH.pack(len(one)) + one for one in elements)


def elements(data: Buffer, most: int | None = None) -> Iterator[Buffer]:
    """Yield the elements of BYTES, and no more than one beyond `most`: a file could hold millions of empty ones."""
    at = count = 0
    while at < len(data) and (most is None or count <= most):
        count += 1
        start = at + _LENGTH.size
        length = _LENGTH.unpack_from(data, at)[0] if start <= len(data) else 0
        at = start + length
        if at > len(data):
            raise _unfit(seen="an element of BYTES ends before its length", expected="each element after its length")
        yield data[start:at]


def _unfit(*, seen: str, expected: str) -> Refused:
    return Refused(Reason.INPUT_TENSOR_INVALID, seen=seen, expected=expected)


def image(tensors: Mapping[str, InputTensor], of_request: Parameters) -> SentImage:
    """Return the image with its bytes, never copied.

    Raises `Refused`: IMAGE_MISSING, INPUT_TENSOR_INVALID, PIXEL_FORMAT_MISSING, TENSOR_UNDECLARED, PARAMETER_INVALID.
    """
    sent = [name for name in IMAGES if name in tensors]
    if not sent:
        raise Refused(Reason.IMAGE_MISSING)
    if len(sent) > 1:
        raise _unfit(seen="IMAGE and ENCODED were both sent", expected="one of the two")
    tensor = tensors[sent[0]]
    declared = {**of_request, **tensor.parameters}
    if sent == ["ENCODED"]:
        data = tensor.elements()[0] if tensor.datatype == "BYTES" else tensor.data
        return SentImage(EncodedImage(drop_alpha=_drop_alpha(declared)), data)
    spec = _raw(tensor, declared) if tensor.datatype == "UINT8" else _floats(tensor, declared)
    return SentImage(spec, tensor.data)


def _raw(tensor: InputTensor, declared: Parameters) -> RawImage:
    pixel_format = _named(PixelFormat, declared, "pixel_format")
    if pixel_format is None:
        raise Refused(Reason.PIXEL_FORMAT_MISSING, seen=declared.get("pixel_format", "none"))
    if pixel_format not in _CHANNELS:
        raise Refused(
            Reason.PARAMETER_INVALID,
            parameter="pixel_format",
            seen=f"{pixel_format}, which has no shape of height, width and channels",
            expected=f"one of {', '.join(_CHANNELS)}, or the image by DetectionService",
        )
    height, width, channels = tensor.shape
    _check_channels(channels, pixel_format, _CHANNELS[pixel_format])
    return RawImage(pixel_format, height, width, drop_alpha=_drop_alpha(declared))


def _floats(tensor: InputTensor, declared: Parameters) -> TensorImage:
    order = _named(ChannelOrder, declared, "channel_order")
    layout = _named(TensorLayout, declared, "layout")
    value_range = _named(ValueRange, declared, "value_range")
    if order is None:
        raise _undeclared("channel_order", declared)
    if layout is None:
        raise _undeclared("layout", declared)
    if value_range is None:
        raise _undeclared("value_range", declared)
    if layout is TensorLayout.HWC:
        height, width, channels = tensor.shape
    else:
        channels, height, width = tensor.shape
    _check_channels(channels, f"{order} {layout}", _ORDERS[order])
    return TensorImage(order, layout, value_range, height, width)


def _undeclared(field: str, declared: Parameters) -> Refused:
    return Refused(Reason.TENSOR_UNDECLARED, field=field, seen=declared.get(field, "none"))


def _check_channels(channels: int, declared: str, wanted: int | None) -> None:
    if wanted not in (None, channels):
        raise _unfit(
            seen=f"IMAGE has {channels} channels and was declared as {declared}",
            expected=f"{wanted} channels, or their declaration",
        )


Named = TypeVar("Named", bound=StrEnum)
_PREFIXES = {"pixel_format": "PIXEL_FORMAT_", "channel_order": "CHANNEL_ORDER_", "layout": "TENSOR_LAYOUT_"}


def _named(kind: type[Named], declared: Parameters, field: str) -> Named | None:
    """Return the declared value, by its own name or its name in the protos, which refusals use; None: unknown."""
    text = str(declared.get(field, "")).removeprefix(_PREFIXES.get(field, ""))
    if text.startswith("VALUE_RANGE_"):
        text = text.removeprefix("VALUE_RANGE_").replace("_", "-")
    return next((member for member in kind if member == text), None)


def _drop_alpha(declared: Parameters) -> bool:
    given = declared.get("drop_alpha", False)
    if not isinstance(given, bool):
        raise Refused(Reason.PARAMETER_INVALID, parameter="drop_alpha", seen=repr(given), expected="true or false")
    return given


def threshold(tensors: Mapping[str, InputTensor]) -> float | None:
    """Return the threshold of the request; None: the model's own."""
    tensor = tensors.get("SCORE_THRESHOLD")
    return None if tensor is None else decimal(tensor.numbers()[0])


def classes(tensors: Mapping[str, InputTensor]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names and the ids of the classes wanted; both empty: all. Raises `Refused`: INPUT_TENSOR_INVALID."""
    tensor = tensors.get("CLASSES_FILTER")
    if tensor is None:
        return (), ()
    if tensor.datatype != "BYTES":
        return (), tuple(int(one) for one in dict.fromkeys(tensor.numbers()))
    try:
        names = [str(one, "utf-8") for one in tensor.elements()]
    except UnicodeDecodeError:
        raise _unfit(seen="CLASSES_FILTER holds a name that is not UTF-8", expected="names in UTF-8") from None
    return tuple(dict.fromkeys(names)), ()

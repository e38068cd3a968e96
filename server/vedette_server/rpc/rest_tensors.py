"""Inference over HTTP: bodies of JSON and binary data as requests of the gRPC service, and its responses as bodies.

JSON holds the tensors' `data`. With the header `Inference-Header-Content-Length`, JSON ends there; the data of inputs
with `binary_data_size` follow, in order: https://github.com/kserve/open-inference-protocol, and Triton's extension
"binary tensor data". Files do not fit in JSON text, so they are in base64 there, with the parameter `content_type`.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.image import Buffer
from vedette_server.rpc import input_tensors, output_tensors, rest_json, shared_tensors, wire
from vedette_server.rpc.input_tensors import packed
from vedette_server.rpc.wire import Gathered

LENGTH = "Inference-Header-Content-Length"
_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_CONTENT_TYPE, _BASE64 = "content_type", "base64"
_WHOLE = {name: np.iinfo(kind) for name, kind in (("UINT8", np.uint8), ("INT32", np.int32), ("INT64", np.int64))}

Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Parameters: TypeAlias = dict[str, bool | Whole | float | str]


class _Input(msgspec.Struct):
    name: str
    shape: list[Whole]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: Parameters = {}


class _Request(msgspec.Struct):
    id: str = ""
    parameters: Parameters = {}
    inputs: list[_Input] = []
    outputs: list[_Output] = []


@dataclass(frozen=True)
class RestRequest:
    """A request of the gRPC service, and which outputs are wanted as binary data."""

    request: Gathered[pb.ModelInferRequest]
    all_binary: bool
    binary: Mapping[str, bool]  # by output, where it says so itself

    def is_binary(self, output: str) -> bool:
        """Return whether an output is sent as binary data."""
        return self.binary.get(output, self.all_binary)


def read(body: memoryview, json_bytes: int, model: str, version: str) -> RestRequest:
    """Read a body that begins with so many bytes of JSON. Raises `Refused`: BODY_INVALID, REQUEST_TOO_LARGE."""
    if json_bytes > wire.MOST_BESIDE_IMAGE:
        raise wire.too_large(len(body))
    try:
        given = msgspec.convert(rest_json.read(body[:json_bytes]), _Request)
        message = pb.ModelInferRequest(model_name=model, model_version=version, id=given.id)
        _set(message.parameters, given.parameters, but=_ALL_BINARY)
        for tensor in given.inputs:
            added = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            _set(added.parameters, tensor.parameters, but=_SIZE)
        for output in given.outputs:
            _set(message.outputs.add(name=output.name).parameters, output.parameters, but=_BINARY)
        contents = _contents(given.inputs, body[json_bytes:])
    except msgspec.ValidationError as error:
        raise rest_json.unfit(seen=str(error)) from None  # its text is about the JSON: a type and a place
    except UnicodeEncodeError:
        raise rest_json.unfit(seen="it has a text with half a surrogate pair, which is no Unicode") from None
    binary = {one.name: _switch(one.parameters, _BINARY) for one in given.outputs if _BINARY in one.parameters}
    return RestRequest(Gathered(message, contents), _switch(given.parameters, _ALL_BINARY), binary)


def _set(fields: Any, given: Parameters, but: str) -> None:  # noqa: ANN401  generated code without types
    """Set the parameters of a message; `but` is one of the body alone."""
    for name, value in given.items():
        if name != but:
            setattr(fields[name], rest_json.CHOICES[type(value)], value)


def _switch(parameters: Parameters, name: str) -> bool:
    given = parameters.get(name, False)
    if not isinstance(given, bool):
        raise rest_json.unfit(seen=f"{name} is {given!r}", expected="true or false")
    return given


def _contents(inputs: Iterable[_Input], binary: memoryview) -> list[Buffer]:
    """Return the raw contents of each input, but of those in shared memory."""
    contents: list[Buffer] = []
    at = 0
    for one in inputs:
        if shared_tensors.REGION in one.parameters and one.data is None and _SIZE not in one.parameters:
            continue
        size = one.parameters.get(_SIZE)
        if (size is None) == (one.data is None):
            many = "both" if one.data is not None else "neither"
            raise rest_json.unfit(
                seen=f"{one.name} has {many} of data and {_SIZE}", expected="each input's data in one of the two ways"
            )
        if one.data is not None:
            contents.append(_packed(one, one.data))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - at:
            left = f"{size!r} where {len(binary) - at} bytes of binary data are left"
            raise rest_json.unfit(seen=f"{one.name} has the {_SIZE} {left}", expected="the number of its bytes")
        contents.append(binary[at : at + size])
        at += size
    if at != len(binary):
        raise rest_json.unfit(
            seen=f"{len(binary) - at} of its {len(binary)} bytes of binary data belong to no input",
            expected=f"the {_SIZE} of each input",
        )
    return contents


def _packed(tensor: _Input, data: list[Any]) -> bytes:
    """Return the elements of an input as raw contents; none for a datatype that `input_tensors` refuses anyway."""
    values = _flat(tensor, data)
    if tensor.datatype == "BYTES":
        return packed(_texts(tensor, values))
    if tensor.datatype in _WHOLE:
        limits = _WHOLE[tensor.datatype]
        if not all(type(one) is int and limits.min <= one <= limits.max for one in values):
            raise _elements(tensor, f"whole numbers from {limits.min} to {limits.max}")
        return np.array(values, limits.dtype.newbyteorder("<")).tobytes()
    if tensor.datatype != "FP32":
        return b""
    if not all(type(one) in (int, float) for one in values):
        raise _elements(tensor, "numbers")
    try:
        with np.errstate(over="ignore"):  # the contract refuses infinite ones
            return np.array(values, np.float64).astype("<f4").tobytes()
    except OverflowError:
        raise _elements(tensor, "numbers of 32 bits") from None


def _flat(tensor: _Input, data: list[Any]) -> Sequence[Any]:
    """Return the elements of data, which is flat or nested as the shape says."""
    if not any(isinstance(one, list) for one in data):
        return data
    level: list[Any] = [data]
    for size in tensor.shape:
        if not all(isinstance(one, list) and len(one) == size for one in level):
            raise rest_json.unfit(
                seen=f"the data of {tensor.name} are nested otherwise than its shape {tensor.shape}",
                expected="one flat list of elements, or lists in lists as the shape says",
            )
        level = list(chain.from_iterable(level))
    return level


def _texts(tensor: _Input, values: Sequence[Any]) -> list[bytes]:
    if not all(isinstance(one, str) for one in values):
        raise _elements(tensor, "texts")
    if tensor.parameters.get(_CONTENT_TYPE) != _BASE64:
        return [one.encode() for one in values]
    try:
        return [base64.b64decode(one, validate=True) for one in values]
    except (binascii.Error, ValueError):
        raise _elements(tensor, "base64 as its content_type says") from None


def _elements(tensor: _Input, expected: str) -> Exception:
    return rest_json.unfit(
        seen=f"the data of {tensor.name} are not {expected}", expected=f"{expected}, as {tensor.datatype}"
    )


def _values(fields: Any) -> dict[str, Any]:  # noqa: ANN401  generated code without types
    return {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in fields.items()}


def written(response: pb.ModelInferResponse, asked: RestRequest) -> tuple[bytes, int | None]:
    """Return the body of a response, and the bytes of JSON before its binary data; None if it has none."""
    binary: list[bytes] = []
    outputs = []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        one = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if shared_tensors.REGION in output.parameters:
            one["parameters"] = _values(output.parameters)
        elif asked.is_binary(output.name):
            binary.append(raw)
            one["parameters"] = {_SIZE: len(raw)}
        elif output.name in output_tensors.FILES:
            one["parameters"] = {_CONTENT_TYPE: _BASE64}
            one["data"] = [base64.b64encode(file).decode() for file in input_tensors.elements(raw)]
        elif output.datatype == "BYTES":
            one["data"] = [str(text, "utf-8") for text in input_tensors.elements(raw)]
        else:
            one["data"] = np.frombuffer(raw, output_tensors.NUMBERS[output.datatype]).tolist()
        outputs.append(one)
    head = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        **({"id": response.id} if response.id else {}),
        "parameters": _values(response.parameters),
        "outputs": outputs,
    }
    text = rest_json.written(head)
    return b"".join([text, *binary]), len(text) if binary else None

"""Tensors of Triton's Python backend, from and to the messages of the Open Inference Protocol.

Numbers pass by DLPack alone. A backend built for NumPy 1 hands over the arrays of NumPy 2 as garbage, without an error.
Texts (BYTES) pass only as such arrays, so `check` refuses a configuration with texts where the two do not fit.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.image import Buffer
from vedette_server.rpc.input_tensors import InputTensor, packed
from vedette_server.rpc.wire import Gathered

_TYPES = {"TYPE_STRING": "BYTES"}  # other types are TYPE_ and the datatype's name
_NUMBERS = {"UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
_PARAMETERS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


class TensorsGarbledError(Exception):
    """The backend hands over other values than it was given; the message says what to do."""


class Tensors:
    """Converts the tensors of one model."""

    def __init__(self, backend: Any, config: Mapping[str, Any]) -> None:  # noqa: ANN401  a module without types
        """`config` is the model's configuration as the backend gives it."""
        self._backend = backend
        declared = [*config["input"], *config["output"]]
        self._datatypes = {one["name"]: _datatype(one["data_type"]) for one in declared}

    def takes_texts(self, name: str) -> bool:
        """True if a tensor has texts, BYTES."""
        return self._datatypes[name] == "BYTES"

    def read(self, request: Any) -> Gathered[Any]:  # noqa: ANN401  the same
        """Return a request as a message, with the contents of its inputs."""
        message = pb.ModelInferRequest(id=request.request_id())
        given = json.loads(request.parameters() or "{}")
        if sequence := request.correlation_id():  # Triton takes it out of the parameters
            given["sequence_id"] = sequence
        for name, value in given.items():
            setattr(message.parameters[name], _PARAMETERS[type(value)], value)
        for name in request.requested_output_names():
            message.outputs.add(name=name)
        contents = []
        for tensor in request.inputs():
            message.inputs.add(name=tensor.name(), datatype=self._datatypes[tensor.name()], shape=tensor.shape())
            contents.append(self.content(tensor))
        return Gathered(message, contents)

    def content(self, tensor: Any) -> Buffer:  # noqa: ANN401  the same
        """Return a tensor's bytes as raw contents of the protocol hold them."""
        if self.takes_texts(tensor.name()):
            return packed(tensor.as_numpy().ravel().tolist())
        numbers: np.ndarray[Any, Any] = np.from_dlpack(tensor)
        return numbers.reshape(-1).data.cast("B") if numbers.size else b""

    def write(self, response: pb.ModelInferResponse) -> list[Any]:
        """Return the outputs of a response as tensors; texts where the model's configuration has numbers, packed."""
        given = zip(response.outputs, response.raw_output_contents, strict=True)
        return [self.tensor(one.name, one.datatype, one.shape, raw) for one, raw in given]

    def tensor(self, name: str, datatype: str, shape: Iterable[int], raw: bytes) -> Any:  # noqa: ANN401  the same
        """Make a tensor of raw contents."""
        if self.takes_texts(name):
            texts = InputTensor(datatype="BYTES", shape=tuple(shape), data=raw, parameters={}).elements()
            return self._backend.Tensor(name, np.array(texts, np.object_))
        if datatype == "BYTES":
            datatype, shape = "UINT8", [len(raw)]
        numbers = np.frombuffer(bytearray(raw), _NUMBERS[datatype]).reshape(*shape)
        return self._from_numbers(name, numbers)

    def _from_numbers(self, name: str, numbers: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401  the same
        # Not NumPy's own DLPack: the backend renames its capsules, about which NumPy complains each time.
        return self._backend.Tensor.from_dlpack(name, torch.from_numpy(numbers))

    def check(self) -> None:
        """Raise `TensorsGarbledError` if the backend would hand over other values than it is given."""
        for numbers in (np.arange(1, 7, dtype=kind).reshape(2, 3) for kind in _NUMBERS.values()):
            sent = self._from_numbers("KNOWN", numbers)
            if not np.array_equal(np.from_dlpack(sent), numbers):
                msg = f"this Python backend garbles tensors of {numbers.dtype} even by DLPack"
                raise TensorsGarbledError(msg)
            if "BYTES" in self._datatypes.values() and not np.array_equal(sent.as_numpy(), numbers):
                msg = (
                    f"this Python backend garbles the arrays of NumPy {np.__version__}, and with them every text: "
                    "export the model again with --env naming the environment that it runs in"
                )
                raise TensorsGarbledError(msg)


def _datatype(kind: str) -> str:
    return _TYPES.get(kind, kind.removeprefix("TYPE_"))

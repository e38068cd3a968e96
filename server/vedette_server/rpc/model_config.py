"""Models in the words of the Open Inference Protocol: metadata, and Triton's configuration."""

from collections.abc import Iterator
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.contract import Input, InputContract
from vedette_server.repository.repository import ModelVersion
from vedette_server.rpc import output_tensors

PLATFORM = "detectron2"
_NEVER_INTERLEAVED = (Input.ENCODED, Input.NV12, Input.I420, Input.TENSOR)
_TYPES = {"BYTES": "TYPE_STRING"}  # other datatypes are TYPE_ and their name


@dataclass(frozen=True)
class Described:
    """A tensor as both messages describe it; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


def inputs(contract: InputContract) -> Iterator[Described]:
    """Yield the inputs of a model: the image in one of two ways, and options, each of which may be left out."""
    interleaved = any(kind not in _NEVER_INTERLEAVED for kind in contract.inputs)
    if interleaved or Input.TENSOR in contract.inputs:
        yield Described("IMAGE", "UINT8" if interleaved else "FP32", [-1, -1, -1])
    if Input.ENCODED in contract.inputs:
        yield Described("ENCODED", "BYTES", [1])
    yield Described("SCORE_THRESHOLD", "FP32", [1])
    yield Described("CLASSES_FILTER", "BYTES", [-1])


def outputs(contract: InputContract) -> Iterator[Described]:
    """Yield the outputs of a model."""
    for name in output_tensors.produced(contract):
        yield Described(name, output_tensors.TENSORS[name].datatype, output_tensors.dimensions(name, contract))


def metadata(model: ModelVersion, versions: list[str]) -> pb.ModelMetadataResponse:
    """Return a version's metadata; `versions` are those served of its model."""
    given = pb.ModelMetadataResponse(name=model.name, versions=versions, platform=PLATFORM)
    for one in inputs(model.contract):
        given.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
    for one in outputs(model.contract):
        given.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
    return given


def config(model: ModelVersion) -> pb.ModelConfigResponse:
    """Return a version's configuration.

    Its `max_batch_size` is 0: otherwise clients would take the number of detections for a batch.
    """
    given = config_pb.ModelConfig(name=model.name, platform=PLATFORM, backend=PLATFORM, max_batch_size=0)
    for one in inputs(model.contract):
        given.input.add(name=one.name, data_type=_type(one.datatype), dims=one.shape, optional=True)
    for one in outputs(model.contract):
        given.output.add(name=one.name, data_type=_type(one.datatype), dims=one.shape)
    given.parameters["contract_fingerprint"].string_value = model.contract.fingerprint
    return pb.ModelConfigResponse(config=given)


def _type(datatype: str) -> int:
    number: int = config_pb.DataType.Value(_TYPES.get(datatype, f"TYPE_{datatype}"))
    return number

"""The outputs of an inference response: the tensors that an outcome becomes, always in raw contents."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from vedette_server.contract.contract import InputContract, Output
from vedette_server.contract.options import SWITCHES
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import Outcome
from vedette_server.rpc.input_tensors import packed

Content: TypeAlias = "np.ndarray[Any, Any] | Sequence[bytes]"  # numbers in the output's shape, or elements of BYTES


@dataclass(frozen=True)
class OutputTensor:
    """One output of the protocol: datatype, the model's output that it shows (None: every model has it), content."""

    datatype: str
    of: Output | None
    content: Callable[[Outcome], Content]


def _class_names(outcome: Outcome) -> Content:
    contract = outcome.model.contract
    return [contract.class_name(one).encode() for one in outcome.answer.detections.class_ids.tolist()]


def _masks(outcome: Outcome) -> Content:
    given = outcome.answer
    masks = given.detections.masks or ()
    return [_json({"size": [given.height, given.width], "counts": (one.counts or b"").decode()}) for one in masks]


def _box_masks(outcome: Outcome) -> Content:
    found = outcome.answer.detections.box_masks
    return np.zeros((0, 28, 28)) if found is None else found


def _keypoints(outcome: Outcome) -> Content:
    found = outcome.answer.detections.keypoints
    return np.zeros((0, len(outcome.model.contract.keypoint_names), 3)) if found is None else found


def _rotated(outcome: Outcome) -> Content:
    found = outcome.answer.detections.rotated
    return np.zeros((0, 5)) if found is None else found


def _panoptic(outcome: Outcome) -> Content:
    found = outcome.answer.panoptic
    return [found.segment_map_png if found else b""]


def _segments(outcome: Outcome) -> Content:
    found, contract = outcome.answer.panoptic, outcome.model.contract
    segments = [
        {
            **dataclasses.asdict(one),
            "class_name": contract.class_name(one.class_id) if one.is_thing else contract.stuff_name(one.class_id),
        }
        for one in (found.segments if found else ())
    ]
    return [_json(segments)]


def _empty_reason(outcome: Outcome) -> Content:
    return [outcome.findings[0].code.encode() if outcome.answer.empty else b""]


def _findings(outcome: Outcome) -> Content:
    return [_json([dataclasses.asdict(finding) for finding in outcome.findings])]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


TENSORS = {
    "BOXES": OutputTensor("FP32", Output.BOXES, lambda outcome: outcome.answer.detections.boxes),
    "SCORES": OutputTensor("FP32", Output.BOXES, lambda outcome: outcome.answer.detections.scores),
    "CLASSES": OutputTensor("INT64", Output.BOXES, lambda outcome: outcome.answer.detections.class_ids),
    "CLASS_NAMES": OutputTensor("BYTES", Output.BOXES, _class_names),
    "ROTATED_BOXES": OutputTensor("FP32", Output.ROTATED_BOXES, _rotated),
    "MASKS_RLE": OutputTensor("BYTES", Output.MASKS, _masks),
    "MASKS_28": OutputTensor("FP32", Output.MASKS, _box_masks),
    "KEYPOINTS": OutputTensor("FP32", Output.KEYPOINTS, _keypoints),
    "PANOPTIC": OutputTensor("BYTES", Output.PANOPTIC, _panoptic),
    "SEGMENTS": OutputTensor("BYTES", Output.PANOPTIC, _segments),
    "SEMANTIC": OutputTensor("BYTES", Output.SEMANTIC, lambda outcome: [outcome.answer.class_map_png or b""]),
    "EMPTY_REASON": OutputTensor("BYTES", None, _empty_reason),
    "FINDINGS": OutputTensor("BYTES", None, _findings),
}
NUMBERS = {"FP32": "<f4", "INT64": "<i8"}
FILES = ("PANOPTIC", "SEMANTIC")  # outputs whose elements are not text


def produced(contract: InputContract) -> list[str]:
    """Return the names of a model's outputs, in their order."""
    own = [name for name, tensor in TENSORS.items() if tensor.of is None or tensor.of in contract.outputs]
    return [name for name in own if name != "MASKS_28" or contract.box_masks]


def dimensions(name: str, contract: InputContract) -> list[int]:
    """Return an output's shape; -1 is any number of detections."""
    match name:
        case "BOXES":
            return [-1, 4]
        case "ROTATED_BOXES":
            return [-1, 5]
        case "MASKS_28":
            return [-1, 28, 28]
        case "KEYPOINTS":
            return [-1, len(contract.keypoint_names) or -1, 3]
        case "SCORES" | "CLASSES" | "CLASS_NAMES" | "MASKS_RLE":
            return [-1]
        case _:
            return [1]


def wanted(asked: Iterable[str], contract: InputContract) -> list[str]:
    """Return the names of the outputs to send: those requested, or all. Raises `Refused`: OUTPUT_NOT_PRODUCED."""
    names, own = list(dict.fromkeys(asked)), produced(contract)
    for name in names:
        if name not in own:
            of = TENSORS[name].of if name in TENSORS else None
            key = SWITCHES[of] if of else "its family"
            raise Refused(Reason.OUTPUT_NOT_PRODUCED, output=name, produced=", ".join(own), key=key)
    return names or own


def kinds(names: Iterable[str], contract: InputContract) -> tuple[Output, ...]:
    """Return what the model must compute for these outputs: boxes at least, as they tell if the answer is empty."""
    needed = {TENSORS[name].of for name in names} | {Output.BOXES}
    return tuple(output for output in contract.outputs if output in needed)


def response(outcome: Outcome, names: Iterable[str], request_id: str) -> pb.ModelInferResponse:
    """Return the response that holds these outputs."""
    given = pb.ModelInferResponse(
        model_name=outcome.model.name, model_version=str(outcome.model.version), id=request_id
    )
    given.parameters["threshold"].double_param = outcome.answer.threshold
    given.parameters["contract_fingerprint"].string_param = outcome.model.contract.fingerprint
    for name in names:
        tensor = TENSORS[name]
        content = tensor.content(outcome)
        if isinstance(content, np.ndarray):
            shape, raw = content.shape, content.astype(NUMBERS[tensor.datatype]).tobytes()
        else:
            shape, raw = (len(content),), packed(content)
        given.outputs.add(name=name, datatype=tensor.datatype, shape=shape)
        given.raw_output_contents.append(raw)
    return given

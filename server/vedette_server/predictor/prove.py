"""A test picture that a model must answer before it serves, so that faulty output is refused by name."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from detectron2.data.transforms import ResizeShortestEdge
from torch import Tensor
from torch.nn.functional import interpolate

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract, Output, ResizeRule
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import Options, defaults
from vedette_server.predictor.encode import rotated
from vedette_server.predictor.returned import UnservableError

SIZE = 240, 352  # height and width of the picture: neither square nor its size after resizing
_FEW = 2  # objects: enough to run the heads behind the boxes
_PATCHES = 6, 9
_BELOW = 0.999  # of the best score, if nothing is above the floor


def picture(resize: ResizeRule, channels: int) -> Tensor:
    """Return a picture of soft patches of all colours as model input: CHW, float32, 0 to 255. Always the same."""
    random = torch.rand((1, channels, *_PATCHES), generator=torch.Generator().manual_seed(0)) * 255
    height, width = SIZE
    if resize.shortest_edge:
        height, width = ResizeShortestEdge.get_output_shape(*SIZE, resize.shortest_edge, resize.longest_edge)
    return interpolate(random, (height, width), mode="bicubic").clamp(0, 255)[0].round()


def prove(infer: Callable[[Options], tuple[Mapping[str, Any], Answer]], contract: InputContract) -> None:
    """Check a model's output for the picture: `infer` returns the raw output, and the answer made from it.

    If nothing is above the floor, the best candidate is let through, so that the heads behind the boxes run as well.
    Raises `LoadRefusedError`: INFERENCE_FAILS, OUTPUT_UNSERVABLE.
    """
    try:
        options = msgspec.structs.replace(defaults(contract), threshold=contract.floor, max_detections=_FEW)
        output, answer = infer(options)
        best = answer.evidence.best_score
        if not len(answer.detections) and best:
            output, answer = infer(msgspec.structs.replace(options, threshold=best * _BELOW))
        _check(output, answer, contract)
    except UnservableError as error:
        raise LoadRefusedError(Check.OUTPUT_UNSERVABLE, str(error)) from error
    except Exception as error:  # a model may raise anything
        if Check.VALUES_NOT_FINITE in contract.waivers:
            return  # Detectron2 fails on values that the operator has waived
        raise failure(error) from error


def failure(error: Exception, name: str = "") -> LoadRefusedError:
    """Return the refusal for an exception that a model raised on a picture, optionally named."""
    reason = " ".join(str(error).partition("\n")[0].split())
    of = f"of {name}, " if name else ""
    return LoadRefusedError(Check.INFERENCE_FAILS, f"{of}{type(error).__name__}: {reason}")


def _check(output: Mapping[str, Any], answer: Answer, contract: InputContract) -> None:
    """Compare the output to the contract. Raises `UnservableError`."""
    found, produced = answer.detections, contract.outputs
    objects = output["instances"]
    if len(found) and rotated(objects) != (Output.ROTATED_BOXES in produced):
        _wrong(f"its boxes are {'' if rotated(objects) else 'not '}rotated", contract)
    if len(found) and Output.MASKS in produced and found.masks is None:
        _wrong(f"its instances have no pred_masks, only {', '.join(objects.get_fields())}", contract)
    if len(found) and Output.KEYPOINTS in produced:
        points = 0 if found.keypoints is None else found.keypoints.shape[1]
        if points != len(contract.keypoint_names):
            _wrong(f"its instances have {points} keypoints", contract)
    _check_ids("objects", found.class_ids.tolist(), len(contract.class_names))
    if Output.SEMANTIC in produced:
        scores = output.get("sem_seg")
        shape, wanted = (None if scores is None else tuple(scores.shape)), (len(contract.stuff_class_names), *SIZE)
        if shape != wanted:
            _wrong(f"its sem_seg has the shape {shape}, not {wanted}", contract)
    if Output.PANOPTIC in produced:
        if answer.panoptic is None or tuple(output["panoptic_seg"][0].shape) != SIZE:
            _wrong("its panoptic_seg is not of the image's size", contract)
        segments = answer.panoptic.segments if answer.panoptic else ()
        things, stuff = ([one.class_id for one in segments if one.is_thing is kind] for kind in (True, False))
        _check_ids("things", things, len(contract.class_names))
        _check_ids("stuff", stuff, len(contract.stuff_class_names))


def _check_ids(of: str, ids: list[int], names: int) -> None:
    if ids and not 0 <= min(ids) <= max(ids) < names:
        msg = f"it returns {of} of class {max(ids) if max(ids) >= names else min(ids)}, but has {names} names"
        raise UnservableError(msg)


def _wrong(seen: str, contract: InputContract) -> None:
    msg = f"{seen}, but {', '.join(contract.outputs)} are declared"
    raise UnservableError(msg)

"""What a request asks about an image, and what that means under a contract."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from vedette_server.contract.contract import InputContract, Output
from vedette_server.contract.mistakes import Mistake
from vedette_server.contract.refusal import Reason, Refused


class MaskFormat(StrEnum):
    """How masks are encoded."""

    COCO_RLE = "COCO_RLE"
    POLYGONS = "POLYGONS"
    PNG = "PNG"
    NONE = "NONE"  # the mask head does not even run


@dataclass(frozen=True)
class Asked:
    """What a request asks; what it leaves open takes the model's own value."""

    threshold: float | None = None
    outputs: tuple[Output, ...] = ()  # empty: everything that the model produces
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    class_names: tuple[str, ...] = ()  # with class_ids; both empty: all
    class_ids: tuple[int, ...] = ()
    max_detections: int | None = None
    panoptic_threshold: float | None = None
    contract_fingerprint: str = ""  # empty: whatever is served


class Options(msgspec.Struct, frozen=True):
    """What a worker does about an image: nothing is left open."""

    threshold: float
    outputs: tuple[Output, ...]
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    class_ids: tuple[int, ...] | None = None  # None: all
    max_detections: int | None = None  # None: any number
    panoptic_threshold: float | None = None  # None: not a panoptic model
    undo: Mistake | None = None  # a mistake to undo in the image first; None: it is taken for what it is declared to be
    thumbnail: bool = False  # whether a small picture of what the model was shown and found goes with the answer

    @property
    def masks(self) -> bool:
        """Whether masks are to be given."""
        return Output.MASKS in self.outputs and self.mask_format is not MaskFormat.NONE


def defaults(contract: InputContract) -> Options:
    """What is done where nothing is asked."""
    return resolve(Asked(), contract)


def resolve(asked: Asked, contract: InputContract) -> Options:
    """Fill in what a request leaves open.

    Raises `Refused`: CONTRACT_CHANGED, OUTPUT_NOT_PRODUCED, THRESHOLD_OUT_OF_RANGE, THRESHOLD_BELOW_FLOOR,
    CLASS_UNKNOWN, MAX_DETECTIONS_INVALID.
    """
    if asked.contract_fingerprint not in ("", contract.fingerprint):
        raise Refused(Reason.CONTRACT_CHANGED, asked=asked.contract_fingerprint, served=contract.fingerprint)
    return Options(
        threshold=_threshold(asked.threshold, contract),
        outputs=_outputs(asked.outputs, contract),
        mask_format=asked.mask_format,
        class_ids=_class_ids(asked, contract),
        max_detections=_max_detections(asked.max_detections, contract),
        panoptic_threshold=_panoptic_threshold(asked.panoptic_threshold, contract),
    )


def _outputs(asked: tuple[Output, ...], contract: InputContract) -> tuple[Output, ...]:
    for output in asked:
        require(output, contract)
    return tuple(dict.fromkeys(asked)) or contract.outputs


def require(output: Output, contract: InputContract) -> None:
    """Raise `Refused` (OUTPUT_NOT_PRODUCED) unless the model produces an output."""
    if output not in contract.outputs:
        raise _not_produced(output, contract)


def _not_produced(output: Output, contract: InputContract) -> Refused:
    produced = ", ".join(contract.outputs)
    return Refused(Reason.OUTPUT_NOT_PRODUCED, output=output, produced=produced, key=SWITCHES[output])


SWITCHES = {
    Output.BOXES: "MODEL.META_ARCHITECTURE",
    Output.ROTATED_BOXES: "MODEL.ROI_HEADS.NAME",
    Output.MASKS: "MODEL.MASK_ON",
    Output.KEYPOINTS: "MODEL.KEYPOINT_ON",
    Output.PANOPTIC: "MODEL.META_ARCHITECTURE and MODEL.PANOPTIC_FPN.COMBINE.ENABLED",
    Output.SEMANTIC: "MODEL.META_ARCHITECTURE",
}


def _in_range(asked: float, field: str) -> float:
    if not 0 <= asked <= 1:  # which a NaN is not either
        raise Refused(Reason.THRESHOLD_OUT_OF_RANGE, threshold=asked, field=field)
    return asked


def _threshold(asked: float | None, contract: InputContract) -> float:
    if asked is None:
        return contract.default_threshold
    if _in_range(asked, "options.threshold") < contract.floor:
        raise Refused(Reason.THRESHOLD_BELOW_FLOOR, threshold=asked, floor=contract.floor)
    return asked


def _panoptic_threshold(asked: float | None, contract: InputContract) -> float | None:
    if asked is None:
        return contract.panoptic_threshold
    if contract.panoptic_threshold is None:
        raise _not_produced(Output.PANOPTIC, contract)
    return _in_range(asked, "options.panoptic_threshold")


def _class_ids(asked: Asked, contract: InputContract) -> tuple[int, ...] | None:
    if not asked.class_names and not asked.class_ids:
        return None
    ids = set(asked.class_ids)
    for name in asked.class_names:
        if name not in contract.class_names:
            raise Refused(Reason.CLASS_UNKNOWN, asked=name, classes=", ".join(contract.class_names))
        ids.add(contract.class_names.index(name))
    for class_id in ids:
        if not 0 <= class_id < len(contract.class_names):
            raise Refused(Reason.CLASS_UNKNOWN, asked=class_id, classes=f"0 to {len(contract.class_names) - 1}")
    return tuple(sorted(ids))


def _max_detections(asked: int | None, contract: InputContract) -> int | None:
    if asked is None:
        return contract.max_detections
    if asked < 1 or (contract.max_detections is not None and asked > contract.max_detections):
        raise Refused(Reason.MAX_DETECTIONS_INVALID, asked=asked, most=contract.max_detections or "any number")
    return asked

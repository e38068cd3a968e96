"""Options of a request, and their resolution against a contract."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from vedette_server.contract.contract import InputContract, Output
from vedette_server.contract.image import SentImage
from vedette_server.contract.mistakes import Mistake
from vedette_server.contract.refusal import Reason, Refused


class MaskFormat(StrEnum):
    """The encoding of masks."""

    COCO_RLE = "COCO_RLE"
    POLYGONS = "POLYGONS"
    PNG = "PNG"
    NONE = "NONE"  # the mask head does not run


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options as requested; unset ones take the model's own values."""

    threshold: float | None = None
    outputs: tuple[Output, ...] = ()  # empty: everything that the model produces
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    class_names: tuple[str, ...] = ()  # combined with class_ids; both empty: all
    class_ids: tuple[int, ...] = ()
    max_detections: int | None = None
    panoptic_threshold: float | None = None
    box_masks: bool = False  # masks also as the head gives them, where it does
    contract_fingerprint: str = ""  # empty: any


class Options(msgspec.Struct, frozen=True):
    """Fully resolved options for a worker."""

    threshold: float
    outputs: tuple[Output, ...]
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    class_ids: tuple[int, ...] | None = None  # None: all
    max_detections: int | None = None  # None: any number
    panoptic_threshold: float | None = None  # None: not a panoptic model
    box_masks: bool = False  # return the mask head's own masks as well
    undo: Mistake | None = None  # mistake to undo in the image first; None: take the image as declared
    thumbnail: bool = False  # return a small picture of the model's input and detections

    @property
    def masks(self) -> bool:
        """True if the answer includes masks."""
        return Output.MASKS in self.outputs and self.mask_format is not MaskFormat.NONE


@dataclass(frozen=True)
class AskedImage:
    """An image and what was asked about it."""

    image: SentImage
    options: Options


def defaults(contract: InputContract) -> Options:
    """Return the options of a request that sets none."""
    return resolve(Asked(), contract)


def resolve(asked: Asked, contract: InputContract) -> Options:
    """Resolve a request's options against a contract.

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
        box_masks=asked.box_masks and contract.box_masks,
    )


def _outputs(asked: tuple[Output, ...], contract: InputContract) -> tuple[Output, ...]:
    for output in asked:
        require(output, contract)
    return tuple(dict.fromkeys(asked)) or contract.outputs


def require(output: Output, contract: InputContract) -> None:
    """Raise `Refused` (OUTPUT_NOT_PRODUCED) unless the model produces `output`."""
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
    if not 0 <= asked <= 1:  # false for NaN, too
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
    numbers = {name: number for number, name in reversed([*enumerate(contract.class_names)])}  # of two, the first
    for name in asked.class_names:
        if name not in numbers:
            raise Refused(Reason.CLASS_UNKNOWN, asked=name, classes=", ".join(contract.class_names))
        ids.add(numbers[name])
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

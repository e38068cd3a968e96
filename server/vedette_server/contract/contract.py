"""The input contract of a model version: the pixels it requires, and the outputs it can produce."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check


class Output(StrEnum):
    """A kind of output that a model can produce."""

    BOXES = "boxes"
    ROTATED_BOXES = "rotated_boxes"
    MASKS = "masks"
    KEYPOINTS = "keypoints"
    PANOPTIC = "panoptic"
    SEMANTIC = "semantic"


class Input(StrEnum):
    """A way to send an image: a file, raw samples of a format, or a float tensor."""

    ENCODED = "encoded"
    BGR8 = "BGR8"
    RGB8 = "RGB8"
    GRAY8 = "GRAY8"
    BGRA8 = "BGRA8"
    RGBA8 = "RGBA8"
    NV12 = "NV12"
    I420 = "I420"
    CHANNELS8 = "8UCN"
    TENSOR = "tensor"


def possible(order: ChannelOrder) -> tuple[Input, ...]:
    """Return the kinds of input that can provide a model's channels: colours can become grey, but nothing else."""
    if order is ChannelOrder.MODEL:
        return Input.CHANNELS8, Input.TENSOR
    return tuple(item for item in Input if item is not Input.CHANNELS8)


def default_inputs(order: ChannelOrder) -> tuple[Input, ...]:
    """Return the kinds of input that are allowed by default.

    Grey is expanded to colour only if the operator allows it, because a model trained on colour may fail on it.
    """
    return tuple(item for item in possible(order) if item is not Input.GRAY8 or order is ChannelOrder.GRAY)


@dataclass(frozen=True)
class ResizeRule:
    """Detectron2's `ResizeShortestEdge`; a shortest edge of 0 means no resizing. In pixels."""

    shortest_edge: int
    longest_edge: int


@dataclass(frozen=True)
class ImageLimits:
    """The operator's limits on images."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    max_edge: int = 16_384


@dataclass(frozen=True)
class Names:
    """Names of a model's classes and keypoints, in the order of their ids."""

    classes: Sequence[str]
    stuff: Sequence[str] = ()
    keypoints: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """An immutable contract, derived from a model's Detectron2 config and its operator's settings."""

    channel_order: ChannelOrder  # of the model's own input (`INPUT.FORMAT`)
    resize: ResizeRule
    pixel_mean: tuple[float, ...]  # in channel_order, for values 0 to 255; subtracted inside the model
    pixel_std: tuple[float, ...]  # in channel_order; divided by inside the model
    outputs: tuple[Output, ...]
    class_names: tuple[str, ...]
    stuff_class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    floor: float  # no candidate below it is computed
    default_threshold: float
    max_detections: int | None  # None: any number
    precision: str
    source_digest: str  # of config and weights
    panoptic_threshold: float | None = None  # minimum score of a thing in the panoptic map; None: not a panoptic model
    plugins: tuple[str, ...] = ()  # modules of the model's project, imported before the model is built
    inputs: tuple[Input, ...] = default_inputs(ChannelOrder.BGR)  # kinds of input that the operator allows
    limits: ImageLimits = field(default_factory=ImageLimits)
    waivers: tuple[Check, ...] = ()  # checks that the operator has waived
    own_threshold: bool = False  # the model applies a threshold of its own and drops everything below it unseen
    box_masks: bool = False  # its mask head gives 28 x 28 probabilities in each box, which are then pasted

    @property
    def detects(self) -> bool:
        """True if the model finds objects, so that an answer without any is empty."""
        return Output.BOXES in self.outputs

    def class_name(self, class_id: int) -> str:
        """Return the name of an object class, or its number if a custom model returns an id without a name."""
        return named(self.class_names, class_id)

    def stuff_name(self, class_id: int) -> str:
        """Return the name of a stuff class, or its number if it has no name."""
        return named(self.stuff_class_names, class_id)

    @property
    def channels(self) -> int:
        """The number of channels of an image as given to the model; three for colours."""
        return {ChannelOrder.GRAY: 1, ChannelOrder.MODEL: len(self.pixel_mean)}.get(self.channel_order, 3)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that affects an answer: all fields but the last five, as sorted JSON."""
        others = ("inputs", "limits", "waivers", "own_threshold", "box_masks")
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key not in others}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def named(names: Sequence[str], index: int) -> str:
    """Return the name of a class, or its number if it has no name."""
    return names[index] if 0 <= index < len(names) else str(index)

"""The input contract of a model version: what pixels must be before they reach it, and what it can produce."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check


class Output(StrEnum):
    """What a model can answer with."""

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
    """The ways to send an image from which a model's channels can be had: colours give grey, but nothing else."""
    if order is ChannelOrder.MODEL:
        return Input.CHANNELS8, Input.TENSOR
    return tuple(item for item in Input if item is not Input.CHANNELS8)


def default_inputs(order: ChannelOrder) -> tuple[Input, ...]:
    """What callers may send where the operator says nothing.

    Grey is expanded to colour only where the operator allows it: a model trained on colour may be blind to it.
    """
    return tuple(item for item in possible(order) if item is not Input.GRAY8 or order is ChannelOrder.GRAY)


@dataclass(frozen=True)
class ResizeRule:
    """Detectron2's `ResizeShortestEdge`; a shortest edge of 0 means no resizing. In pixels."""

    shortest_edge: int
    longest_edge: int


@dataclass(frozen=True)
class ImageLimits:
    """What an operator lets callers send."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    max_edge: int = 16_384


@dataclass(frozen=True)
class Names:
    """What a model's classes and keypoints are called, in the order of their ids."""

    classes: Sequence[str]
    stuff: Sequence[str] = ()
    keypoints: Sequence[str] = ()


@dataclass(frozen=True)
class InputContract:
    """Immutable, derived from a model's Detectron2 config and its operator's settings."""

    channel_order: ChannelOrder  # in which the model itself takes its channels (`INPUT.FORMAT`)
    resize: ResizeRule
    pixel_mean: tuple[float, ...]  # in channel_order, of values 0 to 255; subtracted inside the model
    pixel_std: tuple[float, ...]  # in channel_order; divided by inside the model
    outputs: tuple[Output, ...]
    class_names: tuple[str, ...]
    stuff_class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    floor: float  # no candidate below it is computed
    default_threshold: float
    max_detections: int | None  # None: any number
    precision: str
    source_digest: str  # of the config and the weights
    panoptic_threshold: float | None = None  # score that a thing needs to enter the map; None: not a panoptic model
    plugins: tuple[str, ...] = ()  # modules of the model's project, imported before it is built
    inputs: tuple[Input, ...] = default_inputs(ChannelOrder.BGR)  # what the operator lets callers send
    limits: ImageLimits = field(default_factory=ImageLimits)
    waivers: tuple[Check, ...] = ()  # checks that the operator has switched off
    own_threshold: bool = False  # whether the model drops what lies below a threshold of its own, seen by nobody

    @property
    def detects(self) -> bool:
        """Whether the model finds objects, so that an answer without one is empty."""
        return Output.BOXES in self.outputs

    def class_name(self, class_id: int) -> str:
        """The name of a class of objects; its number, where a model of a project gives one that it has not named."""
        return named(self.class_names, class_id)

    def stuff_name(self, class_id: int) -> str:
        """The same of a class of stuff."""
        return named(self.stuff_class_names, class_id)

    @property
    def channels(self) -> int:
        """How many channels an image has as it is given to the model; of colours, three."""
        return {ChannelOrder.GRAY: 1, ChannelOrder.MODEL: len(self.pixel_mean)}.get(self.channel_order, 3)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that changes an answer: all fields but the last four, as sorted JSON."""
        others = ("inputs", "limits", "waivers", "own_threshold")
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key not in others}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def named(names: Sequence[str], index: int) -> str:
    """The name of a class, or its number where it has none."""
    return names[index] if 0 <= index < len(names) else str(index)

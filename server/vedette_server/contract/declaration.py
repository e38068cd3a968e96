"""A model as declared: its inputs and its outputs."""

from dataclasses import dataclass

from vedette_server.contract.contract import Output, ResizeRule
from vedette_server.contract.image import ChannelOrder

# Detectron2's own meta-architectures, and the one from its projects whose configs declare the outputs.
FAMILIES = (
    "GeneralizedRCNN",
    "RetinaNet",
    "FCOS",
    "PanopticFPN",
    "PanopticDeepLab",
    "SemanticSegmentor",
    "ProposalNetwork",
)


@dataclass(frozen=True)
class Count:
    """A number from the config, and its key."""

    key: str
    number: int | None  # None: as many as there are names


ANY_NUMBER = Count("", -1)


@dataclass(frozen=True, kw_only=True)
class Produced:
    """Properties observed when a model was imported, if its config cannot declare them."""

    family: str = ""  # one of FAMILIES, whose config keys apply; empty: none
    own_threshold: bool = True  # the model selects its own output, so no selector of ours runs inside it
    outputs: tuple[Output, ...] = ()
    classes: int | None = None  # None: nothing in the model declares it
    keypoints: int | None = None
    stuff: int | None = None  # semantic classes
    pixel_mean: tuple[float, ...] = ()  # as stored in the model
    pixel_std: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Preparation of images for a model."""

    architecture: str  # name of the model's class
    channel_order: ChannelOrder
    resize: ResizeRule
    pixel_mean: tuple[float, ...]  # for values 0 to 255, in channel_order
    pixel_std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Gives:
    """Outputs of a model, and the settings that select them."""

    outputs: tuple[Output, ...] = ()
    threshold: float = 0.0  # 0 to 1; 0: the model applies none
    most: Count = ANY_NUMBER  # detections per image; negative if that means any number
    classes: Count | None = None  # of objects; None: finds no objects
    keypoints: Count | None = None
    box_masks: bool = False  # its mask head gives 28 x 28 probabilities in each box, which are then pasted
    stuff: Count | None = None  # classes of the semantic map
    panoptic_threshold: float | None = None  # None: no map combines things and stuff


@dataclass(frozen=True)
class Declared(Gives, Prepared):
    """A model as declared by its config."""

    own_threshold: bool = False  # the model applies a threshold of its own, where no selector of ours runs


def outputs(
    *,
    boxes: bool = True,
    rotated: bool = False,
    masks: bool = False,
    keypoints: bool = False,
    panoptic: bool = False,
    semantic: bool = False,
) -> tuple[Output, ...]:
    """Return a model's outputs in canonical order."""
    produced = {
        Output.BOXES: boxes,
        Output.ROTATED_BOXES: rotated,
        Output.MASKS: masks,
        Output.KEYPOINTS: keypoints,
        Output.PANOPTIC: panoptic,
        Output.SEMANTIC: semantic,
    }
    return tuple(output for output, is_produced in produced.items() if is_produced)

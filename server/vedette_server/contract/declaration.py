"""What is declared of a model: what it takes, and what it gives."""

from dataclasses import dataclass

from vedette_server.contract.contract import Output, ResizeRule
from vedette_server.contract.image import ChannelOrder

# Detectron2's own meta-architectures, and the one of its projects whose configs say what it gives.
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
    """A number in the config, and the key that says it."""

    key: str
    number: int | None  # None: it is as many as names were given


ANY_NUMBER = Count("", -1)


@dataclass(frozen=True)
class Produced:
    """What was seen of a model when it was imported, where its config cannot say it."""

    family: str = ""  # of FAMILIES, by whose keys its config is read; empty: by none
    own_threshold: bool = True  # whether it selects by itself what it returns: no selector of ours stands within it
    outputs: tuple[Output, ...] = ()
    classes: int | None = None  # None: nothing in the model says it
    keypoints: int | None = None
    stuff: int | None = None  # classes of its semantic scores
    pixel_mean: tuple[float, ...] = ()  # as the model holds it
    pixel_std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """How images are prepared for a model."""

    architecture: str  # the name of the model's class
    channel_order: ChannelOrder
    resize: ResizeRule
    pixel_mean: tuple[float, ...]  # of values 0 to 255, in channel_order
    pixel_std: tuple[float, ...]


@dataclass(frozen=True)
class Gives:
    """What a model can answer with, and how it selects that."""

    outputs: tuple[Output, ...] = ()
    threshold: float = 0.0  # 0 to 1; 0: it applies none
    most: Count = ANY_NUMBER  # detections of an image; negative where that means any number
    classes: Count | None = None  # of objects; None: it finds none
    keypoints: Count | None = None
    stuff: Count | None = None  # classes of the semantic map
    panoptic_threshold: float | None = None  # None: no map is combined from things and stuff


@dataclass(frozen=True)
class Declared(Gives, Prepared):
    """A model as its config declares it."""

    own_threshold: bool = False  # whether the model applies its threshold where no selector of ours stands


def outputs(
    *,
    boxes: bool = True,
    rotated: bool = False,
    masks: bool = False,
    keypoints: bool = False,
    panoptic: bool = False,
    semantic: bool = False,
) -> tuple[Output, ...]:
    """The outputs of a model, in the order in which they are told."""
    produced = {
        Output.BOXES: boxes,
        Output.ROTATED_BOXES: rotated,
        Output.MASKS: masks,
        Output.KEYPOINTS: keypoints,
        Output.PANOPTIC: panoptic,
        Output.SEMANTIC: semantic,
    }
    return tuple(output for output, is_produced in produced.items() if is_produced)

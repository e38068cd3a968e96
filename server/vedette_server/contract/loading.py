"""Why a model is refused before it ever serves: the closed list of checks with their remedies, in one table.

Whoever refuses says what was seen; what that means and what to do about it is said here, once.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum, auto


class Check(StrEnum):
    """What every version must pass. The name is what a refusal says, and what a waiver names."""

    @staticmethod
    def _generate_next_value_(name: str, _start: int, _count: int, _last: list[str]) -> str:
        return name

    CONFIG_UNREADABLE = auto()
    CONFIG_IS_PROGRAM = auto()
    CONFIG_UNSERVABLE = auto()
    PLUGIN_MISSING = auto()
    PLUGIN_NOT_ALLOWED = auto()
    CLASS_COUNT = auto()
    ALWAYS_EMPTY = auto()
    WEIGHTS_UNREADABLE = auto()
    WEIGHTS_UNSAFE = auto()
    WEIGHTS_EMPTY = auto()
    BACKBONE_ONLY = auto()
    SWITCH_DISAGREES = auto()
    TENSORS_MISSHAPEN = auto()
    TENSORS_MISSING = auto()
    TENSORS_UNEXPECTED = auto()
    VALUES_NOT_FINITE = auto()
    SCORES_FLAT = auto()
    CHECKSUM_CHANGED = auto()
    GOLDEN_CHANGED = auto()


@dataclass(frozen=True)
class Row:
    """How one check is told: what a model that fails it is like, and what to do."""

    meaning: str
    remedy: str
    waivable: bool = False  # by its name, in model.toml


CHECKS: dict[Check, Row] = {
    Check.CONFIG_UNREADABLE: Row(
        "The config is no file, no path of the model zoo, or not what Detectron2 reads.",
        "compare its keys with detectron2.config.defaults; a project's own keys need its --plugin",
    ),
    Check.CONFIG_IS_PROGRAM: Row(
        "The config is a Python program (a LazyConfig), or holds an expression that would be run.",
        "write the values instead, or give --run-config to run the program once, at import",
    ),
    Check.CONFIG_UNSERVABLE: Row(
        "The model is built in a way that this server cannot hold to a threshold.",
        "serve a GeneralizedRCNN with a FastRCNNOutputLayers, a RetinaNet, a PanopticFPN or a PanopticDeepLab",
    ),
    Check.PLUGIN_MISSING: Row(
        "A module that the model needs cannot be imported.",
        "install the project beside the server, or put its folder on PYTHONPATH",
    ),
    Check.PLUGIN_NOT_ALLOWED: Row(
        "The version was imported with a plugin, which is a program, and this server was not told to run it.",
        "start the server with --plugin and the module's name, if you trust it",
    ),
    Check.CLASS_COUNT: Row(
        "The config, the weights and the names do not agree on the number of classes or keypoints.",
        "set NUM_CLASSES to the trained number, and give one name for each",
    ),
    Check.ALWAYS_EMPTY: Row(
        "Under these settings no answer could ever hold a detection.",
        "set the threshold below 1, in model.toml or the config, and TEST.DETECTIONS_PER_IMAGE to 100",
        waivable=True,
    ),
    Check.WEIGHTS_UNREADABLE: Row(
        "The weights are no whole checkpoint.",
        "compare its size with the original's; save model.state_dict()",
    ),
    Check.WEIGHTS_UNSAFE: Row(
        "The checkpoint is a pickle that holds more than tensors: loading it would run a program.",
        "save the weights as safetensors where you trust the file",
    ),
    Check.WEIGHTS_EMPTY: Row("The checkpoint holds no tensors.", "give the trained checkpoint, or --weights-key"),
    Check.BACKBONE_ONLY: Row(
        "No head is in the weights: they are a backbone's, from which training starts.",
        "give the trained checkpoint",
    ),
    Check.SWITCH_DISAGREES: Row(
        "The config asks for a mask or keypoint head that the weights do not have, or the other way round.",
        "set the switch as it was in training; a request can leave masks and keypoints out by itself",
    ),
    Check.TENSORS_MISSHAPEN: Row("Tensors have another shape than the config says.", "give the config of the training"),
    Check.TENSORS_MISSING: Row(
        "Tensors of the model are not in the weights: Detectron2 would leave them random.",
        "give the checkpoint of this very config",
        waivable=True,
    ),
    Check.TENSORS_UNEXPECTED: Row(
        "The weights hold tensors that the model does not have: the config is another's.",
        "give the config of the training",
        waivable=True,
    ),
    Check.VALUES_NOT_FINITE: Row(
        "Weights are NaN or infinite: training has diverged, and what they touch is dropped without a word.",
        "give an earlier checkpoint",
        waivable=True,
    ),
    Check.SCORES_FLAT: Row(
        "The best score on any golden image is what a random head would give.",
        "give the trained checkpoint, or golden images that show what the model was trained to find",
        waivable=True,
    ),
    Check.CHECKSUM_CHANGED: Row(
        "A file of the version is not what it was when the version was written.",
        "import the model again: a version never changes",
        waivable=True,
    ),
    Check.GOLDEN_CHANGED: Row(
        "A golden image is answered otherwise than when the version was made.",
        "find what changed beneath the model (libraries, device, precision), then import it again",
        waivable=True,
    ),
}


class LoadRefusedError(Exception):
    """A model is not what its config says, or could only give empty answers.

    The message names the check, says what was seen and what to do; it is for whoever ships the model.
    """

    def __init__(self, check: Check, seen: str) -> None:
        super().__init__(f"{check}: {seen}; {CHECKS[check].remedy}")
        self.check = check


def refuse(check: Check, seen: str, waivers: Collection[Check]) -> None:
    """Raise `LoadRefusedError`, unless the operator has waived this check by name."""
    if check not in waivers:
        raise LoadRefusedError(check, seen)

"""The closed list of checks that a model must pass before it serves, with their remedies, in one table.

The code that refuses states what was seen. Its meaning and remedy are stated here, once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto


class Check(StrEnum):
    """A check that every version must pass. Refusals and waivers use its name."""

    @staticmethod
    def _generate_next_value_(name: str, _start: int, _count: int, _last: list[str]) -> str:
        return name

    DEVICE_UNUSABLE = auto()
    FILE_UNUSABLE = auto()
    VERSION_UNREADABLE = auto()
    CONFIG_UNREADABLE = auto()
    CONFIG_IS_PROGRAM = auto()
    CONFIG_UNBUILDABLE = auto()
    CONFIG_KEYS_UNKNOWN = auto()
    CONFIG_UNSERVABLE = auto()
    CONFIG_OUT_OF_BOUNDS = auto()
    MODEL_TOO_LARGE = auto()
    OUT_OF_MEMORY = auto()
    PROPOSALS_EXTERNAL = auto()
    OPERATORS_MISSING = auto()
    OUTPUT_UNSERVABLE = auto()
    INFERENCE_FAILS = auto()
    OUTPUT_NOT_FINITE = auto()
    PLUGIN_MISSING = auto()
    PLUGIN_NOT_ALLOWED = auto()
    NAMES_MISSING = auto()
    NAMES_UNUSABLE = auto()
    CLASS_COUNT = auto()
    ALWAYS_EMPTY = auto()
    WEIGHTS_UNREADABLE = auto()
    WEIGHTS_UNSAFE = auto()
    WEIGHTS_EMPTY = auto()
    WEIGHTS_AMBIGUOUS = auto()
    BACKBONE_ONLY = auto()
    SWITCH_DISAGREES = auto()
    TENSORS_MISSHAPEN = auto()
    TENSORS_MISSING = auto()
    TENSORS_UNEXPECTED = auto()
    VALUES_NOT_FINITE = auto()
    GOLDEN_UNREADABLE = auto()
    SCORES_FLAT = auto()
    CHECKSUM_CHANGED = auto()
    GOLDEN_CHANGED = auto()


@dataclass(frozen=True)
class CheckRow:
    """The description of one check: the meaning of a failure, and the remedy."""

    meaning: str
    remedy: str
    waivable: bool = False  # by its name, in model.toml


CHECKS: dict[Check, CheckRow] = {
    Check.DEVICE_UNUSABLE: CheckRow(
        "The requested device is missing, or torch cannot use it.",
        "check the output of `vedette-server doctor` and `nvidia-smi`, or give another --device",
    ),
    Check.FILE_UNUSABLE: CheckRow(
        "A file is not regular, leads out of its version's folder, or is larger than its limit.",
        "replace it by the file itself",
    ),
    Check.VERSION_UNREADABLE: CheckRow(
        "A file of the version, or the model's model.toml, is missing or invalid.",
        "if model.toml is named, correct it; otherwise import the model again",
    ),
    Check.CONFIG_UNREADABLE: CheckRow(
        "The config is neither a file nor a path in the model zoo, or Detectron2 cannot read it.",
        "give the config.yaml that training wrote into its OUTPUT_DIR",
    ),
    Check.CONFIG_IS_PROGRAM: CheckRow(
        "The config is a Python program (a LazyConfig), or contains an expression that would be evaluated.",
        "write the values instead, or give --run-config to run the program once, at import",
    ),
    Check.CONFIG_UNBUILDABLE: CheckRow(
        "Detectron2 cannot build the model that the config describes.",
        "reproduce the error with detectron2.modeling.build_model, and correct the config",
    ),
    Check.CONFIG_KEYS_UNKNOWN: CheckRow(
        "The config has keys unknown to Detectron2: a project's own, or misspelt ones.",
        "give the --plugin that defines them, or drop keys outside MODEL and INPUT with --ignore-keys",
    ),
    Check.CONFIG_UNSERVABLE: CheckRow(
        "The config describes a model, or a preparation of images, that this server does not support.",
        "import the model again, and prepare its images as Detectron2's DefaultPredictor does",
    ),
    Check.CONFIG_OUT_OF_BOUNDS: CheckRow(
        "A number in the config is NaN or implausible for any model: it is a mistake, or would exhaust memory.",
        "give the config of the training",
    ),
    Check.MODEL_TOO_LARGE: CheckRow(
        "The config describes a model with far more parameters than its weights hold.",
        "give the config and the weights of the same training",
    ),
    Check.OUT_OF_MEMORY: CheckRow(
        "The server ran out of memory while loading the model or answering a picture.",
        "give the server more memory, fewer workers, or a smaller model or MIN_SIZE_TEST",
    ),
    Check.PROPOSALS_EXTERNAL: CheckRow(
        "The model requires external proposals (Fast R-CNN), and requests contain none.",
        "give the Faster R-CNN of the same family, which proposes its own regions (MODEL.PROPOSAL_GENERATOR.NAME RPN)",
    ),
    Check.OPERATORS_MISSING: CheckRow(
        "The model needs compiled operators of Detectron2, which do not run here.",
        "build Detectron2 with them (python -m pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2.git'), or give --plugin with a module that provides them",
    ),
    Check.OUTPUT_UNSERVABLE: CheckRow(
        "The model's output contradicts its config or its names, or cannot be served.",
        "return Instances with scores, pred_classes and pred_boxes or pred_masks, sem_seg or panoptic_seg, at the size "
        "given by `height` and `width`; give a name for each class",
    ),
    Check.INFERENCE_FAILS: CheckRow(
        "The model fails on a picture.",
        "run it on one picture with Detectron2's DefaultPredictor, which fails in the same way",
    ),
    Check.OUTPUT_NOT_FINITE: CheckRow(
        "The model computes NaN or infinite values for a picture, and silently drops the results.",
        "give an earlier checkpoint, with PIXEL_MEAN and PIXEL_STD as they were in training",
        waivable=True,
    ),
    Check.PLUGIN_MISSING: CheckRow(
        "A module that the model needs is missing or fails, or no module registers a part of the model.",
        "install the project beside the server, or add its folder to PYTHONPATH",
    ),
    Check.PLUGIN_NOT_ALLOWED: CheckRow(
        "The version was imported with a plugin, which runs code, and this server does not allow that plugin.",
        "start the server with --plugin and the module's name, if you trust it",
    ),
    Check.NAMES_MISSING: CheckRow(
        "Neither the config nor its dataset declares the names of the classes, or their number.",
        "give --classes, and --stuff-classes for a model that classifies every pixel",
    ),
    Check.NAMES_UNUSABLE: CheckRow(
        "Two classes or keypoints share a name, or one has none, so callers cannot tell them apart.",
        "give one name for each, separated by commas; blanks around a name are removed",
    ),
    Check.CLASS_COUNT: CheckRow(
        "The config, the weights and the names disagree on the number of classes or keypoints.",
        "set NUM_CLASSES to the trained number, and give one name for each",
    ),
    Check.ALWAYS_EMPTY: CheckRow(
        "Under these settings no answer can ever contain a detection.",
        "set the threshold below 1, in model.toml or the config, and TEST.DETECTIONS_PER_IMAGE to 100",
        waivable=True,
    ),
    Check.WEIGHTS_UNREADABLE: CheckRow(
        "The weights are not a complete checkpoint.",
        "compare the file's size with the original's, or save model.state_dict() again",
    ),
    Check.WEIGHTS_UNSAFE: CheckRow(
        "The checkpoint is a pickle that runs code when loaded in the usual way, which no checkpoint needs.",
        "do not load it anywhere, and find out who made it; get the checkpoint from where it was trained",
    ),
    Check.WEIGHTS_EMPTY: CheckRow(
        "The checkpoint holds no tensors, or none under --weights-key and --strip-prefix.",
        "give the trained checkpoint, or set --weights-key to the entry that holds them",
    ),
    Check.WEIGHTS_AMBIGUOUS: CheckRow(
        "The checkpoint holds several sets of tensors that could be the model's, such as a student's and a teacher's.",
        "choose one with --weights-key and --strip-prefix",
    ),
    Check.BACKBONE_ONLY: CheckRow(
        "The weights contain no head: they are a backbone, the starting point of training.",
        "give the trained checkpoint",
    ),
    Check.SWITCH_DISAGREES: CheckRow(
        "The config asks for a mask or keypoint head that the weights do not have, or vice versa.",
        "set the switch as in training; requests can omit masks and keypoints themselves",
    ),
    Check.TENSORS_MISSHAPEN: CheckRow(
        "Tensors have other shapes than the config declares.", "give the config of the training"
    ),
    Check.TENSORS_MISSING: CheckRow(
        "Tensors of the model are missing from the weights: Detectron2 would leave them random.",
        "give the checkpoint trained with this config",
        waivable=True,
    ),
    Check.TENSORS_UNEXPECTED: CheckRow(
        "The weights hold tensors that the model does not have: the config belongs to another model.",
        "give the config of the training",
        waivable=True,
    ),
    Check.VALUES_NOT_FINITE: CheckRow(
        "Weights are NaN or infinite: training diverged, and affected results are silently dropped.",
        "give an earlier checkpoint",
        waivable=True,
    ),
    Check.GOLDEN_UNREADABLE: CheckRow(
        "A file in the folder of golden images is not a supported picture, or the folder has none.",
        "convert such files, or move them out of the folder",
    ),
    Check.SCORES_FLAT: CheckRow(
        "The best score on any golden image is no better than a random head's.",
        "give the trained checkpoint, or golden images that show what the model was trained to find",
        waivable=True,
    ),
    Check.CHECKSUM_CHANGED: CheckRow(
        "A file of the version has changed since the version was written.",
        "import the model again: a version never changes",
        waivable=True,
    ),
    Check.GOLDEN_CHANGED: CheckRow(
        "The answer to a golden image differs from the one recorded with the version.",
        "find out what changed around the model (libraries, device, precision), then import it again",
        waivable=True,
    ),
}


class LoadRefusedError(Exception):
    """A model contradicts its config, or could only give empty answers.

    The message names the check, and says what was seen and what to do. It addresses whoever ships the model.
    """

    def __init__(
        self, check: Check, seen: str, remedy: str | None = None, *, flags: Sequence[Sequence[str]] = ()
    ) -> None:
        """Use `remedy` instead of the table's if it fits better; `flags` are flags of `import` to try."""
        super().__init__(f"{check}: {seen}; {remedy or CHECKS[check].remedy}")
        self.check = check
        self.seen = seen
        self.remedy = remedy
        self.flags = flags


def refuse(check: Check, seen: str, waivers: Collection[Check]) -> None:
    """Raise `LoadRefusedError`, unless the operator has waived this check by name."""
    if check not in waivers:
        raise LoadRefusedError(check, seen)

"""Why a model is refused before it ever serves: the closed list of checks with their remedies, in one table.

Whoever refuses says what was seen; what that means and what to do about it is said here, once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto


class Check(StrEnum):
    """What every version must pass. The name is what a refusal says, and what a waiver names."""

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
    """How one check is told: what a model that fails it is like, and what to do."""

    meaning: str
    remedy: str
    waivable: bool = False  # by its name, in model.toml


CHECKS: dict[Check, CheckRow] = {
    Check.DEVICE_UNUSABLE: CheckRow(
        "The device that models are to run on is not there, or torch cannot use it.",
        "see what `vedette-server doctor` and `nvidia-smi` say, or give another --device",
    ),
    Check.FILE_UNUSABLE: CheckRow(
        "A file is no regular one, leads out of its version's folder, or is larger than such a file may be.",
        "put the file itself there",
    ),
    Check.VERSION_UNREADABLE: CheckRow(
        "A file of the version, or the model's model.toml, is missing or is not what it should be.",
        "mend model.toml where it is named, else import the model again",
    ),
    Check.CONFIG_UNREADABLE: CheckRow(
        "The config is no file, no path of the model zoo, or not what Detectron2 reads.",
        "give the config.yaml that the training wrote into its OUTPUT_DIR",
    ),
    Check.CONFIG_IS_PROGRAM: CheckRow(
        "The config is a Python program (a LazyConfig), or holds an expression that would be run.",
        "write the values instead, or give --run-config to run the program once, at import",
    ),
    Check.CONFIG_UNBUILDABLE: CheckRow(
        "Detectron2 cannot build the model that the config describes.",
        "build it with detectron2.modeling.build_model, which says the same, and mend the config",
    ),
    Check.CONFIG_KEYS_UNKNOWN: CheckRow(
        "The config has keys that Detectron2 does not have: a project's own, or misspelt ones.",
        "give the --plugin whose keys they are, or leave out by --ignore-keys what is not under MODEL or INPUT",
    ),
    Check.CONFIG_UNSERVABLE: CheckRow(
        "The config describes a model, or a way to prepare images, that this server cannot serve.",
        "import the model again, and prepare its images as Detectron2's DefaultPredictor does",
    ),
    Check.CONFIG_OUT_OF_BOUNDS: CheckRow(
        "A number of the config is none, or beyond what any model has: nobody meant it, or it would take all memory.",
        "give the config of the training",
    ),
    Check.MODEL_TOO_LARGE: CheckRow(
        "The config describes a model of far more numbers than its weights hold.",
        "give the config and the weights of one training",
    ),
    Check.OUT_OF_MEMORY: CheckRow(
        "The memory that the server may use was not enough to load the model or to answer a picture.",
        "give the server more memory, fewer workers, or a smaller model or MIN_SIZE_TEST",
    ),
    Check.PROPOSALS_EXTERNAL: CheckRow(
        "The model takes its proposals from outside (Fast R-CNN), and no request brings any.",
        "give the Faster R-CNN of the same family, which proposes its own regions (MODEL.PROPOSAL_GENERATOR.NAME RPN)",
    ),
    Check.OPERATORS_MISSING: CheckRow(
        "The model needs operators of Detectron2 that are compiled, and they do not run here.",
        "build Detectron2 with them (python -m pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2.git'), or give --plugin with a module that provides them",
    ),
    Check.OUTPUT_UNSERVABLE: CheckRow(
        "What the model returns is not what its config and its names say, or nothing that can be served.",
        "return Instances with scores, pred_classes and pred_boxes or pred_masks, sem_seg or panoptic_seg, at the size "
        "that `height` and `width` say; give a name for each class",
    ),
    Check.INFERENCE_FAILS: CheckRow(
        "The model does not answer a picture.",
        "run it on one picture with Detectron2's DefaultPredictor: what fails here fails there",
    ),
    Check.OUTPUT_NOT_FINITE: CheckRow(
        "The model computes NaN or infinite values from a picture, and drops what it makes of them without a word.",
        "give an earlier checkpoint, with PIXEL_MEAN and PIXEL_STD as they were in training",
        waivable=True,
    ),
    Check.PLUGIN_MISSING: CheckRow(
        "A module that the model needs cannot be imported or fails, or a part of it is registered by no module.",
        "install the project beside the server, or put its folder on PYTHONPATH",
    ),
    Check.PLUGIN_NOT_ALLOWED: CheckRow(
        "The version was imported with a plugin, which is a program, and this server was not told to run it.",
        "start the server with --plugin and the module's name, if you trust it",
    ),
    Check.NAMES_MISSING: CheckRow(
        "Neither the config nor its dataset says what the classes are called, nor how many there are.",
        "give --classes, and --stuff-classes for a model that gives a class for every pixel",
    ),
    Check.NAMES_UNUSABLE: CheckRow(
        "Two classes or keypoints have one name, or one has none: nobody could ask for it, or tell it.",
        "give one name for each, separated by commas; blanks around a name are taken off",
    ),
    Check.CLASS_COUNT: CheckRow(
        "The config, the weights and the names do not agree on the number of classes or keypoints.",
        "set NUM_CLASSES to the trained number, and give one name for each",
    ),
    Check.ALWAYS_EMPTY: CheckRow(
        "Under these settings no answer could ever hold a detection.",
        "set the threshold below 1, in model.toml or the config, and TEST.DETECTIONS_PER_IMAGE to 100",
        waivable=True,
    ),
    Check.WEIGHTS_UNREADABLE: CheckRow(
        "The weights are no whole checkpoint.",
        "compare its size with the original's; save model.state_dict()",
    ),
    Check.WEIGHTS_UNSAFE: CheckRow(
        "The checkpoint is a pickle that runs a program where it is loaded as usual, as no checkpoint needs to.",
        "find out who made it, and load it nowhere; give the checkpoint from where it was trained",
    ),
    Check.WEIGHTS_EMPTY: CheckRow(
        "The checkpoint holds no tensors, or none where --weights-key and --strip-prefix say.",
        "give the trained checkpoint, or --weights-key with the entry that holds them",
    ),
    Check.WEIGHTS_AMBIGUOUS: CheckRow(
        "The checkpoint holds several sets of tensors that could be the model's, such as a student's and a teacher's.",
        "say which, by --weights-key and --strip-prefix",
    ),
    Check.BACKBONE_ONLY: CheckRow(
        "No head is in the weights: they are a backbone's, from which training starts.",
        "give the trained checkpoint",
    ),
    Check.SWITCH_DISAGREES: CheckRow(
        "The config asks for a mask or keypoint head that the weights do not have, or the other way round.",
        "set the switch as it was in training; a request can leave masks and keypoints out by itself",
    ),
    Check.TENSORS_MISSHAPEN: CheckRow(
        "Tensors have another shape than the config says.", "give the config of the training"
    ),
    Check.TENSORS_MISSING: CheckRow(
        "Tensors of the model are not in the weights: Detectron2 would leave them random.",
        "give the checkpoint of this very config",
        waivable=True,
    ),
    Check.TENSORS_UNEXPECTED: CheckRow(
        "The weights hold tensors that the model does not have: the config is another's.",
        "give the config of the training",
        waivable=True,
    ),
    Check.VALUES_NOT_FINITE: CheckRow(
        "Weights are NaN or infinite: training has diverged, and what they touch is dropped without a word.",
        "give an earlier checkpoint",
        waivable=True,
    ),
    Check.GOLDEN_UNREADABLE: CheckRow(
        "A file in the folder of golden images is no picture that the server takes, or there is none.",
        "convert these files, or move them out of the folder",
    ),
    Check.SCORES_FLAT: CheckRow(
        "The best score on any golden image is what a random head would give.",
        "give the trained checkpoint, or golden images that show what the model was trained to find",
        waivable=True,
    ),
    Check.CHECKSUM_CHANGED: CheckRow(
        "A file of the version is not what it was when the version was written.",
        "import the model again: a version never changes",
        waivable=True,
    ),
    Check.GOLDEN_CHANGED: CheckRow(
        "A golden image is answered otherwise than when the version was made.",
        "find what changed beneath the model (libraries, device, precision), then import it again",
        waivable=True,
    ),
}


class LoadRefusedError(Exception):
    """A model is not what its config says, or could only give empty answers.

    The message names the check, says what was seen and what to do; it is for whoever ships the model.
    """

    def __init__(
        self, check: Check, seen: str, remedy: str | None = None, *, flags: Sequence[Sequence[str]] = ()
    ) -> None:
        """`remedy` is one that fits what was seen better than the table's; `flags` are flags of `import` to try."""
        super().__init__(f"{check}: {seen}; {remedy or CHECKS[check].remedy}")
        self.check = check
        self.seen = seen
        self.remedy = remedy
        self.flags = flags


def refuse(check: Check, seen: str, waivers: Collection[Check]) -> None:
    """Raise `LoadRefusedError`, unless the operator has waived this check by name."""
    if check not in waivers:
        raise LoadRefusedError(check, seen)

"""Why a model is refused before it ever serves: the closed list of checks, and the exception that names one."""

from enum import StrEnum, auto


class Check(StrEnum):
    """What every version must pass. The name is what a refusal says."""

    CONFIG_UNREADABLE = auto()
    CONFIG_IS_PROGRAM = auto()
    CONFIG_UNSERVABLE = auto()
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


class LoadRefusedError(Exception):
    """A model is not what its config says, or could only give empty answers.

    The message says what was seen and what to do; it is for whoever ships the model.
    """

    def __init__(self, check: Check, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check

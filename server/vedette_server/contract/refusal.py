"""The closed list of reasons for which a request is refused or fails, and the exception that carries one.

The code that refuses gives the reason and the facts. Only the table in `vedette_server.rpc.errors` turns them into text
for the caller.
"""

from enum import StrEnum, auto

_LONGEST_FACT = 2_000  # characters; long enough for the names of many classes


class Reason(StrEnum):
    """A reason on the closed list. The error table documents each, with its gRPC code and remedy."""

    @staticmethod
    def _generate_next_value_(name: str, _start: int, _count: int, _last: list[str]) -> str:
        return name

    IMAGE_MISSING = auto()
    IMAGE_TOO_MANY_BYTES = auto()
    IMAGE_UNREADABLE = auto()
    IMAGE_TRUNCATED = auto()
    IMAGE_TOO_DEEP = auto()
    IMAGE_NOT_UPRIGHT = auto()
    IMAGE_ANIMATED = auto()
    IMAGE_TOO_LARGE = auto()
    IMAGE_TOO_NARROW = auto()
    IMAGE_TOO_COSTLY = auto()
    PIXEL_FORMAT_MISSING = auto()
    SIZE_INVALID = auto()
    ROW_STRIDE_INVALID = auto()
    RAW_LENGTH_MISMATCH = auto()
    YUV_UNDECLARED = auto()
    ALPHA_NOT_DROPPED = auto()
    INPUT_NOT_ALLOWED = auto()
    TENSOR_UNDECLARED = auto()
    CHANNELS_NOT_THE_MODELS = auto()
    TENSOR_LENGTH_MISMATCH = auto()
    VALUES_NOT_FINITE = auto()
    VALUES_NORMALISED = auto()
    VALUES_IN_UNIT_RANGE = auto()
    VALUES_OUT_OF_RANGE = auto()
    LAYOUT_CONTRADICTED = auto()
    CONTRACT_CHANGED = auto()
    OUTPUT_NOT_PRODUCED = auto()
    CLASS_UNKNOWN = auto()
    MAX_DETECTIONS_INVALID = auto()
    THRESHOLD_OUT_OF_RANGE = auto()
    THRESHOLD_BELOW_FLOOR = auto()
    INPUT_TENSOR_INVALID = auto()
    PARAMETER_INVALID = auto()
    REQUEST_ID_INVALID = auto()
    REQUEST_UNREADABLE = auto()
    REQUEST_TOO_LARGE = auto()
    BODY_INVALID = auto()
    BODY_TOO_LARGE = auto()
    BODY_COMPRESSED = auto()
    PATH_NOT_FOUND = auto()
    ORIGIN_REFUSED = auto()
    REQUEST_STALLED = auto()
    INTAKE_FULL = auto()
    REGION_NOT_LOCAL = auto()
    REGION_INVALID = auto()
    REGION_EXISTS = auto()
    REGIONS_EXCEEDED = auto()
    REGION_NOT_FOUND = auto()
    REGION_CHANGED = auto()
    REGION_TOO_SMALL = auto()
    FEATURE_NOT_SERVED = auto()
    MODEL_NAME_MISSING = auto()
    MODEL_NOT_FOUND = auto()
    MODEL_VERSION_NOT_FOUND = auto()
    MODEL_NOT_READY = auto()
    LOAD_REFUSED = auto()
    SAMPLE_MISSING = auto()
    OVERLOADED = auto()
    DEADLINE_EXCEEDED = auto()
    IMAGE_POISONOUS = auto()
    WORKERS_LOST = auto()
    WORKER_OUT_OF_MEMORY = auto()
    STREAM_NOT_CONFIGURED = auto()
    STREAM_CHANGED = auto()
    FRAME_OUT_OF_ORDER = auto()
    CAPTURE_TIME_INVALID = auto()
    TOO_MANY_STREAMS = auto()
    STREAM_RESTED = auto()
    CREDENTIALS_MISSING = auto()
    CREDENTIALS_REFUSED = auto()
    NOT_PERMITTED = auto()
    RATE_EXCEEDED = auto()
    STREAMS_EXCEEDED = auto()
    SHUTTING_DOWN = auto()
    INTERNAL = auto()


# Inputs that contradict themselves, their declaration or the contract, as opposed to wrong or untimely requests.
VIOLATIONS = (
    Reason.IMAGE_MISSING,
    Reason.IMAGE_TOO_MANY_BYTES,
    Reason.IMAGE_UNREADABLE,
    Reason.IMAGE_TRUNCATED,
    Reason.IMAGE_TOO_DEEP,
    Reason.IMAGE_NOT_UPRIGHT,
    Reason.IMAGE_ANIMATED,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_TOO_NARROW,
    Reason.IMAGE_TOO_COSTLY,
    Reason.PIXEL_FORMAT_MISSING,
    Reason.SIZE_INVALID,
    Reason.ROW_STRIDE_INVALID,
    Reason.RAW_LENGTH_MISMATCH,
    Reason.YUV_UNDECLARED,
    Reason.ALPHA_NOT_DROPPED,
    Reason.INPUT_NOT_ALLOWED,
    Reason.TENSOR_UNDECLARED,
    Reason.CHANNELS_NOT_THE_MODELS,
    Reason.TENSOR_LENGTH_MISMATCH,
    Reason.VALUES_NOT_FINITE,
    Reason.VALUES_NORMALISED,
    Reason.VALUES_IN_UNIT_RANGE,
    Reason.VALUES_OUT_OF_RANGE,
    Reason.LAYOUT_CONTRADICTED,
    Reason.CONTRACT_CHANGED,
    Reason.INPUT_TENSOR_INVALID,
)


class Refused(Exception):  # noqa: N818  a refusal is an outcome, not a bug
    """A request was refused, or failed, for a reason on the list.

    `facts` hold what was seen and what would be valid; they fill the reason's message.
    """

    def __init__(self, reason: Reason, **facts: object) -> None:
        super().__init__(reason, facts)
        self.reason = reason
        self.facts = {name: _short(str(value)) for name, value in facts.items()}


def _short(text: str) -> str:
    """Truncate a fact, which may quote a caller's input of any length."""
    return text if len(text) <= _LONGEST_FACT else text[:_LONGEST_FACT] + "…"

"""The baseline of a version on disk: what its answers and inputs looked like while all was well."""

import msgspec

from vedette_server.contract import disk
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.repository.repository import BASELINE, ModelVersion

FORMAT = 1


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Between which values of a statistic all is well."""

    low: float
    mean: float
    high: float


class ClassProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a class was detected."""

    share: float  # of all detections
    per_answer: float  # detections in each answer, on average
    presence: float  # share of the windows in which it was detected at all


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one source, or all of a version's together, gave while all was well."""

    stream: str  # label of the stream; empty: all together
    hour: int | None  # of the day, UTC; None: all hours
    windows: int
    answers: int
    statistics: dict[str, Limits]  # each in its own unit
    best_score: list[float]  # cumulative shares, by `Baseline.edges`
    scores: list[float] = []  # the same of the detections' scores; of all sources together alone, as are the classes
    classes: dict[str, ClassProfile] = {}


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """baseline.json, beside the version that it is of."""

    format: int
    model: str
    version: int
    fingerprint: str  # of the contract under which it was captured, and for which alone it holds
    captured: float  # seconds since the epoch, when the capture ended
    source: str  # what was looked at, in words
    window_seconds: float  # length of a reference window; 0: groups of images
    edges: list[str]  # of the score histograms' buckets, as on the metrics page
    profiles: list[Profile]


class BaselineRefusedError(Exception):
    """A baseline is not of this version; the message says why."""


def read(model: ModelVersion) -> Baseline | None:
    """Read the baseline of a version; None: it has none. Raises `BaselineRefusedError`."""
    path = model.folder / BASELINE
    try:
        data = disk.contents(path, disk.LARGEST[BASELINE], model.folder)
        baseline = msgspec.json.decode(data, type=Baseline)
    except FileNotFoundError:
        return None
    except (OSError, LoadRefusedError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} cannot be read: {error}"
        raise BaselineRefusedError(msg) from error
    if baseline.format != FORMAT:
        msg = f"{path} has format {baseline.format}, this server reads {FORMAT}: capture it again"
        raise BaselineRefusedError(msg)
    if baseline.fingerprint != model.contract.fingerprint:
        msg = (
            f"{path} was captured under the contract {baseline.fingerprint[:12]}, this version's is "
            f"{model.contract.fingerprint[:12]}: capture it again"
        )
        raise BaselineRefusedError(msg)
    for profile in baseline.profiles:
        if wrong := _wrong(profile, len(baseline.edges)):
            msg = f"{path} contradicts itself: a profile of {profile.stream!r} has {wrong}: capture it again"
            raise BaselineRefusedError(msg)
    return baseline


def limits(model: ModelVersion) -> dict[str, dict[str, tuple[float, float]]]:
    """The lowest and the highest usual value of each statistic, by stream ("": of all together), over all hours."""
    try:
        found = read(model)
    except BaselineRefusedError:  # as the monitor says
        found = None
    profiles = [profile for profile in found.profiles if profile.hour is None] if found else []
    return {
        profile.stream: {name: (one.low, one.high) for name, one in profile.statistics.items()} for profile in profiles
    }


def _wrong(profile: Profile, edges: int) -> str:
    """What a profile has that cannot be shown; empty: nothing."""
    if len(profile.best_score) != edges:
        return f"{len(profile.best_score)} values in best_score for {edges} edges"
    if len(profile.scores) not in (0, edges):
        return f"{len(profile.scores)} values in scores for {edges} edges"
    return "" if "empty" in profile.statistics else 'no "empty" in statistics'

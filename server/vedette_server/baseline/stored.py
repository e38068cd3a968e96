"""The baseline of a version on disk: statistics of its answers and inputs in a healthy period."""

from pathlib import Path

import msgspec

from vedette_server.contract import disk
from vedette_server.contract.loading import LoadRefusedError
from vedette_server.repository.repository import BASELINE, ModelVersion

FORMAT = 1


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The healthy range of a statistic."""

    low: float
    mean: float
    high: float


class ClassProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The frequency of a class."""

    share: float  # of all detections
    per_answer: float  # mean detections per answer
    presence: float  # share of windows with at least one detection


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Statistics of a healthy period, for one source or all of a version's together."""

    stream: str  # label of the stream; empty: all sources
    hour: int | None  # of the day, UTC; None: all hours
    windows: int
    answers: int
    statistics: dict[str, Limits]  # each in its own unit
    best_score: list[float]  # cumulative shares, by `Baseline.edges`
    scores: list[float] = []  # same for detections' scores; like the classes, only for all sources
    classes: dict[str, ClassProfile] = {}


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of baseline.json, beside its version."""

    format: int
    model: str
    version: int
    fingerprint: str  # of the only contract for which it holds
    captured: float  # end of the capture, seconds since the epoch
    source: str  # captured pages, in words
    window_seconds: float  # length of a reference window; 0: groups of images
    edges: list[str]  # of the buckets of score histograms, as on the metrics page
    profiles: list[Profile]


class BaselineRefusedError(Exception):
    """A baseline does not belong to this version; the message says why."""


def read(model: ModelVersion) -> Baseline | None:
    """Read the baseline of a version, or None if it has none. Raises `BaselineRefusedError`."""
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
        msg = f"{path} has format {baseline.format}, but this server reads {FORMAT}: capture it again"
        raise BaselineRefusedError(msg)
    if baseline.fingerprint != model.contract.fingerprint:
        msg = (
            f"{path} was captured under the contract {baseline.fingerprint[:12]}, but this version's is "
            f"{model.contract.fingerprint[:12]}: capture it again"
        )
        raise BaselineRefusedError(msg)
    for profile in baseline.profiles:
        if wrong := _wrong(profile, len(baseline.edges)):
            msg = f"{path} contradicts itself: a profile of {profile.stream!r} has {wrong}: capture it again"
            raise BaselineRefusedError(msg)
    return baseline


def write(model: ModelVersion, baseline: Baseline) -> Path:
    """Put a baseline beside its version, whole or not at all; returns its path."""
    path = model.folder / BASELINE
    fresh = model.folder.with_name(f"{model.folder.name}.{BASELINE}.new")  # in the version it would be a file too many
    try:
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(baseline)) + b"\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def limits(model: ModelVersion) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the lowest and highest healthy value of each statistic, by stream ("": all), over all hours."""
    try:
        found = read(model)
    except BaselineRefusedError:  # the monitor reports it
        found = None
    profiles = [profile for profile in found.profiles if profile.hour is None] if found else []
    return {
        profile.stream: {name: (one.low, one.high) for name, one in profile.statistics.items()} for profile in profiles
    }


def _wrong(profile: Profile, edges: int) -> str:
    """Return the defect of a profile that cannot be shown; empty if there is none."""
    if len(profile.best_score) != edges:
        return f"{len(profile.best_score)} values in best_score for {edges} edges"
    if len(profile.scores) not in (0, edges):
        return f"{len(profile.scores)} values in scores for {edges} edges"
    return "" if "empty" in profile.statistics else 'no "empty" in statistics'

"""The profile of a healthy period: how a version's answers and inputs were distributed, and how far they strayed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from vedette_server.alerts.inputs import INPUTS
from vedette_server.alerts.limits import LEAST_ANSWERS, LEAST_DETECTIONS, LEAST_WINDOWS
from vedette_server.baseline.scrape import Page
from vedette_server.baseline.statistics import cumulative, ks, limits, shares, total_variation
from vedette_server.baseline.stored import ClassProfile, Profile


@dataclass(frozen=True)
class Window:
    """The counts of one reference window."""

    hour: int  # of the day, UTC, in which it began
    page: Page


class TooLittleError(Exception):
    """There is not enough to make a baseline of; the message says of what."""


def profiles(model: str, version: int, windows: Sequence[Window], *, by_hour: bool) -> list[Profile]:
    """The profile of a version and of each stream that has enough of its own; separately by hour where asked.

    Raises `TooLittleError`.
    """
    seen = _Seen(model, str(version))
    whole = seen.profile(None, windows, None)
    if whole is None:
        enough = sum(seen.answers(window.page, None) >= LEAST_ANSWERS for window in windows)
        msg = (
            f"{enough} of {len(windows)} windows have at least {LEAST_ANSWERS} answers of {model} version {version}; "
            f"{LEAST_WINDOWS} are needed: capture for longer, in longer windows, or when there is more traffic"
        )
        raise TooLittleError(msg)
    streams = sorted({stream for window in windows for stream in seen.streams(window.page)})
    slots: list[int | None] = [None, *(sorted({window.hour for window in windows}) if by_hour else ())]
    found = (
        seen.profile(stream, [window for window in windows if hour in (None, window.hour)], hour)
        for stream in (None, *streams)
        for hour in slots
    )
    return [profile for profile in found if profile]


def edges(windows: Sequence[Window]) -> list[str]:
    """The edges of the score histograms, in order."""
    labels = {le for window in windows for (le,) in window.page.by("vedette_best_score_bucket", "le")}
    return sorted(labels, key=float)


@dataclass(frozen=True)
class _Seen:
    """A version's figures on pages."""

    model: str
    version: str

    def _match(self, stream: str | None) -> dict[str, str]:
        match = {"model": self.model, "version": self.version}
        return match if stream is None else match | {"stream": stream}

    def answers(self, page: Page, stream: str | None) -> float:
        return page.value("vedette_answers_total", **self._match(stream))

    def streams(self, page: Page) -> Iterator[str]:
        """Labels of the streams that are what they are called."""
        counts = page.by("vedette_answers_total", "stream", **self._match(None))
        return (stream for (stream,) in counts if stream and not stream.startswith("_"))

    def profile(self, stream: str | None, windows: Sequence[Window], hour: int | None) -> Profile | None:
        """The profile of a stream, or of everything (None); None if there is too little of it."""
        pages = [window.page for window in windows if self.answers(window.page, stream) >= LEAST_ANSWERS]
        if len(pages) < LEAST_WINDOWS:
            return None
        statistics = {"empty": limits([self._empty(page, stream) for page in pages], 0, 1)}
        for name, one in INPUTS.items():
            means = [mean for page in pages if (mean := self._mean(page, one.metric, stream)) is not None]
            if len(means) >= LEAST_WINDOWS:
                statistics[name] = limits(means, 0, one.highest)
        whole = sum(pages[1:], pages[0])
        best = cumulative(self._buckets(whole, "vedette_best_score", stream))
        profile = Profile(stream or "", hour, len(pages), int(self.answers(whole, stream)), statistics, best)
        return profile if stream is not None else self._with_detections(profile, pages, whole)

    def _with_detections(self, profile: Profile, pages: Sequence[Page], whole: Page) -> Profile:
        scores = cumulative(self._buckets(whole, "vedette_detection_score", None))
        mix = shares(self._classes(whole))
        joined = list(self._joined(pages))
        distances = dict(profile.statistics)
        if len(joined) > 1:
            apart = [ks(cumulative(self._buckets(page, "vedette_detection_score", None)), scores) for page in joined]
            distances["score_distance"] = limits(apart, 0, 1)
            apart = [total_variation(shares(self._classes(page)), mix) for page in joined]
            distances["class_distance"] = limits(apart, 0, 1)
        counted = self._classes(whole)
        present = [{name for name, count in self._classes(page).items() if count} for page in pages]
        classes = {
            name: ClassProfile(
                mix.get(name, 0.0),
                count / profile.answers,
                sum(name in names for names in present) / len(pages),
            )
            for name, count in counted.items()
        }
        return msgspec.structs.replace(profile, statistics=distances, scores=scores, classes=classes)

    def _joined(self, pages: Sequence[Page]) -> Iterator[Page]:
        """Successive windows, joined until each holds enough detections; what is left over is left out."""
        held: Page | None = None
        for page in pages:
            held = page if held is None else held + page
            if sum(self._classes(held).values()) >= LEAST_DETECTIONS:
                yield held
                held = None

    def _empty(self, page: Page, stream: str | None) -> float:
        return page.value("vedette_empty_answers_total", **self._match(stream)) / self.answers(page, stream)

    def _mean(self, page: Page, family: str, stream: str | None) -> float | None:
        count = page.value(f"{family}_count", **self._match(stream))
        return page.value(f"{family}_sum", **self._match(stream)) / count if count else None

    def _buckets(self, page: Page, family: str, stream: str | None) -> list[float]:
        counts = page.by(f"{family}_bucket", "le", **self._match(stream))
        return [counts[le,] for le in sorted((le for (le,) in counts), key=float)]

    def _classes(self, page: Page) -> dict[str, float]:
        return {
            name: count for (name,), count in page.by("vedette_detections_total", "class", **self._match(None)).items()
        }

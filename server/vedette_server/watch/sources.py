"""Records of each source of images: a stream by its id, or all single images together."""

import collections
import time
from collections.abc import Callable
from dataclasses import dataclass

from vedette_server.contract.answer import Answer, PixelStatistics
from vedette_server.contract.options import AskedImage
from vedette_server.explain.explain import Context, values
from vedette_server.explain.findings import Code, Finding
from vedette_server.explain.usual import Usual

_MOST_SOURCES = 1_000  # that are remembered, of all models
_MOST_SAMPLES, _MOST_SAMPLED_BYTES = 8, 64 * 2**20  # frames that are kept, and their bytes, but for the newest
_RECENT, _USUAL = 0.1, 0.002  # weights of one frame in the recent and in the usual share of empty ones
_BEYOND, _AGAIN = 0.2, 0.05  # by which the recent share lies above the usual one: to be restless, to be calm again


@dataclass(frozen=True)
class Key:
    """A source of a model version."""

    model: str
    version: int
    name: str  # the stream's id; empty: images that come one by one


class SourceRecord:
    """One source of images, as its frames have shown it."""

    def __init__(self, key: Key, clock: Callable[[], float] = time.monotonic) -> None:
        self.key = key
        self._clock = clock
        self.seen = 0.0  # when, on that clock
        self.identical = 0  # frames in a row with the same pixels
        self.values: Code | None = None  # what they have been made of
        self.suspicion: Finding | None = None
        self.quiet_until = 0.0  # on that clock; until then nothing more is tried
        self.fruitless = 0  # diagnoses in a row that nothing came of
        self._checksum: int | None = None
        self._recent = 0.0  # shares of empty answers
        self._usual = 0.0

    def see(self, answer: Answer) -> None:
        """Take one more answer into account."""
        self.seen = self._clock()
        self._see_pixels(answer.pixels)
        empty = answer.empty
        self._recent += _RECENT * (empty - self._recent)
        if self.suspicion is None:
            self._usual += _USUAL * (empty - self._usual)

    def _see_pixels(self, pixels: PixelStatistics | None) -> None:
        if pixels is None:
            self.identical, self._checksum = 1, None
            return
        feed = bool(self.key.name)  # single images may well repeat, and are of many callers
        self.identical = self.identical + 1 if feed and pixels.checksum == self._checksum else 1
        self._checksum = pixels.checksum
        self.values = values(pixels, self.values if feed else None)

    def context(self, golden_failing: str, usual: Usual) -> Context:
        """Return the facts to explain its last answer with; both arguments are of its version."""
        return Context(
            golden_failing=golden_failing,
            identical=self.identical,
            values=self.values,
            suspicion=self.suspicion,
            usual=usual,
            stream=self.key.name,
        )

    @property
    def restless(self) -> bool:
        """True if it is empty more often than usual. A new source that gives nothing counts as such."""
        return self._recent > self._usual + _BEYOND

    @property
    def calm(self) -> bool:
        """True if it is about as empty as usual."""
        return self._recent <= self._usual + _AGAIN

    @property
    def due(self) -> bool:
        """True if the cause is due to be investigated."""
        return self.restless and self._clock() >= self.quiet_until

    def accept(self) -> None:
        """Take its emptiness for what is usual with it, from now on: nothing was found to be wrong."""
        self._usual = max(self._usual, self._recent)


class Sources:
    """All sources, the longest unseen forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sources: collections.OrderedDict[Key, SourceRecord] = collections.OrderedDict()
        self._samples: dict[Key, AskedImage] = {}

    def of(self, key: Key) -> SourceRecord:
        """The source of that key."""
        source = self._sources.setdefault(key, SourceRecord(key, self._clock))
        self._sources.move_to_end(key)
        if len(self._sources) > _MOST_SOURCES:
            self._sources.popitem(last=False)
        return source

    def keep(self, key: Key, sample: AskedImage) -> None:
        """Keep the empty frame of a source that is looked into, and let go of the oldest others."""
        self._samples.pop(key, None)
        self._samples[key] = sample
        while len(self._samples) > 1 and (
            len(self._samples) > _MOST_SAMPLES
            or sum(len(one.image.data) for one in self._samples.values()) > _MOST_SAMPLED_BYTES
        ):
            del self._samples[next(iter(self._samples))]

    def sample(self, key: Key) -> AskedImage | None:
        """The empty frame of a source that was looked into last, if it is still kept."""
        return self._samples.get(key)

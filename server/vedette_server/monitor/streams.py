"""The choice of streams with series of their own: callers may send any number of names."""

import time
from collections.abc import Callable

MOST = 200  # pairs of a model version and a stream
IDLE_SECONDS = 2 * 3600.0  # after which a stream's series go: longer than any window that an alert looks at
SINGLE, UNNAMED, OTHER = (
    "",
    "_unnamed",
    "_other",
)  # images that come one by one; streams without a name; those beyond `MOST`

Key = tuple[str, str, str]  # model, version, stream


class Streams:
    """Gives each source of images its `stream` label."""

    def __init__(
        self, folded: Callable[[], None], forget: Callable[[Key], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`folded` is told of each frame that is counted under `_other`, `forget` of a label whose series can go."""
        self._folded = folded
        self._forget = forget
        self._clock = clock
        self._seen: dict[Key, float] = {}  # when, on that clock

    def label(self, model: str, version: str, name: str) -> str:
        """The label of a stream that has just been seen, by the name that its caller or the engine gave it."""
        if not name:
            return SINGLE
        label = UNNAMED if name.startswith("#") else name
        key = (model, version, label)
        if key not in self._seen and len(self._seen) >= MOST:
            self._folded()
            return OTHER
        self._seen[key] = self._clock()
        return label

    def forget_idle(self) -> None:
        """Let go of what has not been seen for long."""
        before = self._clock() - IDLE_SECONDS
        for key, seen in list(self._seen.items()):
            if seen < before:
                del self._seen[key]
                self._forget(key)

    def unloaded(self, model: str, version: str) -> None:
        """Let go of a version's streams, whose series are forgotten with it."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[:2] != (model, version)}

"""Traffic from clients of ours that goes on while servers come and go, and what came of it."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from vedette_client import Answered, Client, Dropped, Event, Failed, Frame, Sendable, ServerError

from tests.support import running

CALLERS, STREAMS = 6, 4
_PAUSE = 0.5  # seconds between the calls of a caller, and between the frames of a stream


class Traffic:
    """Callers that detect, and LATEST streams, until the context ends. The figures are those since `begin`."""

    def __init__(self, client: Client, picture: bytes) -> None:
        self._client = client
        self._picture = picture
        self._over = threading.Event()
        callers = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self._threads = callers + [threading.Thread(target=self._stream, args=(number,)) for number in range(STREAMS)]
        self.ended: list[str] = []  # streams, by an error
        self.moments: list[list[float]] = [[] for _ in range(STREAMS)]  # at which each stream was answered
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self.answered = 0
        self.failed: list[ServerError] = []  # calls
        self.fates: Counter[str] = Counter()  # of the frames
        self.moments = [moments[-1:] for moments in self.moments]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(running.PATIENCE)

    def __str__(self) -> str:
        failed = Counter(error.code.name for error in self.failed)
        calls = f"{self.answered} calls answered, {len(self.failed)} failed {dict(failed)}"
        return f"{calls}; frames {dict(self.fates)}; longest gap {self.longest_gap:.2f} s"

    def wait_for_more(self, count: int = 3) -> None:
        """Wait until every stream, and callers on average, have had so many answers more."""
        calls, frames = self.answered + count * CALLERS, [len(moments) + count for moments in self.moments]
        running.wait_for(
            lambda: self.ended or (self.answered >= calls and all(map(_longer, self.moments, frames))),
            f"answers to all; {self}",
        )

    @property
    def longest_gap(self) -> float:
        """The most seconds between two answers of a stream."""
        pairs = itertools.chain.from_iterable(map(itertools.pairwise, self.moments))
        return max((after - before for before, after in pairs), default=0.0)

    def _call(self) -> None:
        while not self._over.wait(_PAUSE):
            try:
                self._client.detect(self._picture)
            except ServerError as error:
                self.failed.append(error)
            else:
                self.answered += 1

    def _stream(self, number: int) -> None:
        try:
            for event in self._client.stream(self._frames(), policy="LATEST", stream_id=f"camera-{number}"):
                self.fates[_fate(event)] += 1
                if isinstance(event, Answered):
                    self.moments[number].append(time.monotonic())
        except ServerError as error:
            self.ended.append(str(error))

    def _frames(self) -> Iterator[Sendable]:
        while not self._over.wait(_PAUSE):
            yield Frame(self._picture)


def _longer(items: list[float], count: int) -> bool:
    return len(items) >= count


def _fate(event: Event) -> str:
    match event:
        case Dropped(reason=reason) | Failed(error=ServerError(reason=reason)):
            return reason
        case _:
            return type(event).__name__

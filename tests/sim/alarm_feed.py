"""A camera for the fault matrix: drawn streets, sent at the camera's own pace until told otherwise.

The streets have the signs, the light and the weather of the scenes that the bundled model was trained on, without the
decoys: faces with red and blue exchanged are there for training, and a street with them shows signs to a swapped feed.
As on any street, not every sign is as frequent as the others: upside down, a yield sign looks like the rare warning.
"""

import contextlib
import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
from vedette_client import Answered, Client, ImageLike, Reconfigure, VedetteError
from vedette_client.asking import StreamAsk
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes

from tests.sim import faults

STREAM = "gate"
QUIET_EVERY = 8  # frames, of which the last shows no sign
_RARE, _RARELY = "warning", 4  # a class, and how many scenes with it there are for one that the street shows
_SEEDS, _QUIET_SEEDS = 5_000_000, 5_500_000
_RETRY_SECONDS = 0.2  # before a lost connection is made again


@dataclass(frozen=True)
class Street:
    """A picture, BGR, and the classes of the signs that it shows."""

    seed: int
    bgr: UInt8Array
    classes: frozenset[str]


Send: TypeAlias = Callable[[Street], ImageLike]


def _draw(first: int, *, quiet: bool) -> Iterator[Street]:
    for seed in itertools.count(first):
        scene = scenes.describe(seed, quiet=quiet)
        placed = tuple(one for one in scene.placed if one.name)
        if seed % _RARELY and any(one.name == _RARE for one in placed):
            continue
        picture = scenes.draw(replace(scene, placed=placed))
        if bool(picture.signs) is not quiet:
            bgr = np.ascontiguousarray(picture.pixels[:, :, ::-1])
            yield Street(seed, bgr, frozenset(sign.name for sign in picture.signs))


@functools.cache
def streets(count: int) -> tuple[Street, ...]:
    """So many pictures, of which every eighth shows nothing; drawn once."""
    shown, quiet = _draw(_SEEDS, quiet=False), _draw(_QUIET_SEEDS, quiet=True)
    return tuple(next(quiet if index % QUIET_EVERY == QUIET_EVERY - 1 else shown) for index in range(count))


def plainly(street: Street) -> ImageLike:
    return faults.raw(street.bgr)


class Feed:
    """Sends pictures over and over, from its own thread, whatever becomes of the server meanwhile."""

    def __init__(self, address: str, pictures: Sequence[Street], frames_a_second: float) -> None:
        self._client = Client(address)
        self._pause = 1 / frames_a_second
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.pictures = pictures
        self.send: Send = plainly
        self.ask = StreamAsk()
        self.became: Counter[str] = Counter()  # of the frames: what each event was called

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stopped.set()
        self._client.close()  # a frame that waits for a worker would wait for ever
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(VedetteError, ValueError):  # no server, no worker, or a client that is closed
                for event in self._client.stream(
                    self._frames(), policy="LOSSLESS", stream_id=STREAM, max_in_flight=1, **self.ask
                ):
                    self.became[type(event).__name__] += 1
            self._stopped.wait(_RETRY_SECONDS)

    def _frames(self) -> Iterator[ImageLike | Reconfigure]:
        asked, due = self.ask, time.monotonic()
        for index in itertools.count(self.became[Answered.__name__]):
            if asked is not self.ask:
                asked = self.ask
                yield Reconfigure(asked)
            yield self.send(self.pictures[index % len(self.pictures)])
            due = max(due + self._pause, time.monotonic())
            if self._stopped.wait(due - time.monotonic()):
                return

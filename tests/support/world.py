"""A predictor whose world is simple, and a camera in it.

The first byte of an image says what it is: a good one shows an object, a bad one does when its mistake is undone, a
quiet one never. The second byte tells images apart.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from vedette_server.contract.answer import Answer, Detections, Evidence, PixelStatistics, StageTimes
from vedette_server.contract.image import PixelFormat, RawImage, SentImage
from vedette_server.contract.mistakes import Mistake
from vedette_server.contract.options import Asked, Options
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Query
from vedette_server.explain.findings import Code

GOOD, BAD, QUIET, DECOY = 1, 2, 3, 4


class World:
    """Sees a good image as sent, a bad one with red and blue exchanged, a decoy's object whenever it is altered so."""

    max_batch = 1

    def predict(self, image: SentImage, options: Options) -> Answer:
        return self.encode(self.prepare(image, options))

    def prepare(self, image: SentImage, options: Options) -> tuple[bytes, Options]:
        return bytes(image.data), options

    def infer(self, images: Sequence[tuple[bytes, Options]]) -> Sequence[tuple[bytes, Options]]:
        return images

    def encode(self, inferred: tuple[bytes, Options]) -> Answer:
        data, options = inferred
        swapped = options.undo is Mistake.CHANNELS_SWAPPED
        seen = (data[0] == GOOD and not swapped) or (data[0] in (BAD, DECOY) and swapped)
        scores = np.full(int(seen), 0.9, np.float32)
        found = Detections(
            boxes=np.zeros((len(scores), 4), np.float32), scores=scores, class_ids=np.zeros(len(scores), np.int32)
        )
        hashed = int.from_bytes(data[1:2] * 8, "big")
        pixels = PixelStatistics(
            mean=(99.0,) * 3,
            spread=(50.0,) * 3,
            lowest=0,
            highest=255,
            dark=0.0,
            saturated=0.0,
            middle=1.0,
            flat=0.0,
            coherence=0.9,
            colour=40.0,
            sharpness=50.0,
            hash=hashed,
            checksum=data[1],
            upper=0.5,
        )
        return Answer(
            height=100,
            width=100,
            threshold=0.5,
            detections=found,
            evidence=Evidence(best_scores=np.array([0.1], np.float32), scored=1),
            times=StageTimes(0, 0, 0, 0),
            pixels=pixels,
        )


def world(**_start: object) -> World:
    return World()


def framed(kind: int, number: int) -> SentImage:
    """A frame of a kind, which differs from those of other numbers."""
    return SentImage(RawImage(PixelFormat.BGR8, 10, 10), bytes([kind, number * 37 % 256]) + bytes(298))


class Camera:
    """Sends frames that all differ, and leaves the server a moment after each."""

    def __init__(self, engine: Engine, name: str = "camera") -> None:
        self._engine, self._name, self._count = engine, name, 0

    async def send(self, *kinds: int) -> list[Code | None]:
        """The primary reason of each answer; None for one that is not empty."""
        reasons = []
        for kind in kinds:
            self._count += 1
            image = framed(kind, self._count)
            outcome = await self._engine.detect(
                Query(model="", version="", image=image, asked=Asked(), seconds=None, source=self._name)
            )
            reasons.append(None if len(outcome.answer.detections) else outcome.findings[0].code)
            await asyncio.sleep(0.03)
        return reasons

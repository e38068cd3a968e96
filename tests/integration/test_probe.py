"""The probe's course, with a predictor whose world is simple: real processes, no model.

The first byte of an image says what it is: a good one shows an object, a bad one does when its mistake is undone, a
quiet one never. The second byte tells images apart.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from vedette_server.contract.answer import Answer, Detections, Evidence, PixelStatistics, StageTimes
from vedette_server.contract.image import Buffer, ImageSpec, PixelFormat, RawImage
from vedette_server.contract.mistakes import Mistake
from vedette_server.contract.options import Asked, Options
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Query
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.explain.findings import Code
from vedette_server.repository.repository import ModelVersion
from vedette_server.watch import probe

from tests import invariants
from tests.integration.test_engine import Silent
from tests.unit.test_contract import contract

GOOD, BAD, QUIET, DECOY = 1, 2, 3, 4


class World:
    """Sees a good image as sent, a bad one with red and blue exchanged, a decoy's object whenever it is altered so."""

    max_batch = 1

    def prepare(self, image: ImageSpec, data: Buffer, options: Options) -> tuple[bytes, Options]:
        del image
        return bytes(data), options

    def infer(self, images: Sequence[tuple[bytes, Options]]) -> Sequence[tuple[bytes, Options]]:
        return images

    def encode(self, inferred: tuple[bytes, Options]) -> Answer:
        data, options = inferred
        swapped = options.undo is Mistake.CHANNELS_SWAPPED
        seen = (data[0] == GOOD and not swapped) or (data[0] in (BAD, DECOY) and swapped)
        scores = np.full(int(seen), 0.9, np.float32)
        found = Detections(np.zeros((len(scores), 4), np.float32), scores, np.zeros(len(scores), np.int32))
        hashed = int.from_bytes(data[1:2] * 8, "big")
        spread = (0, 255, 0.0, 0.0, 1.0, 0.0, 0.9, 40.0, 50.0)
        pixels = PixelStatistics((99.0,) * 3, (50.0,) * 3, *spread, hashed, data[1], 0.5)
        return Answer(
            100, 100, 0.5, found, Evidence(np.array([0.1], np.float32), scored=1), StageTimes(0, 0, 0, 0), pixels=pixels
        )


def world(**_start: object) -> World:
    return World()


class Ear(Silent):
    def __init__(self) -> None:
        self.causes: list[str | None] = []

    def suspected(self, model: ModelVersion, source: str, cause: str | None) -> None:
        del model, source
        self.causes.append(cause)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def engine(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    monkeypatch.setattr(probe, "_HOLD_SECONDS", 0.0)  # what was found is looked into again at once
    settings = PoolSettings(
        factory="tests.integration.test_probe:world",
        workers=1,
        threads=1,
        devices=("cpu",),
        max_queued=64,
        max_queued_bytes=10_000_000,
        violated=invariants.note,
    )
    engine = Engine(settings, ear, probe.Probe(ear, share=1.0), max_seconds=60)
    served = engine.load(ModelVersion("test", 1, Path(), "", contract(), ()))
    while served.standing.state is not State.READY:
        engine.changed.clear()
        await engine.changed.wait()
    yield engine
    await engine.stop()


class Camera:
    """Sends frames that all differ, and leaves the server a moment after each."""

    def __init__(self, engine: Engine, name: str = "camera") -> None:
        self._engine, self._name, self._count = engine, name, 0

    async def send(self, *kinds: int) -> list[Code | None]:
        """The primary reason of each answer; None for one that is not empty."""
        reasons = []
        for kind in kinds:
            self._count += 1
            data = bytes([kind, self._count * 37 % 256]) + bytes(298)
            spec = RawImage(PixelFormat.BGR8, 10, 10)
            outcome = await self._engine.detect(
                Query(model="", version="", image=spec, data=data, asked=Asked(), seconds=None, source=self._name)
            )
            reasons.append(None if len(outcome.answer.detections) else outcome.findings[0].code)
            await asyncio.sleep(0.03)
        return reasons


async def until(ear: Ear, count: int, camera: Camera, kind: int) -> None:
    """Send frames of one kind until so many verdicts were heard."""
    async with asyncio.timeout(60):
        while len(ear.causes) < count:
            await camera.send(kind)


async def test_a_fault_is_found_held_and_cleared_when_it_is_mended(engine: Engine, ear: Ear) -> None:
    camera = Camera(engine)
    assert await camera.send(*[GOOD] * 20) == [None] * 20
    assert not ear.causes
    await until(ear, 1, camera, BAD)
    assert ear.causes == ["CHANNELS_SWAPPED"]
    assert await camera.send(BAD) == [Code.CHANNELS_SWAPPED]
    await until(ear, 2, camera, BAD)
    assert ear.causes == ["CHANNELS_SWAPPED"] * 2, "looked into again, and found again"
    async with asyncio.timeout(60):
        while ear.causes[-1] is not None:
            await camera.send(GOOD, QUIET)
    assert await camera.send(QUIET) == [Code.QUIET_SCENE]


async def test_a_feed_that_shows_everything_again_is_cleared_without_a_trial(engine: Engine, ear: Ear) -> None:
    camera = Camera(engine)
    await until(ear, 1, camera, BAD)
    async with asyncio.timeout(60):
        while ear.causes[-1] is not None:
            await camera.send(GOOD)
    assert await camera.send(QUIET) == [Code.QUIET_SCENE]


async def test_what_is_gone_is_suspected_of_nothing(engine: Engine, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, other = Camera(engine), Camera(engine, "other")
    await until(ear, 1, camera, BAD)
    await other.send(GOOD)
    assert ear.causes == ["CHANNELS_SWAPPED"]
    monkeypatch.setattr(probe, "_GONE_SECONDS", 0.0)
    await other.send(GOOD)
    assert ear.causes == ["CHANNELS_SWAPPED", None]


async def test_a_version_that_is_unloaded_is_suspected_of_nothing(engine: Engine, ear: Ear) -> None:
    await until(ear, 1, Camera(engine), BAD)
    await engine.unload(engine.served[0])
    assert ear.causes == ["CHANNELS_SWAPPED", None]


async def test_a_quiet_street_is_looked_into_and_left_in_peace(engine: Engine, ear: Ear) -> None:
    camera = Camera(engine)
    await until(ear, 1, camera, QUIET)
    assert ear.causes == [None]
    assert set(await camera.send(*[QUIET] * 20)) == {Code.QUIET_SCENE}
    assert ear.causes == [None], "it is known to be quiet now"


async def test_a_feed_that_shows_something_is_not_accused_for_its_decoys(engine: Engine, ear: Ear) -> None:
    """Half of its frames show objects, which undoing the mistake would lose."""
    camera = Camera(engine)
    async with asyncio.timeout(60):
        while not ear.causes:
            await camera.send(DECOY, GOOD)
    assert ear.causes == [None]


async def test_sources_are_apart(engine: Engine, ear: Ear) -> None:
    camera, other = Camera(engine), Camera(engine, "other")
    await until(ear, 1, camera, BAD)
    assert await other.send(QUIET) == [Code.QUIET_SCENE]
    assert await camera.send(BAD) == [Code.CHANNELS_SWAPPED]

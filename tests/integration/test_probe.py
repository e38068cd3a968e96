"""The probe's course, with a predictor whose world is simple: real processes, no model."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vedette_server.engine.engine import Engine
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.explain.findings import Code
from vedette_server.repository.repository import ModelVersion
from vedette_server.watch import probe

from tests.support import invariants
from tests.support.contracts import contract
from tests.support.scripted import Silent
from tests.support.world import BAD, DECOY, GOOD, QUIET, Camera


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
        factory="tests.support.world:world",
        workers=1,
        threads=1,
        devices=("cpu",),
        max_queued=64,
        max_queued_bytes=10_000_000,
        violated=invariants.note,
    )
    engine = Engine(settings, ear, probe.Probe(ear, share=1.0), max_seconds=60)
    served = engine.load(
        ModelVersion(name="test", version=1, folder=Path(), description="", contract=contract(), golden=())
    )
    while served.standing.state is not State.READY:
        engine.changed.clear()
        await engine.changed.wait()
    yield engine
    await engine.stop()


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

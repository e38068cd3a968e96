"""The model of an exported instance between requests: it proves that it sees, and its silence is looked into."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import nn
from vedette_server.contract.answer import Answer
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import AskedImage, defaults
from vedette_server.contract.refusal import Refused
from vedette_server.demo import scenes
from vedette_server.explain.findings import Code
from vedette_server.monitor.metrics import Metrics
from vedette_server.predictor.build import build
from vedette_server.predictor.predictor import Predictor, read_config
from vedette_server.predictor.strict import load_strictly
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion
from vedette_server.settings import BUNDLED_REPOSITORY
from vedette_server.triton.version import ExportedVersion
from vedette_server.watch.probe import Probe

from tests.support.contracts import contract
from tests.support.open_inference import file
from tests.support.world import BAD, World, framed


@pytest.fixture(scope="module")
def model() -> ModelVersion:
    whole = repository.find(BUNDLED_REPOSITORY, "roadsigns")
    return dataclasses.replace(whole, golden=whole.golden[:1])


@pytest.fixture
def network(model: ModelVersion) -> nn.Module:
    weights = model.folder / "model.safetensors"
    network = build(read_config(model.folder), (), "cpu", weights.stat().st_size)
    load_strictly(network, load_file(weights), ())
    return network


@pytest.fixture
def metrics(model: ModelVersion) -> Metrics:
    metrics = Metrics()
    metrics.loaded(model)
    return metrics


@pytest.fixture
def version(model: ModelVersion, network: nn.Module, metrics: Metrics) -> ExportedVersion:
    return ExportedVersion(model, Predictor(network, model.contract).predict, metrics)


def asked(number: int) -> AskedImage:
    pixels = scenes.draw(scenes.describe(3_200_000 + number, quiet=False)).pixels
    contract = repository.find(BUNDLED_REPOSITORY, "roadsigns").contract
    return AskedImage(SentImage(EncodedImage(), file(pixels)), defaults(contract))


@contextlib.asynccontextmanager
async def vigilant(version: ExportedVersion) -> AsyncIterator[None]:
    task = asyncio.create_task(version.vigil(0.01))
    yield
    task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def refused(version: ExportedVersion) -> str:
    try:
        version.infer(asked(1))
    except Refused as error:
        return f"{error.reason} {error.facts['why']}"
    return ""


async def test_a_model_that_no_longer_sees_refuses_until_it_sees_again(
    version: ExportedVersion, network: nn.Module, metrics: Metrics
) -> None:
    assert not version.infer(asked(1)).empty
    state = {name: value.clone() for name, value in network.state_dict().items()}
    async with vigilant(version):
        for value in network.state_dict().values():
            value.zero_()
        await until(lambda: refused(version).startswith("MODEL_NOT_READY it fails its golden images: "))
        assert 'vedette_golden_failing{cause="GOLDEN_FAILING",model="roadsigns",version="1"} 1' in page(metrics)
        network.load_state_dict(state)
        await until(lambda: not refused(version))


async def test_a_model_that_answers_nothing_at_all_refuses(model: ModelVersion, metrics: Metrics) -> None:
    def broken(*_: object) -> Answer:
        msg = "the device is lost"
        raise RuntimeError(msg)

    version = ExportedVersion(model, broken, metrics)
    async with vigilant(version):
        await until(lambda: bool(version.golden_failing))
        assert refused(version).startswith(
            "MODEL_NOT_READY it fails its golden images: a golden image was not answered"
        )


async def test_what_silences_a_stream_is_found_between_its_requests(metrics: Metrics) -> None:
    model = ModelVersion(name="test", version=1, folder=Path(), description="", contract=contract(), golden=())
    metrics.loaded(model)
    version, probe = ExportedVersion(model, World().predict, metrics), Probe(metrics, share=1.0)
    seen: list[Code] = []
    async with asyncio.timeout(60):
        while Code.CHANNELS_SWAPPED not in seen:
            asked = AskedImage(framed(BAD, len(seen)), defaults(model.contract))
            seen += [probe.see(version, "gate", asked, version.infer(asked))[0].code]
            await asyncio.sleep(0.01)  # the next request comes later
    await probe.stop()
    assert set(seen) == {Code.QUIET_SCENE, Code.CHANNELS_SWAPPED}
    assert 'vedette_suspected_cause{cause="CHANNELS_SWAPPED",model="test",stream="gate",version="1"} 1' in page(metrics)


def page(metrics: Metrics) -> str:
    return metrics.page("")[0].decode()

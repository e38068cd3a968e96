"""Every fault of the labelled set that one picture shows is named; `make explain` runs the whole set."""

from collections.abc import Iterator

import pytest
from vedette_client import Client

from tests.bench.explain import FAULT_SEED
from tests.sim import faults, labelled
from tests.sim.faults import FAULTS
from tests.support import running

ON_A_FEED = {"frozen feed", "channels swapped", "upside down", "on its side"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = faults.repository(tmp_path_factory.mktemp("faults"))
    with running.server("--repository", str(root), "--threads", "1") as server, Client(server.address) as client:
        yield client


@pytest.mark.parametrize("name", sorted(set(FAULTS) - ON_A_FEED))
def test_the_primary_reason_names_the_fault(client: Client, name: str) -> None:
    fault = FAULTS[name]
    sound = next(labelled.drawn(range(FAULT_SEED, FAULT_SEED + 100), quiet=False))
    client.detect(faults.raw(sound.bgr), model=fault.model)  # what came before is forgotten
    for picture in labelled.pictures(range(FAULT_SEED, FAULT_SEED + 100), quiet=False):
        result = client.detect(fault.send(picture.bgr, picture.seed), **fault.ask | {"model": fault.model})
        if not result.empty:
            continue
        if name in ("unit range", "normalised") and result.empty.reason == "IMAGE_BLACK":
            continue  # a dark picture that is scaled so is black; a feed's other frames tell
        assert result.empty.reason in fault.codes
        assert result.findings[0].code == result.empty.reason
        assert result.findings[0].evidence
        return
    raise AssertionError("no empty answer")

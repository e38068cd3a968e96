"""Fixtures that several tests share; the servers live as long as the whole run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vedette_client import Client
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes

from tests.support import running

# Workers import only what is installed, or what a user has put there; so do they what tests give them.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.getenv("PYTHONPATH")])])

# Threads of torch that wait for each other sleep, here and in programs. They would spin, which takes ten times as much
# of two cores that other tests need as well. What they compute is the same.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Programs inherit signals that are ignored, as they are where the suite was started in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def bundled() -> Iterator[running.Server]:
    """A server with the bundled model."""
    with running.server("--threads", "1") as server:
        yield server


@pytest.fixture
def client(bundled: running.Server) -> Iterator[Client]:
    with Client(bundled.address) as client:
        yield client


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the families of the zoo, random."""
    from tests.support.families import write  # imports torch, which most tests need not wait for

    return write(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def scene() -> scenes.Picture:
    """A held-out picture with signs."""
    return scenes.draw(scenes.describe(3_000_001, quiet=False))


@pytest.fixture(scope="session")
def bgr(scene: scenes.Picture) -> UInt8Array:
    return np.ascontiguousarray(scene.pixels[:, :, ::-1])

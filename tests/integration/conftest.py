"""Every integration test ends with the invariants intact of all engines that it has run in its own process.

Servers that run as users start them check their own, and `running.server` reads what they have logged.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.support import invariants, running


@pytest.fixture(autouse=True)
def invariants_hold() -> Iterator[None]:
    invariants.broken.clear()
    yield
    assert not invariants.broken


@pytest.fixture
def theirs(bundled: running.Server) -> Iterator[Any]:
    """Triton's own client, over gRPC."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(bundled.address) as client:
        yield client


@pytest.fixture
def stub(bundled: running.Server) -> Iterator[Any]:
    """The generated stub of the Open Inference Protocol, for messages of any size."""
    from tritonclient.grpc import service_pb2_grpc

    with grpc.insecure_channel(bundled.address, [("grpc.max_send_message_length", -1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

"""Two servers, behind a real Envoy or taking turns by the client itself: one is lost, and the traffic goes on."""

import signal
from collections.abc import Iterator

import pytest
from vedette_client import Client, channel
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg

from tests.support import running
from tests.support.envoy import Envoy, envoy
from tests.support.pair import Pair
from tests.support.traffic import Traffic

LONGEST_GAP = 30.0  # seconds; a stream that only noticed its loss by its silence would take 120


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair() as servers:
        yield servers


@pytest.fixture(scope="module")
def proxy(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with envoy(pair.ports, tmp_path_factory.mktemp("envoy")) as running_envoy:
        yield running_envoy


@pytest.mark.parametrize("through", ["envoy", "round_robin"])
def test_no_call_and_no_stream_is_lost_with_a_server(
    through: str, pair: Pair, proxy: Envoy, scene: scenes.Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed under traffic, and then, replaced, stopped as a deployment stops it. Behind Envoy, Envoy alone retries."""
    if through == "envoy":
        monkeypatch.setattr(channel, "_RETRIES", {})
    pair.complete()
    running.wait_for(lambda: proxy.healthy() == 2, "both servers to be healthy")
    client = Client(proxy.address) if through == "envoy" else Client(pair.address, load_balancing="round_robin")
    with client, Traffic(client, jpeg(scene.pixels)) as traffic:
        for number in (signal.SIGKILL, signal.SIGTERM):
            pair.complete()
            running.wait_for(lambda: all(pair.counted("vedette_requests_total")), "both to have their part")
            traffic.wait_for_more()
            traffic.begin()
            pair.end(pair.busiest(), number)
            traffic.wait_for_more()
            print(f"{through}, {number.name}: {traffic}")
            assert traffic.failed == []
            assert traffic.ended == []
            assert traffic.longest_gap < LONGEST_GAP

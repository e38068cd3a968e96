"""Honest pictures of other trades are accused of nothing by a real server; `make honest` sends all of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vedette_client import Answered, Client
from vedette_server.contract.contract import Names
from vedette_server.contract.types import UInt8Array
from vedette_server.demo.signs import CLASSES
from vedette_server.importer import write_version
from vedette_server.predictor.build import build
from vedette_server.predictor.predictor import read_config
from vedette_server.predictor.weights import read_weights
from vedette_server.settings import BUNDLED_REPOSITORY

from tests import honest
from tests.bench.honest import accusations
from tests.support import running

GOLDEN = {"documents": "scans", "radiology": "x-rays", "faxes": "faxes", "observatory": "stars"}  # model: its pictures


@pytest.mark.parametrize("trade", honest.TRADES)
def test_no_trade_is_accused(trade: str, client: Client) -> None:
    """One picture of each, in every encoding."""
    _, count = honest.TRADES[trade]
    one = honest.picture(trade, sorted(honest.TRADES).index(trade) % count)
    for encoding in honest.encodings(one):
        result = client.detect(honest.ENCODINGS[encoding](one))
        assert not accusations(result.findings), (one.name, encoding)


@pytest.fixture(scope="module")
def trades(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The bundled model, as it would be for other trades: with golden images of theirs, in which there are no signs."""
    root, bundled = tmp_path_factory.mktemp("trades"), BUNDLED_REPOSITORY / "roadsigns" / "1"
    config = read_config(bundled)
    model = build(config, (), "cpu")
    model.load_state_dict(read_weights(bundled / "model.safetensors", model, None))
    for name, feed in {**GOLDEN, "none": ""}.items():
        (root / name).mkdir()
        (root / name / "model.toml").write_text('threshold = 0.999\nwaivers = ["SCORES_FLAT"]\n')
        files = {f"{one.number}.png": honest.png(one) for one in honest.feed(feed, 2)} if feed else {}
        write_version(root / name, 1, config, model, names=Names(CLASSES), pictures=files)
    with running.server("--repository", str(root), "--threads", "1") as server, Client(server.address) as client:
        yield client


def others(feed: str) -> Iterator[bytes]:
    """Pictures of a feed, other than those that are golden."""
    return (honest.png(one) for one in list(honest.feed(feed, 7))[2:])


@pytest.mark.parametrize("model", GOLDEN)
def test_what_golden_images_look_like_is_no_reason(model: str, trades: Client) -> None:
    for sent in others(GOLDEN[model]):
        result, elsewhere = trades.detect(sent, model=model), trades.detect(sent, model="none")
        assert result.empty
        assert [finding.code for finding in result.findings] == ["QUIET_SCENE"]
        assert elsewhere.findings[0].confidence == "SUSPECTED", "where nothing is known to be usual"


@pytest.mark.parametrize(("model", "level", "code"), [("documents", 255, "SATURATED"), ("observatory", 0, "BLACK")])
def test_what_shows_nothing_is_certain_all_the_same(model: str, level: int, code: str, trades: Client) -> None:
    blank: UInt8Array = np.full((480, 640, 3), level, np.uint8)
    first = trades.detect(blank, pixel_format="BGR8", model=model).findings[0]
    assert (first.code, first.confidence) == (f"IMAGE_{code}", "CERTAIN")


@pytest.mark.parametrize("feed", honest.FEEDS)
def test_no_feed_is_convicted(feed: str, tmp_path: Path) -> None:
    """Looked into at leisure, as a source that gives nothing is."""
    config = tmp_path / "vedette.toml"
    config.write_text("diagnose_share = 1.0\n")
    with running.server("--threads", "1", "--config", str(config)) as server, Client(server.address) as client:
        sent = (honest.png(one) for one in honest.feed(feed, 25))
        for event in client.stream(sent, policy="LOSSLESS", stream_id=feed, max_in_flight=1):
            assert isinstance(event, Answered)
            assert not accusations(event.result.findings)
        assert server.logged("looking_into")
        assert not server.events("cause_suspected")

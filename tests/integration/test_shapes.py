"""A slice of `make shapes`: images of all shapes through a real server, by single calls and by lossless streams."""

from collections.abc import Iterator

import pytest
from vedette_server.contract.contract import ResizeRule

from tests.bench import shapes
from tests.support import running
from tests.support.generated_images import Target, generate

COUNT = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Server]:
    root = shapes.write(tmp_path_factory.mktemp("shapes"))
    with running.server("--repository", str(root), "--threads", "1") as started:
        yield started


def test_every_image_is_answered_or_refused_for_what_is_wrong_with_it(server: running.Server) -> None:
    tally = shapes.run(server, COUNT, seed=1)
    assert not tally.wrong
    assert tally.of("INTERNAL") == tally.of("DEADLINE_EXCEEDED") == 0
    assert tally.of(shapes.ANSWERED) > COUNT / 4
    assert len({outcome for _, outcome in tally.outcomes}) > 10


def test_the_same_number_is_the_same_image() -> None:
    target = Target("any", 3, ResizeRule(160, 240))
    for number in range(30):
        one, other = (generate(5, number, target) for _ in range(2))
        assert one == other
        assert one.message.SerializeToString(deterministic=True) == other.message.SerializeToString(deterministic=True)
    kinds = {generate(5, number, target).kind.split()[0] for number in range(60)}
    assert kinds == {"raw", "tensor", "file"}

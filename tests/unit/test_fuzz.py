"""Seeds and former finds of the fuzzers: every reader takes or refuses them, and damaged copies of some."""

import random
from collections.abc import Iterator

import pytest

from tests import fuzz
from tests.fuzz.readers import READERS, Reader, remove
from tests.support import damage

DAMAGED = 60  # for each reader; `make fuzz` tries millions


@pytest.fixture(scope="module", autouse=True)
def removed() -> Iterator[None]:
    yield
    remove()


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # in a pickle's text, which is refused
@pytest.mark.parametrize("name", READERS)
def test_no_reader_raises_what_it_may_not(name: str) -> None:
    reader, rng = READERS[name], random.Random(1)  # noqa: S311  not secrets
    seeds = [*reader.seeds()]
    taken = [data for data in seeds if reader.takes(data)]
    assert taken, "sound bytes are taken"
    found = [path.read_bytes() for path in sorted((fuzz.FOUND / name).glob("*"))]
    tried = [*seeds, *found, *(damage.damaged(rng, rng.choice(seeds) or b"\xff") for _ in range(DAMAGED))]
    for data in tried:
        if (error := reader.fails(data)) is not None:
            raise AssertionError(data) from error


def test_a_fault_of_a_reader_is_told() -> None:
    def stumbles(data: bytes) -> None:
        if data == b"x":
            raise KeyError

    reader = Reader(stumbles, (ValueError,), list)
    assert reader.fails(b"y") is None
    assert isinstance(reader.fails(b"x"), KeyError)

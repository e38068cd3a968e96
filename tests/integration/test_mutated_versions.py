"""Mutated models, by fixed numbers, work or are refused by name. tests.bench.hostile_versions runs thousands."""

from pathlib import Path

import pytest

from tests.bench import hostile_versions
from tests.support import mutations

CASES = range(36)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated") / "base"
    folder.mkdir()
    mutations.prepare(folder)
    return folder


def test_mutated_models_work_or_are_refused_by_name(base: Path) -> None:
    outcomes = dict(hostile_versions.cases(CASES, base))
    assert outcomes.keys() == {*CASES}
    assert not {seed: outcome for seed, outcome in outcomes.items() if hostile_versions.wrong(outcome)}
    assert {"importing", "serving"} <= {*outcomes.values()}, "some are as sound as before"
    assert len({*outcomes.values()}) > 6, "they are refused for many reasons"


def test_a_case_that_crashes_or_hangs_is_told_and_ends_no_other(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TEST_CRASH", "1")
    outcomes = dict(hostile_versions.cases([1, 2, 3], base, seconds=30))
    assert outcomes[1] == "CRASH: status -6"
    assert not hostile_versions.wrong(outcomes[3])

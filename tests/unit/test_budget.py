"""Diagnoses take a small share of the workers' time beside traffic, and what they like where there is none."""

from dataclasses import dataclass

import pytest
from vedette_server.watch.budget import Budget


@dataclass
class Version:
    workers: int = 1
    last_traffic: float = 0.0


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("share", [0.02, 0.2])
def test_beside_traffic_the_share_is_kept(share: float, workers: int) -> None:
    """Simulated on a clock that is handed in: a thousand inferences of 0.1 s, as early as they may begin."""
    now = 0.0
    budget, version = Budget(share, lambda: now), Version(workers)
    for _ in range(1000):
        version.last_traffic = now
        while (wait := budget.wait(version)) > 0:
            now += min(wait, 1.0)
            version.last_traffic = now
        budget.spend(version, 0.1)
        now += 0.1
    assert 1000 * 0.1 / (now * workers) == pytest.approx(share, rel=0.01)


def test_where_nobody_comes_they_go_on() -> None:
    now = 100.0
    budget, version = Budget(0.02, lambda: now), Version(last_traffic=now)
    budget.spend(version, 60.0)
    assert budget.wait(version) == 2.0
    now += 2.0
    assert budget.wait(version) == 0.0

"""A shortened quiet night: nobody is woken, and the same machinery fires when a fault is put into the traffic."""

import os
import shutil

import pytest

from tests.sim import nights
from tests.sim.nights_days import ALL_AT_ONCE

pytestmark = [
    pytest.mark.skipif(
        shutil.which("promtool") is None and not os.environ.get("CI"), reason="promtool is not installed"
    ),
    pytest.mark.timeout(900),  # some 200 pictures are inferred, where they were not yet
]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> nights.Play:
    return nights.Play(nights.SHORT, tmp_path_factory.mktemp("nights"))


def test_nobody_is_woken_on_an_honest_day_and_night(play: nights.Play) -> None:
    (report,) = play.days([ALL_AT_ONCE])
    assert nights.held([report]), "\n".join(map(str, report.firing))
    seen = {(one.labels["statistic"], bool(one.labels.get("stream"))): one.value for one in report.windows}
    assert len(seen) >= 12, "every statistic was there to be judged"
    assert {one.labels["cause"] for one in report.firing if one.severity == "info"} == {"BASELINE_MISSING"}


@pytest.mark.parametrize(
    ("fault", "alert", "cause", "stream"),
    [
        ("threshold", "VedetteModelSilenced", "BELOW_THRESHOLD", ""),
        ("black", "VedetteCameraDark", "IMAGE_BLACK", "ring south"),
    ],
)
def test_the_same_nights_fire_for_a_fault(play: nights.Play, fault: str, alert: str, cause: str, stream: str) -> None:
    report = play.fault(fault, (9, 10.5, 11.5))
    fired = {one.labels["alertname"]: one for one in report.firing}
    assert fired[alert].labels["cause"] == cause
    assert fired[alert].labels.get("stream", "") == stream
    assert 10.5 < fired[alert].hour < 10.75

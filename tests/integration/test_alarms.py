"""Some of the fault matrix, hurried: what fires first, what it names, what it inhibits; and that health is silent."""

import pytest

from tests.sim import alarms
from tests.sim.alarm_faults import FAULTS
from tests.support import watching

PACE = alarms.Pace(
    window=10,
    long=30,
    hold=4,
    lead=12.0,
    patience=60.0,
    linger=12.0,
    control=20.0,
    frames_a_second=8.0,
    pictures=120,
    answers=15,
)
pytestmark = [
    watching.needs(watching.PROMETHEUS, watching.ALERTMANAGER),
    pytest.mark.timeout(600),  # what is waited for is time itself
]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> alarms.Range:
    """The setting that all faults share, with a baseline captured from the camera's pictures."""
    found = alarms.Range(tmp_path_factory.mktemp("alarms"), PACE)
    found.capture_pictures()
    return found


def test_health_is_silent(watched: alarms.Range) -> None:
    outcome = watched.run(alarms.CONTROL, None)
    assert outcome.first is None, outcome
    assert not outcome.before, outcome
    assert not outcome.inhibited, outcome


# What fires first at most a few windows after the fault, and what it inhibits.
@pytest.mark.parametrize(
    ("name", "fires", "inhibited"),
    [
        ("black camera", "VedetteModelSilenced", "StreamSilenced IMAGE_BLACK"),
        ("threshold too high", "VedetteModelSilenced", "StreamSilenced BELOW_THRESHOLD"),
        ("server killed", "VedetteServerDown", "ServerDown SERVER_DOWN"),
    ],
)
def test_a_fault_fires_and_names_its_cause(watched: alarms.Range, name: str, fires: str, inhibited: str) -> None:
    outcome = watched.run(name, FAULTS[name])
    assert outcome.detected, outcome
    assert outcome.named, outcome
    assert fires in [labels["alertname"] for labels in outcome.fired], outcome
    assert inhibited in outcome.inhibited, outcome
    assert outcome.seconds < 4 * PACE.window, outcome

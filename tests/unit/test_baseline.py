"""Baselines: what is drawn from reference windows, whose they are, and that replicas add up."""

import dataclasses
import http.server
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from vedette_server import capture
from vedette_server.alerts.limits import LEAST_ANSWERS
from vedette_server.baseline import profile
from vedette_server.baseline.profile import TooLittleError, Window, profiles
from vedette_server.baseline.scrape import Page, fetch
from vedette_server.baseline.statistics import cumulative, ks, limits, shares, total_variation
from vedette_server.baseline.stored import Baseline, BaselineRefusedError, read
from vedette_server.monitor.baselines import in_force
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import BASELINE, ModelVersion, folders

from tests.support.clocks import SetClock
from tests.support.outcomes import MODEL, outcome, page


def windows(count: int, seed: int = 1, each: int = 100, hour: int = 3) -> list[Window]:
    """Reference windows in which about half of the answers of one stream, and all of another's, show something."""
    rng, metrics = random.Random(seed), Metrics()  # noqa: S311  scores, not secrets
    metrics.loaded(MODEL)
    found, before = [], page(metrics)
    for _ in range(count):
        for number in range(each):
            scores = [rng.choice((0.6, 0.97))] * 3 if number % 4 else []
            metrics.answered(outcome(*scores, source="gate" if number % 2 else ""))
        after = page(metrics)
        found.append(Window(hour, after.since(before)))
        before = after
    return found


def test_limits_lie_a_sigma_outside_of_what_was_seen() -> None:
    found = limits([10, 12, 11, 13])
    sigma = (2 + 1 + 2) / 3 / 1.128
    assert (found.low, found.mean, found.high) == pytest.approx((10 - sigma, 11.5, 13 + sigma))
    assert limits([0.5, 0.5]).low == 0.5, "not bounded unless told"
    assert limits([0.1, 0.9], 0, 1).low == 0
    assert limits([0.1, 0.9], 0, 1).high == 1


def test_the_step_from_day_to_night_is_no_noise() -> None:
    """Two levels, each steady: the limits are not as wide as a standard deviation would make them."""
    found = limits([100.0, 101.0] * 50 + [40.0, 41.0] * 50)
    assert 37 < found.low < 40
    assert 101 < found.high < 104


def test_distances() -> None:
    assert ks(cumulative([0, 5, 10]), cumulative([10, 10, 10])) == 1
    assert ks(cumulative([1, 2, 4]), cumulative([10, 20, 40])) == 0
    assert total_variation(shares({"a": 1, "b": 1}), shares({"a": 1, "c": 1})) == 0.5
    assert total_variation(shares({"a": 3, "b": 1}), shares({"a": 3, "c": 1})) == 0.25
    assert cumulative([1, 2, 4]) == [0.25, 0.5, 1]
    assert cumulative([0, 4]) == [0, 1]
    assert cumulative([0, 0]) == []
    with pytest.raises(ValueError, match="shorter"):
        ks([0.5, 1.0], [1.0])
    assert shares({"a": 0}) == {}


def test_a_profile_says_what_was_usual() -> None:
    whole, gate = profiles("test", 1, windows(10), by_hour=False)
    assert (whole.stream, whole.hour, whole.windows, whole.answers) == ("", None, 10, 1000)
    assert whole.statistics["empty"].mean == pytest.approx(0.25)
    assert whole.statistics["brightness"].mean == pytest.approx(100)
    assert set(whole.statistics) >= {"score_distance", "class_distance", "contrast", "sharpness", "redness"}
    assert whole.statistics["score_distance"].high < 0.3
    assert whole.classes["a"].share == 1
    assert whole.classes["a"].per_answer == pytest.approx(2.25)
    assert (whole.classes["a"].presence, whole.classes["b"].presence) == (1, 0)
    assert whole.scores[-1] == 1
    assert whole.scores == sorted(whole.scores)
    assert (gate.stream, gate.answers) == ("gate", 500)
    assert gate.statistics["empty"].mean == 0
    assert not gate.scores


def test_a_stream_without_enough_of_its_own_has_none() -> None:
    (whole,) = profiles("test", 1, windows(10, each=LEAST_ANSWERS + 8), by_hour=False)
    assert whole.stream == ""


def test_too_little_is_refused_with_what_to_do() -> None:
    with pytest.raises(TooLittleError, match="0 of 10 windows have at least 30 answers of test version 1"):
        profiles("test", 1, windows(10, each=10), by_hour=False)


def test_hours_have_their_own_where_there_is_enough() -> None:
    seen = [*windows(10, hour=3), *windows(2, hour=4)]
    found = profiles("test", 1, seen, by_hour=True)
    assert {(one.stream, one.hour) for one in found} == {("", None), ("", 3), ("gate", None), ("gate", 3)}
    given = Baseline(1, "test", 1, "", 0, "", 1, [], found)
    of = {(one.stream, one.hour): one.statistics for one in found}
    then, later = in_force(given, 3), in_force(given, 4)
    assert [one.stream for one in then] == [one.stream for one in later] == ["", "gate"]
    for one, other in zip(then, later, strict=True):
        whole, own = of[one.stream, None], of[one.stream, 3]
        assert one.statistics == whole | {"empty": own["empty"]}, "an hour has not seen all weathers"
        assert other.statistics == whole


def test_a_window_with_a_restart_is_known() -> None:
    first, second = (window.page for window in windows(2, each=20))
    with pytest.raises(ValueError, match="started again"):
        first.since(second + second)


def test_a_restart_of_another_model_is_no_matter() -> None:
    earlier, later = (
        Page.parse(
            f'# TYPE answers_total counter\nanswers_total{{model="a"}} {ours}\nanswers_total{{model="b"}} {theirs}\n'
        )
        for ours, theirs in ((5, 9), (7, 0))
    )
    assert later.since(earlier, model="a").by("answers_total", "model") == {("a",): 2}
    with pytest.raises(ValueError, match="started again"):
        later.since(earlier, model="b")


def test_a_queue_that_became_shorter_is_no_restart() -> None:
    """Triton calls the length of its queue a count."""
    metrics = Metrics(triton=True)
    metrics.loaded(MODEL)
    seen = []
    for queued in (3, 1):
        metrics.answered(outcome())
        metrics.state(MODEL, workers=1, wanted=1, queued=queued, running=0, restarts=0)
        seen.append(page(metrics))
    earlier, later = seen
    counted = later.since(earlier)
    assert counted.value("vedette_answers_total") == 1
    assert not counted.by("nv_inference_pending_request_count")
    assert (later + later).since(earlier + earlier).value("vedette_answers_total") == 2


def test_edges_are_known_although_the_first_window_saw_nothing() -> None:
    given = windows(10)
    assert profile.edges([Window(3, Page({})), *given]) == profile.edges(given)


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    folder = tmp_path / "test" / "1"
    folder.mkdir(parents=True)
    return dataclasses.replace(MODEL, folder=folder)


def test_a_write_that_fails_leaves_nothing_behind(version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first file written is not one of the version, whose checksums a server may check meanwhile."""
    root = version.folder.parents[1]
    there: list[Path] = []

    def full(_fresh: Path, _path: Path) -> None:
        there.extend(path for path in root.rglob("*") if path.is_file())
        raise OSError("no space is left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        capture.write(version, windows(10), 300, "a test", by_hour=False)
    assert [path.parent for path in there] == [version.folder.parent]
    assert not [path for path in root.rglob("*") if path.is_file()]
    there[0].touch()
    assert folders(root) == [version.folder], "one that was left is no version"


def test_a_baseline_is_shown_as_soon_as_it_is_there(version: ModelVersion) -> None:
    metrics = Metrics()
    metrics.loaded(version)
    assert state(page(metrics)) == "missing"
    given = windows(10)
    capture.write(version, given, 300, "a test", by_hour=False)
    seen = page(metrics)
    assert state(seen) == "present"
    assert seen.value("vedette_baseline_limit", stream="", statistic="empty", bound="mean") == pytest.approx(0.25)
    assert seen.value("vedette_baseline_answers", stream="gate") == 500
    assert seen.value("vedette_baseline_window_seconds") == 300
    again = Metrics()
    again.loaded(version)
    assert state(page(again)) == "present", "it survives a restart"
    whole = sum((window.page for window in given[1:]), given[0].page)
    buckets = whole.by("vedette_detection_score_bucket", "le")
    shown = seen.by("vedette_baseline_score_cumulative_ratio", "edge")
    assert shown == pytest.approx({key: count / buckets["+Inf",] for key, count in buckets.items()})
    (version.folder / BASELINE).unlink()
    assert state(page(metrics)) == "missing"


def test_a_baseline_for_another_contract_is_refused(version: ModelVersion) -> None:
    capture.write(version, windows(10), 300, "a test", by_hour=False)
    changed = dataclasses.replace(version, contract=dataclasses.replace(version.contract, default_threshold=0.9))
    with pytest.raises(BaselineRefusedError, match="captured under the contract"):
        read(changed)
    metrics = Metrics()
    metrics.loaded(changed)
    seen = page(metrics)
    assert state(seen) == "refused"
    assert not seen.by("vedette_baseline_limit")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 1}', b"\x00\xff"])
def test_what_is_no_baseline_is_refused(version: ModelVersion, content: bytes) -> None:
    (version.folder / BASELINE).write_bytes(content)
    metrics = Metrics()
    metrics.loaded(version)
    assert state(page(metrics)) == "refused"


def with_profile(**changed: object) -> Callable[[Baseline], Baseline]:
    """Change the profile of all sources together."""

    def change(given: Baseline) -> Baseline:
        whole, *others = given.profiles
        return msgspec.structs.replace(given, profiles=[msgspec.structs.replace(whole, **changed), *others])

    return change


@pytest.mark.parametrize(("change", "wrong"), [
    (with_profile(best_score=[0.5, 1.0]), "2 values in best_score for"),
    (with_profile(scores=[1.0]), "1 values in scores for"),
    (with_profile(statistics={}), 'no "empty"'),
    (lambda given: msgspec.structs.replace(given, edges=[]), "for 0 edges"),
])  # fmt: skip
def test_a_baseline_that_contradicts_itself_is_refused(
    change: Callable[[Baseline], Baseline], wrong: str, version: ModelVersion
) -> None:
    path = capture.write(version, windows(10), 300, "a test", by_hour=True)
    given = msgspec.json.decode(path.read_bytes(), type=Baseline)
    path.write_bytes(msgspec.json.encode(change(given)))
    with pytest.raises(BaselineRefusedError, match=f"{wrong}.*: capture it again"):
        read(version)
    metrics = Metrics()
    metrics.loaded(version)
    assert state(page(metrics)) == "refused"


def state(seen: Page) -> str:
    (found,) = [name for (name,), value in seen.by("vedette_baseline_state", "vedette_baseline_state").items() if value]
    return found


def test_two_replicas_drift_as_one_that_saw_it_all() -> None:
    """Each saw every other answer; their pages' sum gives the same profile, and so every distance, limit and share."""
    one, first, second = Metrics(), Metrics(), Metrics()
    for metrics in (one, first, second):
        metrics.loaded(MODEL)
    rng, halves = random.Random(4), itertools.cycle((first, second))  # noqa: S311  the same
    alone, together = [], []
    before = [page(metrics) for metrics in (one, first, second)]
    for _ in range(10):
        for number in range(200):
            given = outcome(*[rng.random()] * (number % 4), source="gate" if number % 3 else "")
            one.answered(given)
            next(halves).answered(given)
        after = [page(metrics) for metrics in (one, first, second)]
        whole, *parts = (later.since(earlier) for later, earlier in zip(after, before, strict=True))
        alone.append(Window(0, whole))
        together.append(Window(0, parts[0] + parts[1]))
        before = after
    apart, summed = profiles("test", 1, alone, by_hour=False), profiles("test", 1, together, by_hour=False)
    assert "score_distance" in apart[0].statistics
    for ours, theirs in zip(apart, summed, strict=True):
        assert ours.answers == theirs.answers
        assert ours.best_score == theirs.best_score
        assert ours.scores == theirs.scores
        for name, found in ours.statistics.items():
            assert msgspec.structs.astuple(found) == pytest.approx(msgspec.structs.astuple(theirs.statistics[name]))


def test_a_capture_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (window.page for window in windows(2, each=20))
    away = capture.CaptureError("nobody answers")
    pages: Iterator[Page | Exception] = iter([first, first + second, away, first, first + second])

    def fetch(*_of: object) -> Page:
        found = next(pages)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(capture, "_fetch", fetch)
    clock = SetClock(seconds=22.9 * 3600)
    seen = capture.from_servers(MODEL, ["http://one"], 300.0, 4, clock=clock)
    assert clock.seconds == 22.9 * 3600 + 4 * 300.0
    assert [window.hour for window in seen] == [22, 23], "the first, and the last, after the restart"
    assert [window.page.value("vedette_answers_total") for window in seen] == [20, 20]


class _Dying(http.server.BaseHTTPRequestHandler):
    """Gives its first page whole, and dies within every other."""

    given = 0

    def do_GET(self) -> None:
        of = f'model="test",version="1",fingerprint="{MODEL.contract.fingerprint}"'
        body = f"vedette_model_info{{{of}}} 1\n".encode()
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Length", str(len(body) + 100 * (_Dying.given > 0)))
        _Dying.given += 1  # before the page is there: whoever has it may ask for the next at once
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_of: object) -> None:
        """Say nothing."""


@pytest.fixture
def dying() -> Iterator[str]:
    _Dying.given = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Dying) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_dies_within_its_page_costs_its_windows_alone(
    dying: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capture.from_servers(MODEL, [dying], 0.0, 2) == []
    said = capsys.readouterr().err
    assert f"window 1 is left out: {dying} gives no metrics: the server broke off" in said
    assert "window 2 is left out" in said


def test_a_page_has_the_address_of_its_port_or_its_own(dying: str) -> None:
    assert fetch(f"{dying}/metrics").by("vedette_model_info", "model") == {("test",): 1}
    with pytest.raises(OSError, match="the server broke off"):
        fetch(dying + "/")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "127.0.0.1:8002", "http://127.0.0.1:80 80", "http://one:two"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(ValueError, match=r"no http:// address|URL|port"):
        fetch(url)

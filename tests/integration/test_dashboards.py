"""Every query of every panel, asked of a real Prometheus: it has data, and it moves when something goes wrong.

One server is watched through a series of troubles, each with the panels that must tell of it. What can be seen only in
trouble, and what no trouble moves, is listed with the reason.
"""

import itertools
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families
from vedette_server.alerts import rules
from vedette_server.alerts.parts import Parameters, Record
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import commands, grafana, running, watching
from tests.support.authority import Authority
from tests.support.guarded import Tokens
from tests.support.trouble import (
    Scene,
    Traffic,
    Trouble,
    baseline,
    black,
    broken,
    burst,
    corrupted,
    crowd,
    garbled,
    intruded,
    killed,
    outdated,
    recaptured,
    refused,
    released,
    stalled,
    stilled,
    stopped,
    swapped,
    tinted,
)

pytestmark = pytest.mark.timeout(900)  # a test waits up to three times for PATIENCE
needs_prometheus = watching.needs(watching.PROMETHEUS)

WINDOWS = ("--window", "10s", "--long", "20s", "--hold", "2s", "--interval", "1s")
LEAST = ("--answers", "5", "--detections", "20")
CHOSEN = {"__rate_interval": "8s", "window": "10s", "model": "All", "version": "All", "stream": "All"}
HEALTH_SCRAPES = 35  # one a second: longer than the longest window, so that nothing of the start is left in any
PATIENCE = 240.0  # seconds; to suspect a cause, many frames must have been tried beside traffic
QUERIES = list(grafana.queries())


Result = Mapping[frozenset[tuple[str, str]], float]


@dataclass
class Watch:
    """A server under traffic, and the Prometheus that watches it."""

    scene: Scene
    prometheus: watching.Prometheus
    healthy: dict[grafana.Query, list[Result]] = field(default_factory=dict)

    def ask(self, query: grafana.Query) -> Result:
        found = self.prometheus.query(grafana.expanded(query.expression, CHOSEN))
        return {frozenset(one.labels.items()): one.value for one in found if not math.isnan(one.value)}

    def moved(self, query: grafana.Query) -> bool:
        """True if series have come or gone, or values are clearly beyond what they were in health."""
        now, before = self.ask(query), self.healthy[query]
        always = set.intersection(*(set(one) for one in before))
        ever = set.union(*(set(one) for one in before))
        if not always <= set(now) <= ever:
            return True
        for series, value in now.items():
            seen = [one[series] for one in before if series in one]
            low, high = min(seen), max(seen)
            margin = 0.5 * (high - low) + 0.1 * abs(high)
            if not low - margin <= value <= high + margin:
                return True
        return False

    def scraped(self) -> bool:
        """True if no scrape has failed lately; series that vanish with a failed one (a busy machine) mean nothing."""
        return self.prometheus.value("min_over_time(up[5s])") == 1


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("watch")
    root = folder / "repository"
    shutil.copytree(BUNDLED_REPOSITORY, root)
    baseline(root)
    (folder / "settings.toml").write_text("diagnose_share = 1.0\ngolden_seconds = 12\npoll_seconds = 1\n")
    rendered = commands.run(commands.SERVER, "rules", *WINDOWS, *LEAST, "--out", folder)
    assert rendered.returncode == 0, rendered.stderr
    authority, known, policy = Authority(folder / "authority"), Tokens(folder / "tokens"), folder / "policy.toml"
    token, pair = known.add("watcher"), authority.server()
    policy.write_text('[[rules]]\nwho = ["*"]\nmay = ["detect", "stream", "metrics", "describe"]\n')
    flags = ("--repository", str(root), "--threads", "1", "--config", str(folder / "settings.toml"))
    guards = ("--tls-cert", pair.cert, "--tls-key", pair.key, "--tokens", known.path, "--policy", policy)
    with (
        running.server(*flags, *map(str, guards), tls=authority.tls(), token=token) as server,
        watching.prometheus(
            [server.http], sorted(folder.glob("*.rules.yml")), ca=authority.path, token=token
        ) as prometheus,
        Traffic(server) as traffic,
    ):
        watched = Watch(Scene(server, traffic, root, authority, policy), prometheus)
        prometheus.wait_until_scraped(1)

        def more_than(count: int) -> Callable[[], bool]:
            return lambda: (prometheus.value("count_over_time(up[10m])") or 0) > count

        running.wait_for(more_than(HEALTH_SCRAPES), "health to be seen")
        for number in range(6):
            due = HEALTH_SCRAPES + 2 * number
            running.wait_for(more_than(due), "two scrapes more")
            for query in QUERIES:
                watched.healthy.setdefault(query, []).append(watched.ask(query))
        yield watched


def of(dashboard: str, *names: str) -> list[str]:
    return [f"{dashboard} / {name}" for name in names]


BANDS = ("Empty share in its band", "Brightness", "Contrast", "Sharpness")
# Which panels must tell of a trouble: all their queries, or the one that is named by its letter.
TOLD: dict[Trouble, list[str]] = {
    black: [
        *of("fleet", "Critical alerts", "Warnings", "Empty", "Alerts that fire", "Alerts over time"),
        *of("fleet", *("Models / A", "Models / B", "Models / D"), *("Streams / A", "Streams / B", "Streams / D")),
        *of("fleet", "Empty share by model", "Empty answers by reason"),
        *of("stream", "Empty", "Beyond the limit", "Leading reason", "Empty answers by reason"),
        *of("stream", "Alerts and suspected causes", "Findings", "Best score of each answer"),
        *of("stream", *(f"{name} / A" for name in (*BANDS, "Distance from the baseline", "Mix of classes"))),
        *of("stream", "Detections by class", "Detections per answer", "Scores of detections"),
        *of("stream", "What became of candidates"),
    ],
    tinted: of("stream", "Redness / A", "Upper half / A"),
    swapped: [*of("fleet", "Models / E", "Streams / E"), *of("stream", "Suspected cause")],
    broken: of("serving", "Requests", "Refused", "Requests by outcome", "Refusals", "Contract violations"),
    burst: [
        *of("serving", "Within a second", "Waiting", "Waiting and running", "Time of a request"),
        *of("serving", "Where the time goes", "Slow stages"),
    ],
    corrupted: [
        *of("fleet", "Golden images failing", "Models / F"),
        *of("serving", "Golden images"),
        *of("stream", "Values that are not finite"),
    ],
    killed: [
        *of("fleet", "Answers", "Versions not ready", "Models / G", "Models / I", "Streams / G"),
        *of("serving", "Workers missing", "Versions not ready", "Workers / B", "Restarts of workers", "Workers lost"),
        *of("stream", "Answers"),
    ],
    recaptured: [
        *of("fleet", "Models / C", "Streams / C", "Versions / D"),
        *of(
            "stream",
            *(f"{name} / {letter}" for name in (*BANDS, "Redness", "Upper half", "Mix of classes") for letter in "BC"),
        ),
        *of("stream", "Baseline's age", "The same in the baseline", "Distance from the baseline / B"),
    ],
    crowd: [
        *of("fleet", "Streams / F"),
        *of("serving", "Open streams", "Frames dropped", "Age of frames when answered"),
        *of("stream", "Frames dropped", "Age of frames when answered"),
    ],
    stilled: of("serving", "Without an answer"),
    refused: of("serving", "Versions refused"),
    intruded: of("serving", "Refused at the door"),
    stalled: of("serving", "Given up on the way in"),
    outdated: of("serving", "Certificates end"),
    garbled: of("serving", "Files that cannot be read"),
    released: [
        *of("fleet", "Models / H", *(f"Versions / {letter}" for letter in "ABCE")),
        *of("serving", "Workers / A"),
    ],
    stopped: of("fleet", "Servers down"),
}
UNMOVED = {
    "fleet / Alerting": "falls when Prometheus evaluates no rules, and then there is nothing to ask",
    "fleet / Releases": "changes with an installation",
    "serving / Images in a batch": "is 1 on a CPU, where batches do not pay",
    "serving / Scrapes": "is the machine's",
    "serving / Lines of the log that were lost": "takes a log that cannot be written: tests/integration/test_log.py",
    "serving / Labels folded": "takes more streams than the cap: tests/unit/test_metrics.py",
}
ONLY_IN_TROUBLE = {
    "fleet / Alerts that fire": "in health nothing fires",
    "fleet / Alerts over time": "the same",
    "stream / Alerts and suspected causes": "the same",
    "fleet / Models / E": "in health nothing is suspected",
    "fleet / Streams / E": "the same",
    "stream / Suspected cause": "the same",
    "fleet / Versions / E": "takes two versions",
    "serving / Refusals": "in health nothing is refused",
    "serving / Contract violations": "the same",
    "serving / Versions refused": "in health none is",
    "serving / Refused at the door": "in health nobody is",
    "serving / Given up on the way in": "in health nothing is",
    "fleet / Streams / F": "in health nothing is dropped",
    "serving / Frames dropped": "the same",
    "stream / Frames dropped": "the same",
    "stream / Values that are not finite": "in health all are",
}


def named(query: grafana.Query, names: Iterable[str]) -> bool:
    return any(str(query) == name or str(query).startswith(f"{name} / ") for name in names)


def test_it_is_stated_of_every_query_what_moves_it() -> None:
    stated = [*itertools.chain.from_iterable(TOLD.values()), *UNMOVED]
    assert [str(query) for query in QUERIES if not named(query, stated)] == []
    assert [name for name in (*stated, *ONLY_IN_TROUBLE) if not any(named(query, [name]) for query in QUERIES)] == []
    assert [
        str(query) for query in QUERIES if sum(named(query, names) for names in (*TOLD.values(), UNMOVED)) != 1
    ] == []


@needs_prometheus
def test_every_query_has_data_in_health(watch: Watch) -> None:
    silent = [query for query in QUERIES if not any(watch.healthy[query])]
    assert [str(query) for query in silent if not named(query, ONLY_IN_TROUBLE)] == []


@needs_prometheus
@pytest.mark.parametrize("trouble", TOLD, ids=lambda trouble: trouble.__name__)
def test_trouble_is_told_by_its_panels(watch: Watch, trouble: Trouble) -> None:
    queries = [query for query in QUERIES if named(query, TOLD[trouble])]
    await_all(queries, lambda query: not watch.moved(query) and watch.scraped(), "as in health, before")
    with trouble(watch.scene):
        await_all(queries, lambda query: watch.moved(query) and (trouble is stopped or watch.scraped()), "moved")
        silent = [query for query in queries if not any(watch.healthy[query])]
        await_all(silent, lambda query: bool(watch.ask(query)), "with data")


def await_all(queries: Iterable[grafana.Query], holds: Callable[[grafana.Query], bool], what: str) -> None:
    """Wait until it has held once of each; not of all at once, since some pass by."""
    left, deadline = set(queries), time.monotonic() + PATIENCE
    while left := {query for query in left if not holds(query)}:
        assert time.monotonic() < deadline, f"never {what}: {sorted(map(str, left))}"
        time.sleep(0.2)


def page_names(server: running.Server) -> set[str]:
    """Names of the page's samples, including those of families that have none yet."""
    endings = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum"), "counter": ("_total",)}
    families = text_string_to_metric_families(running.http(server, "/metrics")[1])
    return {family.name + ending for family in families for ending in endings.get(family.type, ("",))}


def without_texts(expression: str) -> str:
    return re.sub(r'"[^"]*"', '""', expression)


def test_every_metric_that_is_named_is_on_the_page(bundled: running.Server) -> None:
    there = page_names(bundled)
    shown = {name for query in QUERIES for name in re.findall(r"\bvedette_\w+", without_texts(query.expression))}
    asked = {
        name
        for dashboard in grafana.dashboards().values()
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
        for name in re.findall(r"\bvedette_\w+", variable["query"]["query"])
    }
    told = {
        name
        for page in (grafana.ROOT / "deploy" / "docs" / "runbooks").glob("*.md")
        for name in re.findall(r"\bvedette_\w+", page.read_text())
    }
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in there}  # as prose calls a histogram
    assert len(shown) > 30
    assert len(told) > 20
    assert sorted((shown | asked | rules.metric_names()) - there) == []
    assert sorted(told - there - families) == []


def test_every_recorded_series_that_is_named_is_recorded() -> None:
    recorded = {rule.name for rule in itertools.chain(*rules.groups(Parameters()).values()) if isinstance(rule, Record)}
    texts = [query.expression for query in QUERIES]
    texts += [page.read_text() for page in (grafana.ROOT / "deploy" / "docs" / "runbooks").glob("*.md")]
    used = {name for text in texts for name in re.findall(r"\bvedette:[a-z_]+:\w+", text)}
    assert len(used) > 5
    assert sorted(used - recorded) == []

"""The rules for Prometheus and Alertmanager's routes, as promtool, amtool and a real Alertmanager judge them."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import vedette_client.cli
import vedette_server.cli
from vedette_server.alerts import render, rules
from vedette_server.alerts.inputs import INPUTS
from vedette_server.alerts.page import written
from vedette_server.alerts.parts import Parameters, duration, seconds

from tests.rules import promtool
from tests.rules.cases import ALWAYS, CASES, bounds, usual_classes, usual_scores
from tests.rules.stories import END, ROUTES, STORIES, Story, uninhibited
from tests.rules.timeline import Case, Labels, ends, values
from tests.support import commands, watching
from tests.support.running import wait_for

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "deploy/docs/runbooks"
ALERTS = {alert.name for alert in rules.alerts(Parameters())}

PARAMETER_SETS = (
    Parameters(),
    promtool.SHORT,
    Parameters(window=20, long=60, hold=8, interval=1),
    Parameters(window=600, long=14400, hold=90, objective=0.25, job="cameras", dashboards="https://grafana.example/d/"),
)


def test_the_committed_rules_are_the_rendered_ones() -> None:
    assert (ROOT / "deploy/prometheus" / render.FILE).read_text() == render.render(Parameters())


def test_the_command_renders_other_windows(tmp_path: Path) -> None:
    flags = (
        "--window",
        "20s",
        "--long",
        "1m",
        "--hold",
        "8s",
        "--interval",
        "1s",
        "--stale-days",
        "7",
        "--out",
        tmp_path,
    )
    ran = commands.run(commands.SERVER, "rules", *flags)
    assert (ran.returncode, ran.stdout.decode()) == (0, f"{tmp_path / render.FILE}\n"), ran.stderr
    asked = Parameters(window=20, long=60, hold=8, interval=1, stale_days=7)
    assert (tmp_path / render.FILE).read_text() == render.render(asked)


@pytest.mark.parametrize(
    "flags", [("--objective", "0.7"), ("--window", "5 minutes"), ("--hold", "2h"), ("--interval", "0s")]
)
def test_the_command_refuses_what_cannot_be(flags: tuple[str, ...], tmp_path: Path) -> None:
    ran = commands.run(commands.SERVER, "rules", *flags, "--out", tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["1m30s", "5m", "250ms", "1d2h", "20s"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert duration(seconds(text)) == text


@watching.needs(watching.PROMTOOL)
@pytest.mark.parametrize("parameters", PARAMETER_SETS, ids=lambda p: p.w)
def test_promtool_finds_nothing_to_complain_about(parameters: Parameters, tmp_path: Path) -> None:
    path = tmp_path / render.FILE
    path.write_text(render.render(parameters))
    ran = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_page_of_statistics_says_what_the_tables_say() -> None:
    text = (ROOT / "deploy/docs/statistics.md").read_text()
    assert text == written(text), "run `make docs`"


@watching.needs(watching.PROMTOOL)
def test_the_example_configuration_is_one() -> None:
    subprocess.run(["promtool", "check", "config", ROOT / "deploy/prometheus/prometheus.yml"], check=True)


@watching.needs(watching.PROMTOOL)
@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_fires_stays_quiet_and_resolves(alert: str, tmp_path: Path) -> None:
    ran = promtool.run(tmp_path, [promtool.of_case(case) for case in CASES if case.alert == alert], alert)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _kinds(cases: tuple[Case, ...]) -> dict[str, set[str]]:
    """Kinds of the cases of each alert: a case in which it fires has it resolve in the end, too."""
    kinds: dict[str, set[str]] = {}
    for case in cases:
        kinds.setdefault(case.alert, set()).update({"fires", "resolves"} if case.fires else {"quiet"})
    return kinds


def test_the_table_has_every_alert_in_all_kinds() -> None:
    kinds = _kinds(CASES)
    assert set(kinds) == ALERTS
    assert {name: seen for name, seen in kinds.items() if len(seen) < 3} == {ALWAYS: {"fires", "resolves"}}


@watching.needs(watching.PROMTOOL)
@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_description_tells_the_numbers_and_the_cause(alert: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.alert == alert and case.fires)
    ask = {"eval_time": f"{ends(case.steps)[1]}s", "alertname": alert, "exp_alerts": [{"exp_labels": {"no": "such"}}]}
    series = {selector: values(selector, phases, case.steps) for selector, phases in case.series.items()}
    ran = promtool.run(tmp_path, [promtool.story(series or {"nothing": "_x20"}, alert_rule_test=[ask])], alert)
    got = ran.stdout + ran.stderr
    described = re.findall(r'description="(.*?)", runbook_url="(.*?)", summary="(.*?)"', got)
    assert described, got
    for description, runbook, summary in described:
        assert not re.search(r"<error|<no value>|%!|\{\{", description + summary)
        assert (ROOT / runbook).is_file()
        assert "Suspected cause" in description or 'severity="info"' in got or alert == ALWAYS
        assert re.search(r"\d", description) or alert in {ALWAYS, "VedetteBaselineMissing", "VedetteSuspectedCause"}


def _replicas(model: str, *shares: float) -> dict[str, str]:
    """Counts of replicas for the same traffic, each its share; all but the first are restarted on the way."""
    found = {}
    for number, share in enumerate(shares):
        rates: dict[str, float] = {"vedette_detection_score_count": 20.0}
        for edge, rate in zip(("0.5", "0.8", "0.9", "0.95", "+Inf"), (4.0, 8.0, 12.0, 16.0, 20.0), strict=True):
            rates[f'vedette_detection_score_bucket{{le="{edge}"'] = rate
        rates |= {f'vedette_detections_total{{class="{name}"': rate for name, rate in (("stop", 14), ("give", 6))}
        for stream in ("north", "south"):
            of = f'stream="{stream}"'
            rates[f"vedette_answers_total{{{of}"] = 20
            rates[f'vedette_empty_answers_total{{{of}, reason="QUIET_SCENE"'] = 6
            for one in INPUTS.values():
                rates |= {f"{one.metric}_sum{{{of}": 900, f"{one.metric}_count{{{of}": 20}
        for name, rate in rates.items():
            selector = f'{name}{", " if "{" in name else "{"}model="{model}", version="1", instance="{number}"}}'
            numbers = [rate * share * step for step in range(40)]
            if number:
                numbers[35:] = [rate * share * (step + 1) for step in range(5)]
            found[selector] = " ".join(f"{one:.12g}" for one in numbers)
    return found


@watching.needs(watching.PROMTOOL)
def test_replicas_add_up_to_one_that_saw_it_all(tmp_path: Path) -> None:
    series = {**_replicas("one", 1.0), **_replicas("two", 0.25, 0.75)}
    for model in ("one", "two"):
        known = {**usual_scores(), **usual_classes(stop=0.5, give=0.5), **bounds("empty", 0, 0.1, 0.2)}
        series |= {name.replace('"m"', f'"{model}"'): f"{rates[0]}x40" for name, rates in known.items()}
    statistics = 'vedette:statistic:window{model="%s"}'
    one, two = statistics % "one", statistics % "two"
    asks: list[dict[str, Any]] = [
        # Eight of the model, six of each of the two streams.
        {"expr": f"count({one})", "eval_time": "380s", "exp_samples": [{"labels": "{}", "value": 20}]},
        {"expr": f"count({two})", "eval_time": "380s", "exp_samples": [{"labels": "{}", "value": 20}]},
        {"expr": f"count({one} == 0) or vector(0)", "eval_time": "380s", "exp_samples": [{"labels": "{}", "value": 0}]},
        {"expr": f"abs({one} - ignoring (model) {two}) > 1e-12", "eval_time": "380s", "exp_samples": []},
    ]
    ran = promtool.run(tmp_path, [promtool.story(series, promql_expr_test=asks)])
    assert ran.returncode == 0, ran.stdout + ran.stderr


@watching.needs(watching.PROMTOOL)
def test_two_causes_of_equal_weight_do_not_flap(tmp_path: Path) -> None:
    empty = 'vedette_empty_answers_total{model="m", version="1", stream="north", reason="%s"}'
    series = {'vedette_answers_total{model="m", version="1", stream="north"}': "0+10x60"}
    for reason, odd in (("IMAGE_ROTATED", 0), ("CHANNELS_SWAPPED", 1)):
        counts = [5 * step + (step % 2 == odd) * 4 for step in range(60)]
        series[empty % reason] = " ".join(map(str, counts))
    for alert in ("VedetteModelSilenced", "VedetteStreamSilenced"):
        seen = f'count(count_over_time(ALERTS{{alertname="{alert}"}}[10m]))'
        asks = [{"expr": seen, "eval_time": "590s", "exp_samples": [{"labels": "{}", "value": 2}]}]  # pending, firing
        ran = promtool.run(tmp_path, [promtool.story(series, promql_expr_test=asks)], alert)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@watching.needs(watching.PROMTOOL)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_one_cause_notifies_once_from_its_beginning_to_its_end(story: Story, tmp_path: Path) -> None:
    ever = f"group by (alertname, cause, stream) (count_over_time(({uninhibited('critical', 'warning')})[{END}s:10s]))"
    expected = [{"labels": promtool.labelled(labels), "value": 1} for labels in story.alerts]
    ask = {"expr": ever, "eval_time": f"{END}s", "exp_samples": expected}
    ran = promtool.run(tmp_path, [promtool.story(story.samples(), promql_expr_test=[ask])])
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_metric_names_are_those_of_samples() -> None:
    names = rules.metric_names()
    assert {"vedette_answers_total", "vedette_detection_score_bucket", "vedette_baseline_state"} <= names
    assert rules.metrics_in(
        'x{vedette_baseline_state="present"} / vedette:answers:window + rate(vedette_a_total[5m])'
    ) == {"vedette_a_total"}


def test_what_rules_refer_to_is_recorded() -> None:
    text = render.render(Parameters())
    assert set(re.findall(r"vedette:\w+:\w+", text)) == rules.record_names()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == ALERTS
    index = (RUNBOOKS / "README.md").read_text()
    assert set(re.findall(r"\((\w+)\.md\)", index)) == ALERTS


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_a_runbook_names_only_what_there_is(page: Path) -> None:
    text = page.read_text()
    commands = {"vedette": vedette_client.cli.main.commands, "vedette-server": vedette_server.cli.main.commands}
    for program, command in re.findall(r"(?<![\w/-])(vedette(?:-server)?) ([a-z]+)\b(?! alert)", _code(text)):
        assert command in commands[program], f"{program} {command}"
    assert set(re.findall(r"vedette:\w+:\w+", text)) <= rules.record_names()
    assert page.stem == "README" or len(text.splitlines()) <= 45


def _code(text: str) -> str:
    """The code in a page."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def _promql() -> list[str]:
    return [
        line
        for page in RUNBOOKS.glob("*.md")
        for block in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.strip().splitlines()
        if line.strip() and not line.startswith("#")
    ]


@watching.needs(watching.PROMTOOL)
def test_the_queries_of_the_runbooks_are_promql(tmp_path: Path) -> None:
    queries = _promql()
    assert len(queries) >= len(ALERTS) - 1
    group = [{"record": f"q:{number}:x", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": group}]}))
    ran = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _labels(alert: str, **more: str) -> dict[str, str]:
    """Labels of an alert as the rules give them, with those of its series."""
    known = next(one for one in rules.alerts(Parameters()) if one.name == alert)
    cause = {"cause": known.cause} if known.cause else {}
    return {"alertname": alert, "severity": known.severity, "role": known.role, **cause, **more}


@watching.needs(watching.AMTOOL)
def test_amtool_finds_nothing_to_complain_about() -> None:
    subprocess.run(["amtool", "check-config", ROUTES], check=True, capture_output=True)


@watching.needs(watching.AMTOOL)
@pytest.mark.parametrize("alert", sorted({(one.name, one.severity) for one in rules.alerts(Parameters())}))
def test_an_alert_is_routed_by_its_severity(alert: tuple[str, str]) -> None:
    name, severity = alert
    receiver = {"critical": "pager", "warning": "team", "info": "log", "none": "watchdog"}[severity]
    labels = [f"{key}={value}" for key, value in _labels(name, severity=severity).items()]
    command = [
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={ROUTES}",
        f"--verify.receivers={receiver}",
        *labels,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


BLACK, SWAPPED = {"cause": "IMAGE_BLACK"}, {"cause": "CHANNELS_SWAPPED"}
NORTH, SOUTH = {"stream": "north"}, {"stream": "south"}

# What fires together, and which of them notify.
TOGETHER: dict[str, tuple[Sequence[Labels], set[str]]] = {
    "a black camera, alone on its model": (
        [
            _labels("VedetteModelSilenced", **BLACK),
            _labels("VedetteStreamSilenced", **BLACK, **NORTH),
            _labels("VedetteCameraDark", **NORTH),
            _labels("VedetteInputDrift", **NORTH, cause="IMAGE_TOO_DARK"),
            _labels("VedetteInputDrift", cause="IMAGE_TOO_DARK"),
            _labels("VedetteScoreDrift"),
        ],
        {"VedetteModelSilenced"},
    ),
    "a black camera, one of many": (
        [
            _labels("VedetteStreamSilenced", **BLACK, **NORTH),
            _labels("VedetteCameraDark", **NORTH),
            _labels("VedetteInputDrift", **NORTH, cause="IMAGE_TOO_DARK"),
        ],
        {"VedetteCameraDark"},
    ),
    "two streams, each with its trouble": (
        [_labels("VedetteCameraDark", **NORTH), _labels("VedetteStreamSilenced", **SWAPPED, **SOUTH)],
        {"VedetteCameraDark", "VedetteStreamSilenced"},
    ),
    "single images with a suspected cause do not silence a stream": (
        [_labels("VedetteSuspectedCause", **SWAPPED), _labels("VedetteStreamSilenced", **BLACK, **SOUTH)],
        {"VedetteSuspectedCause", "VedetteStreamSilenced"},
    ),
    "no worker": (
        [
            _labels("VedetteNoModelReady"),
            _labels("VedetteWorkersFlapping"),
            _labels("VedetteOverload"),
            _labels("VedetteLatencyBurn", severity="critical"),
            _labels("VedetteModelSilenced", **BLACK),
        ],
        {"VedetteNoModelReady"},
    ),
    "workers that stand still": (
        [
            _labels("VedetteStuck", instance="a"),
            _labels("VedetteWorkersFlapping"),
            _labels("VedetteOverload"),
            _labels("VedetteLatencyBurn", severity="critical"),
        ],
        {"VedetteStuck"},
    ),
    "workers without memory": (
        [
            _labels("VedetteOutOfMemory"),
            _labels("VedetteWorkersFlapping"),
            _labels("VedetteLatencyBurn", severity="warning"),
        ],
        {"VedetteOutOfMemory"},
    ),
    "a certificate that ends in a day": (
        [_labels("VedetteCertificateExpires", severity=which, instance="a") for which in ("critical", "warning")],
        {"VedetteCertificateExpires critical"},
    ),
    "NaN weights": (
        [
            _labels("VedetteNonFinite"),
            _labels("VedetteGoldenFailing", cause="NON_FINITE_VALUES"),
            _labels("VedetteModelSilenced", cause="NON_FINITE_VALUES"),
            _labels("VedetteStreamSilenced", cause="NON_FINITE_VALUES", **NORTH),
            _labels("VedetteClassMixDrift"),
        ],
        {"VedetteGoldenFailing"},
    ),
    "classes in another order": (
        [
            _labels("VedetteVersionDisagrees", predecessor="1"),
            _labels("VedetteClassMixDrift"),
            _labels("VedetteClassSilent", **{"class": "stop"}),
        ],
        {"VedetteVersionDisagrees"},
    ),
    "a warning silences no page": (
        [
            _labels("VedetteSuspectedCause", **SWAPPED, **NORTH),
            _labels("VedetteModelSilenced", **BLACK),
            _labels("VedetteOverload"),
            _labels("VedetteNonFinite"),
        ],
        {"VedetteSuspectedCause", "VedetteModelSilenced", "VedetteOverload", "VedetteNonFinite"},
    ),
    "a page of silence, told by its cause": (
        [_labels("VedetteModelSilenced", **SWAPPED), _labels("VedetteSuspectedCause", **SWAPPED, **NORTH)],
        {"VedetteModelSilenced"},
    ),
    "slow from overload": (
        [_labels("VedetteLatencyBurn", severity="warning"), _labels("VedetteOverload")],
        {"VedetteOverload"},
    ),
    "slow at once": (
        [
            _labels("VedetteLatencyBurn", severity="critical"),
            _labels("VedetteLatencyBurn", severity="warning"),
            _labels("VedetteOverload"),
        ],
        {"VedetteLatencyBurn critical"},
    ),
    "dusk over all cameras": (
        [_labels("VedetteInputDrift", cause="IMAGE_TOO_DARK", **which) for which in ({}, NORTH, SOUTH)],
        {"VedetteInputDrift"},
    ),
    "one class gone": (
        [
            _labels("VedetteClassSilent", **{"class": "stop"}),
            _labels("VedetteClassMixDrift"),
            _labels("VedetteScoreDrift"),
        ],
        {"VedetteClassSilent"},
    ),
}


@pytest.fixture(scope="module")
def judge() -> Any:
    """Says which alerts a real Alertmanager lets notify; one process, models apart."""
    with watching.alertmanager(ROUTES.read_text()) as alertmanager:

        def judged(together: Sequence[Labels], model: str) -> Callable[[], list[Labels]]:
            named = [
                {**labels, "model": model, **({} if "NoModelReady" in labels["alertname"] else {"version": "2"})}
                for labels in together
            ]
            body = json.dumps([{"labels": labels} for labels in named]).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{alertmanager.url}/api/v2/alerts", body, headers)  # noqa: S310  our own
            urllib.request.urlopen(request).close()  # noqa: S310  our own

            def seen() -> list[dict[str, Any]] | None:
                found = [one for one in alertmanager.alerts() if one["labels"].get("model") == model]
                return found if len(found) == len(named) else None

            wait_for(seen, "the alerts")
            return lambda: [one["labels"] for one in seen() or () if not one["status"]["inhibitedBy"]]

        yield judged


@watching.needs(watching.ALERTMANAGER)
@pytest.mark.parametrize("name", TOGETHER)
def test_one_cause_notifies_once(name: str, judge: Any) -> None:
    together, expected = TOGETHER[name]
    notifying = judge(together, name)
    wait_for(lambda: len(notifying()) <= len(expected), "the others to be inhibited")
    left = notifying()
    known = {labels["alertname"] for labels in left} | {f"{one['alertname']} {one['severity']}" for one in left}
    assert expected <= known
    assert len(left) == len(expected), left


@watching.needs(watching.ALERTMANAGER)
def test_where_no_server_is_up_nothing_else_notifies() -> None:
    with watching.alertmanager(ROUTES.read_text()) as alertmanager:
        down = [_labels("VedetteServerDown", scope="all"), _labels("VedetteServerDown", scope="instance", instance="a")]
        rest = [_labels(name, model="m", **BLACK) for name in ("VedetteModelSilenced", "VedetteOverload")]
        body = json.dumps([{"labels": labels} for labels in [*down, *rest, _labels(ALWAYS)]]).encode()
        request = urllib.request.Request(  # noqa: S310  our own
            f"{alertmanager.url}/api/v2/alerts", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()  # noqa: S310  our own
        wait_for(lambda: len(alertmanager.alerts()) == 5, "the alerts")

        def notifying() -> list[str]:
            return sorted(
                one["labels"]["alertname"] for one in alertmanager.alerts() if not one["status"]["inhibitedBy"]
            )

        wait_for(lambda: notifying() == ["VedetteServerDown", ALWAYS], "the others to be inhibited")

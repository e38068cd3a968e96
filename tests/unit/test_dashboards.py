import copy
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support import commands, grafana
from tests.support.watching import PROMTOOL, needs

GRAFANA, DOCKER = grafana.FOLDER, grafana.ROOT / "deploy" / "docker"
BUILT_IN = {"__rate_interval"}
CHOSEN = {"__rate_interval": "1m", "window": "5m", "model": "signs", "version": "1", "stream": "All"}
KINDS = {
    "timeseries": "timeseries",
    "stat": "stat",
    "table": "table",
    "heatmap": "heatmap",
    "state-timeline": "statetimeline",
}
COMPOSE = DOCKER / "compose.yaml"


@pytest.fixture(params=grafana.dashboards().items(), ids=lambda named: named[0])
def dashboard(request: pytest.FixtureRequest) -> Any:
    return request.param[1]


def test_the_committed_files_are_what_the_code_generates(tmp_path: Path) -> None:
    ran = commands.run(commands.SERVER, "dashboards", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in grafana.FILES}
    for path in grafana.FILES:
        assert path.read_text() == (tmp_path / path.name).read_text(), "run make rules"


def test_without_the_sdk_the_command_says_what_to_install(tmp_path: Path) -> None:
    entry = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None; from vedette_commands import start; start.server()"
    )
    command = [sys.executable, "-c", entry, "dashboards", "--out", str(tmp_path / "dashboards")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    told = "vedette-server: Grafana's SDK is not installed: python -m pip install 'vedette[dashboards]'\n"
    assert (ran.returncode, ran.stderr) == (1, told)
    assert not list(tmp_path.iterdir())


def test_the_extra_and_the_development_group_have_the_same_sdk() -> None:
    project = tomllib.loads((grafana.ROOT / "pyproject.toml").read_text())
    (sdk,) = project["project"]["optional-dependencies"]["dashboards"]
    assert sdk in project["dependency-groups"]["dev"]


def lost(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Where the first has something that the second has not; the classes may add defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from lost(*pair, f"{where}[{index}]")
    elif before != after:
        yield f"{where}: {before} became {after}"


def test_nothing_is_lost_in_the_sdks_own_classes(dashboard: Any) -> None:
    plugins.register_default_plugins()
    read = Dashboard.from_json(copy.deepcopy(dashboard))
    assert not list(lost(dashboard, json.loads(json.dumps(read, cls=JSONEncoder))))


def test_there_are_the_three_dashboards_that_the_alerts_link_to() -> None:
    assert {one["uid"] for one in grafana.dashboards().values()} == {
        "vedette-fleet",
        "vedette-stream",
        "vedette-serving",
    }


def test_every_panel_explains_itself_and_states_its_unit(dashboard: Any) -> None:
    for panel in grafana.panels(dashboard):
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for asks in (panel, *panel["targets"]):
            assert asks["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_have_numbers_and_places_of_their_own(dashboard: Any) -> None:
    assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, len(dashboard["panels"]) + 1))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    taken = {
        (x, y)
        for place in places
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    }
    assert len(taken) == sum(place["w"] * place["h"] for place in places)
    assert max(x for x, _ in taken) < 24
    titles = [panel["title"] for panel in grafana.panels(dashboard)]
    assert len(titles) == len(set(titles))


def test_no_query_uses_a_variable_that_is_not_there(dashboard: Any) -> None:
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = {
        name
        for panel in grafana.panels(dashboard)
        for target in panel["targets"]
        for name in grafana.variables(target["expr"])
    }
    assert used <= known | BUILT_IN
    assert known - {"datasource"} <= used


def test_a_table_names_no_column_that_its_queries_do_not_have(dashboard: Any) -> None:
    for panel in grafana.panels(dashboard):
        if panel["type"] != "table":
            continue
        refs = [target["refId"] for target in panel["targets"]]
        values = {f"Value #{ref}" for ref in refs} if len(refs) > 1 else {"Value"}
        renamed = panel["transformations"][-1]["options"]["renameByName"]
        labels = set(renamed) - values
        asked = " ".join(target["expr"] for target in panel["targets"])
        for label in labels:
            assert re.search(rf"\b{label}\b", asked) or "ALERTS" in asked, label
        assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} == set(
            renamed.values()
        )


@needs(PROMTOOL)
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"q:{index}", "expr": grafana.expanded(query.expression, CHOSEN)}
        for index, query in enumerate(grafana.queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", "--lint=none", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def type_checker() -> Path:
    """TypeScript and Grafana's types, installed once from the committed lock."""
    folder = grafana.ROOT / "build" / "dashboards"
    lock = GRAFANA / "package-lock.json"
    stamp = folder / "installed"
    if not stamp.is_file() or stamp.read_text() != lock.read_text():
        folder.mkdir(parents=True, exist_ok=True)
        for path in (lock, GRAFANA / "package.json"):
            shutil.copy(path, folder)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(lock.read_text())
    return folder


TYPES = "@grafana/schema/dist/esm/raw"
HEAD = """\
import type * as schema from "{types}/dashboard/x/dashboard_types.gen.d.ts";
{imports}
// JSON has strings where the types have enums.
type Json<T> = T extends string ? `${{T}}` : T extends (infer U)[] ? Json<U>[]
  : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
type Defaults<Custom> = Omit<Json<schema.FieldConfig>, "custom"> & {{ custom?: Json<Custom> }};
type Kind<Type, Options, Custom> = Omit<Json<schema.Panel>, "type" | "options" | "fieldConfig"> & {{
  type: Type;
  options?: Json<Options>;
  fieldConfig: Omit<Json<schema.FieldConfigSource>, "defaults"> & {{ defaults: Defaults<Custom> }};
}};
type Panel = Json<schema.RowPanel>
{kinds};
type Dashboard = Omit<Json<schema.Dashboard>, "panels"> & {{ panels: Panel[] }};
"""


def source() -> str:
    """Every dashboard as a literal of Grafana's type, and broken ones that must not pass."""
    imports = "\n".join(
        f'import type * as {name} from "{TYPES}/composable/{name}/panelcfg/x/{file}_types.gen.d.ts";'
        for name, file in (
            ("timeseries", "TimeSeriesPanelCfg"),
            ("stat", "StatPanelCfg"),
            ("table", "TablePanelCfg"),
            ("heatmap", "HeatmapPanelCfg"),
            ("statetimeline", "StateTimelinePanelCfg"),
        )
    )
    kinds = "\n".join(
        f'  | Kind<"{kind}", {name}.Options, {"{}" if kind == "stat" else f"{name}.FieldConfig"}>'
        for kind, name in KINDS.items()
    )
    parts = [HEAD.format(types=TYPES, imports=imports, kinds=kinds)]
    for name, dashboard in grafana.dashboards().items():
        literal = json.dumps(dashboard)
        parts.append(f"const {name}: Json<schema.Dashboard> = {literal};")
        parts.append(f"const {name}OfKnownPanels: Dashboard = {literal};")
        for number, broken in enumerate(mutations(dashboard)):
            parts.append(f"// @ts-expect-error\nconst {name}Broken{number}: Dashboard = {json.dumps(broken)};")
    return "\n".join(parts) + "\nexport {};\n"


def mutations(dashboard: Any) -> list[Any]:
    """Faults that the check must find, which proves that it looks."""
    broken = [copy.deepcopy(dashboard) for _ in range(4)]
    panels = [next(panel for panel in grafana.panels(one) if panel["type"] == "timeseries") for one in broken]
    broken[0]["schemaVersion"] = str(dashboard["schemaVersion"])
    panels[1]["titel"] = panels[1].pop("title")
    panels[2]["fieldConfig"]["defaults"]["custom"]["lineWidth"] = "2"
    panels[3]["options"]["legend"]["displayMode"] = "tabel"
    return broken


@pytest.mark.skipif(shutil.which("npm") is None and not os.environ.get("CI"), reason="not installed: npm")
def test_grafanas_own_types_accept_the_dashboards() -> None:
    folder = type_checker()
    (folder / "check.ts").write_text(source())
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"]
    modules = ["--module", "esnext", "--moduleResolution", "bundler"]
    command = [str(folder / "node_modules" / ".bin" / "tsc"), *flags, *modules, "check.ts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:4000]


def test_the_lock_names_no_host() -> None:
    assert "://" not in (GRAFANA / "package-lock.json").read_text()


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def test_everything_is_published_on_the_loopback_alone(compose: Any) -> None:
    published = [port for service in compose["services"].values() for port in service["ports"]]
    assert len(published) >= len(compose["services"])
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_server_is_open_only_where_it_is_published_on_the_loopback(compose: Any) -> None:
    service = compose["services"]["vedette"]
    image = json.loads((DOCKER / "Dockerfile").read_text().rsplit("CMD ", 1)[1])
    assert service["command"] == [*image, "--insecure"], "the image itself starts with TLS and identities alone"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_images_are_pinned(compose: Any) -> None:
    images = [service["image"] for service in compose["services"].values() if "image" in service]
    images += re.findall(r"^FROM (\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert len(images) == len(compose["services"])
    assert all(re.search(r":v?\d+\.\d+", image) for image in images), images


def test_what_is_mounted_is_there(compose: Any) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service["volumes"]]
    for source, *_ in mounts:
        assert (DOCKER / source).exists() if source.startswith(".") else source in compose["volumes"], source


def test_grafana_is_given_the_dashboards_and_the_data_source(compose: Any) -> None:
    service = compose["services"]["grafana"]
    mounted = {
        target: (DOCKER / source).resolve() for source, target, *_ in (one.split(":") for one in service["volumes"])
    }
    provisioning = mounted["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "vedette.yaml").read_text())["providers"]
    assert mounted[provider["options"]["path"]] == GRAFANA / "dashboards"
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounted[str(home.parent)] / home.name).is_file()
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "${PROMETHEUS_URL}"
    assert service["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"


@needs(PROMTOOL)
def test_prometheus_accepts_its_configuration_and_reads_the_server(compose: Any, tmp_path: Path) -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    command = (DOCKER / "Dockerfile").read_text().rsplit("CMD ", 1)[1]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert f"0.0.0.0:{port}" in json.loads(command)
    assert {host, "alertmanager"} <= set(compose["services"])
    for service in ("prometheus", "alertmanager"):
        mounts = (one.split(":") for one in compose["services"][service]["volumes"])
        for source, target, *_ in mounts:
            if source.startswith("."):
                shutil.copy(DOCKER / source, tmp_path / Path(target).name)
    config["rule_files"] = [str(tmp_path / Path(path).name) for path in config["rule_files"]]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run([PROMTOOL, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_copies_only_what_is_there_and_what_is_let_in() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    let_in = [
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    assert sorted(copied) == sorted(let_in)
    assert all((grafana.ROOT / name).exists() for name in copied)

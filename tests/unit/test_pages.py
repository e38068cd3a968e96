"""The generated pages of the documentation are what their tables say: `make docs` writes them."""

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import pytest
import vedette_client.cli
import vedette_client.page
import vedette_commands.page
import vedette_server.cli
from vedette_server import docstrings, settings_page
from vedette_server.alerts import alerts_page, rules
from vedette_server.alerts.parts import Parameters
from vedette_server.contract.loading import Check
from vedette_server.contract.refusal import Reason
from vedette_server.explain.findings import Code
from vedette_server.monitor import page as metrics_page
from vedette_server.repository.repository import LimitSettings, ModelSettings
from vedette_server.settings import Settings

DOCS = Path(__file__).parents[2] / "deploy/docs"
COMMANDS = {"vedette": vedette_client.cli.main, "vedette-server": vedette_server.cli.main}
HEADING = re.compile(r"^## (\w+)$", re.MULTILINE)
# Words in capitals that are neither a reason, a finding nor a check.
WORDS = {"LATEST", "LOSSLESS", "UNAVAILABLE", "NOT_SERVING", "SIGTERM", "SIGQUIT", "VEDETTE_DEVICE"}


def _protos() -> str:
    program = DOCS.parents[1] / "protos/page.py"
    return subprocess.run([sys.executable, program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("settings", settings_page.page),
        ("commands", lambda: vedette_commands.page.page([*COMMANDS.values()])),
        ("python", vedette_client.page.page),
        ("protos", _protos),
        ("metrics", metrics_page.page),
        ("alerts", alerts_page.page),
    ],
)
def test_a_generated_page_is_what_its_table_says(name: str, page: Callable[[], str]) -> None:
    assert (DOCS / f"{name}.md").read_text() == page(), "run `make docs`"


def test_every_setting_and_parameter_has_a_meaning() -> None:
    assert docstrings.of_fields(Settings).keys() == Settings.model_fields.keys()
    assert docstrings.of_fields(Parameters).keys() == {field.name for field in dataclasses.fields(Parameters)}


def test_what_pages_show_of_model_toml_is_read() -> None:
    blocks = [
        block for page in DOCS.rglob("*.md") for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    settings = [msgspec.toml.decode(block, type=ModelSettings) for block in blocks if "[limits]" in block]
    assert any(one.waivers and one.limits != LimitSettings() for one in settings)


def test_every_command_has_a_section() -> None:
    page = (DOCS / "commands.md").read_text()
    for program, group in COMMANDS.items():
        assert all(f"\n## {program} {name}\n" in page for name in group.commands)


@pytest.mark.parametrize("program", COMMANDS)
def test_every_option_says_what_it_is_for(program: str) -> None:
    options = [(name, one) for name, command in COMMANDS[program].commands.items() for one in command.params]
    assert not [
        f"{name} {one.opts[0]}"
        for name, one in options
        if isinstance(one, click.Option) and not (one.help or "").strip()
    ]


def test_every_public_name_has_a_section() -> None:
    page = (DOCS / "python.md").read_text()
    of_videos = ["SkipReason", "Skipped", "Video", "VideoFrame"]
    assert sorted(HEADING.findall(page)) == sorted([*vedette_client.__all__, *of_videos])


def test_every_name_in_a_signature_has_a_section() -> None:
    """Users annotate with the names that they read there, but for what Python and NumPy have already."""
    page, package = (DOCS / "python.md").read_text(), Path(vedette_client.__file__).parent
    nodes = [node for path in package.glob("*.py") for node in ast.parse(path.read_text()).body]
    ours = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
    ours |= {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    named = {
        word for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) for word in re.findall(r"\w+", block)
    }
    assert (named & ours) - {"Array", "PathLike"} <= set(HEADING.findall(page))


def test_the_rules_read_only_metrics_that_have_a_row() -> None:
    """Samples of histograms and summaries have suffixes that their families have not."""
    rows = set(re.findall(r"^\| `(\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in rules.metric_names()}
    assert families <= rows


def test_the_page_of_failures_names_every_alert_and_nothing_else() -> None:
    page = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"\[(Vedette\w+)\]", page)) == {alert.name for alert in rules.alerts(Parameters())}
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})`", page))
    assert named - WORDS <= {*Reason, *Check, *Code}
    for program, command in re.findall(r"`(vedette(?:-server)?) (\w+)", page):
        assert command in COMMANDS[program].commands

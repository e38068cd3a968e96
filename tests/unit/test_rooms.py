"""The rooms: the import linter's floors hold all of them, and the map and the rules leave none out."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVING = {
    "app",
    "cli",
    "rpc",
    "settings_page",
    "triton",
}  # what speaks gRPC or its messages, what composes it, and the commands' own page


@pytest.fixture(scope="module")
def contracts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return found


@pytest.fixture(scope="module")
def rooms(contracts: list[dict[str, Any]]) -> set[str]:
    """Return the modules of the server, as its floors list them."""
    (floors,) = [one for one in contracts if one["type"] == "layers"]
    assert floors["exhaustive"], "the import linter refuses a module without a floor"
    return {room.strip() for floor in floors["layers"] for room in floor.split("|")}


def test_the_map_names_every_room_and_no_other(rooms: set[str]) -> None:
    map_ = (
        (ROOT / "ARCHITECTURE.md").read_text().partition("    server/vedette_server/\n")[2].partition("    deploy/")[0]
    )
    named = re.findall(r"^ {8}([a-z_, /]+?)  ", map_, re.MULTILINE)
    assert {name.strip(" /") for names in named for name in names.split(",")} == rooms


def test_the_rule_about_grpc_leaves_out_none_but_those_that_serve(
    contracts: list[dict[str, Any]], rooms: set[str]
) -> None:
    (rule,) = [one for one in contracts if one["name"].startswith("gRPC")]
    assert {name.removeprefix("vedette_server.") for name in rule["source_modules"]} == rooms - SERVING

"""The layout of tests/: what tests share has packages of its own, so that each test module stands alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, and every name that it takes from one, with the module before it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_imports_a_test(module: Path) -> None:
    parts = (name.split(".") for name in imported(TESTS / module))
    assert not [part for part in parts if part[0] == "tests" and any(name.startswith("test_") for name in part)]


def test_only_what_pytest_looks_for_lies_beside_the_packages() -> None:
    assert {path.name for path in TESTS.glob("*.py")} == {"__init__.py", "conftest.py"}

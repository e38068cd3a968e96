"""House rules for classes, held by their syntax: one name each, arguments by name, and a reason for length."""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HALVES = {
    "server": ("server/vedette_server", "client/vedette_commands"),
    "client": ("client/vedette_client", "client/vedette_commands"),
}
LARGEST = 200  # lines
MOST_FIELDS = 4  # of a dataclass made by position
SUBJECTS = 2  # that a larger one may take by position, before `_: KW_ONLY`


def classes(*packages: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield each class of these packages, with its place."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def by_position(node: ast.ClassDef) -> int | None:
    """Return the number of fields of a dataclass that are made by position; None for any other class."""
    decorators = [ast.unparse(one) for one in node.decorator_list if ast.unparse(one).startswith("dataclass")]
    if not decorators:
        return None
    fields = [ast.unparse(one.annotation) for one in node.body if isinstance(one, ast.AnnAssign)]
    fields = [field for field in fields if not field.startswith("ClassVar")]
    if "kw_only=True" in decorators[0]:
        return 0
    marked = fields.index("KW_ONLY") if "KW_ONLY" in fields else None
    return len(fields) if marked is None or marked > SUBJECTS else 0


@pytest.mark.parametrize("half", HALVES)
def test_no_two_classes_of_a_half_share_a_name(half: str) -> None:
    places = collections.defaultdict(list)
    for place, node in classes(*HALVES[half]):
        places[node.name].append(place)
    assert not [found for found in places.values() if len(found) > 1]


def test_a_dataclass_of_many_fields_is_made_by_keyword() -> None:
    found = {place: by_position(node) for place, node in classes("server", "client")}
    assert len([count for count in found.values() if count is not None]) > 100, "dataclasses are recognised"
    assert not [place for place, count in found.items() if (count or 0) > MOST_FIELDS]


def test_a_long_class_says_why_it_is_long() -> None:
    long = [
        (place, " ".join((ast.get_docstring(node) or "").split()))
        for place, node in classes("server", "client")
        if (node.end_lineno or 0) - node.lineno >= LARGEST
    ]
    assert not [place for place, docstring in long if "long because" not in docstring]


@pytest.mark.parametrize(
    ("decorator", "fields", "count"),
    [
        ("@dataclass", "a: int; b: int; c: int; d: int; e: int", 5),
        ("@dataclass(frozen=True)", "a: int; b: ClassVar[int] = 0", 1),
        ("@dataclass(kw_only=True)", "a: int; b: int; c: int; d: int; e: int", 0),
        ("@dataclass", "a: int; _: KW_ONLY; b: int; c: int; d: int; e: int", 0),
        ("@dataclass", "a: int; b: int; c: int; d: int; _: KW_ONLY; e: int", 6),
        ("@final", "a: int", None),
    ],
)
def test_fields_made_by_position_are_counted(decorator: str, fields: str, count: int | None) -> None:
    (node,) = ast.parse(f"{decorator}\nclass One: {fields}").body
    assert isinstance(node, ast.ClassDef)
    assert by_position(node) == count

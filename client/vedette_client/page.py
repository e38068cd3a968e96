"""The public names as a page for users, written by `make docs` from the source; a test compares the two."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import TypeAlias

import vedette_client

_HEAD = """\
# Python SDK

`vedette_client` needs neither torch nor Detectron2. `Client` and `AsyncClient` are the way in; all else is what they
take and return. Options of `detect`, `stream` and `diagnose` are keywords. A wrong name or kind is an error before
anything is sent. `SkipReason`, `Skipped`, `Video` and `VideoFrame` are in `vedette_client.video`, and need
`vedette[video]`.

```python
from vedette_client import Client

with Client("127.0.0.1:8001") as client:
    for found in client.detect("build/demo/pictures/stop-001.png"):
        print(found.class_name, found.score, found.box)
```

`make docs` writes this page from the docstrings.
"""
_FIRST = ("Client", "AsyncClient")
_OPTIONAL = dict.fromkeys(  # what needs PyAV is apart
    ("SkipReason", "Skipped", "Video", "VideoFrame"), "vedette_client.video"
)
_CONSTANT = re.compile(r"(?<== )[A-Z][A-Z_]+\b")
_REMARK = re.compile(r"  # noqa.*")

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """Return the page as Markdown."""
    homes = _homes() | _OPTIONAL
    modules = {home: _Module(importlib.import_module(home)) for home in set(homes.values())}
    names = [*_FIRST, *sorted({*vedette_client.__all__, *_OPTIONAL} - set(_FIRST))]
    return _HEAD + "".join(modules[homes[name]].section(name) for name in names)


def _homes() -> dict[str, str]:
    """Return the module that defines each public name."""
    return {
        alias.name: node.module
        for node in ast.parse(inspect.getsource(vedette_client)).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


class _Module:
    """The source of a module, by the names that it defines."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        source = inspect.getsource(module)
        self._lines = source.splitlines()
        self._nodes = {name: node for node in ast.parse(source).body for name in _defines(node)}

    def section(self, name: str) -> str:
        """Return the section on a name."""
        node = self._nodes[name]
        parts = self._class(node) if isinstance(node, ast.ClassDef) else _block(self._slice(node))
        return "\n" + "\n\n".join((f"## {name}", *parts)) + "\n"

    def _class(self, node: ast.ClassDef) -> list[str]:
        nodes = [*self._with_bases(node)]
        fields = [
            line
            for one in nodes
            for field in one.body
            if isinstance(field, ast.AnnAssign)
            for line in self._slice(field)
        ]
        methods = [part for one in node.body if isinstance(one, _Function) for part in self._method(node.name, one)]
        return [*_extends(nodes), *_told(node), *_block(fields), *methods]

    def _with_bases(self, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
        """Return a class with those of its bases that have no section, the most general first."""
        for base in _bases(node):
            if base not in vedette_client.__all__ and isinstance(found := self._nodes.get(base), ast.ClassDef):
                yield from self._with_bases(found)
        yield node

    def _method(self, owner: str, method: _Function) -> list[str]:
        if method.name == "__init__":
            return self._signature(method)
        if method.name.startswith("_"):
            return []
        return [f"### {owner}.{method.name}", *self._signature(method), *_told(method)]

    def _signature(self, method: _Function) -> list[str]:
        is_property = any("property" in ast.unparse(one) for one in method.decorator_list)
        lines = _dedented(self._lines[method.lineno - 1 : method.body[0].lineno - 1])
        return _block(["@property"] * is_property + [self._valued(line) for line in lines])

    def _valued(self, line: str) -> str:
        """Return a line of a signature with the values of its constants."""
        return _CONSTANT.sub(lambda found: repr(getattr(self._module, found[0])), _REMARK.sub("", line))

    def _slice(self, node: ast.stmt) -> list[str]:
        """Return the lines of a statement, with the comments at their ends."""
        return _dedented(self._lines[node.lineno - 1 : node.end_lineno])


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef):
        return [node.name]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def _extends(nodes: list[ast.ClassDef]) -> list[str]:
    bases = [base for node in nodes for base in _bases(node) if base in vedette_client.__all__]
    return [f"Extends [{base}](#{base.lower()})." for base in bases]


def _told(node: ast.ClassDef | _Function) -> list[str]:
    told = ast.get_docstring(node)
    return [told] if told else []


def _dedented(lines: list[str]) -> list[str]:
    return textwrap.dedent("\n".join(lines)).splitlines()


def _block(lines: list[str]) -> list[str]:
    return ["\n".join(("```python", *lines, "```"))] if lines else []


if __name__ == "__main__":
    print(page(), end="")

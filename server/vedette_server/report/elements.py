"""HTML and SVG made of elements: whatever a caller has named is escaped, wherever it stands."""

from collections.abc import Iterable
from typing import TypeAlias
from xml.etree import ElementTree as ET

Element: TypeAlias = ET.Element
Child: TypeAlias = "Element | str | Iterable[Child] | None"


def el(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element; `class_` is the attribute class, `aria_label` is aria-label, None is left out."""
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else f"{value:g}"
            made.set(name.rstrip("_").replace("_", "-"), shown)
    _add(made, children)
    return made


def _add(parent: Element, children: Iterable[Child]) -> None:
    for child in children:
        if child is None:
            continue
        if isinstance(child, ET.Element):
            parent.append(child)
        elif not isinstance(child, str):
            _add(parent, child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + child
        else:
            parent.text = (parent.text or "") + child


def table(caption: str | None, head: Iterable[Child], rows: Iterable[Iterable[Child]]) -> Element:
    """A table whose first column names its rows, wide ones in a box that scrolls."""
    body = [el("tr", el("th", first, scope="row"), [el("td", cell) for cell in rest]) for first, *rest in rows]
    heads = el("tr", [el("th", cell, scope="col") for cell in head])
    made = el("table", el("caption", caption) if caption else None, el("thead", heads), el("tbody", body))
    return el("div", made, class_="scroll")


def document(root: Element) -> str:
    """The whole page."""
    return "<!DOCTYPE html>\n" + ET.tostring(root, "unicode", method="html") + "\n"

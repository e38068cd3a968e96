"""The tables of deploy/docs/statistics.md, written from what was measured."""

import re
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

PAGE = Path(__file__).parents[2] / "deploy/docs/statistics.md"


def write(tables: Mapping[str, Table]) -> None:
    """Put each table where the page has a comment with its name; the table there ends at the next empty line."""
    text = PAGE.read_text()
    for name, table in tables.items():
        marker = f"<!-- {name} -->\n"
        assert marker in text, f"{PAGE.name} has no {marker}"
        before, _, after = text.partition(marker)
        text = before + marker + markdown(table) + re.sub(r"\A(\|.*\n)*", "", after)
    PAGE.write_text(text)


def markdown(table: Table) -> str:
    """A table in Markdown."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    head, *rows = (" | ".join(" ".join(cell.split()) for cell in row) for row in zip(*columns, strict=True))
    return "".join(f"| {line} |\n" for line in (head, " | ".join(["---"] * len(columns)), *rows))

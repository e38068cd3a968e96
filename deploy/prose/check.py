"""Check the rules of our prose that textlint has no rule for.

Documents have short sentences on average, runbooks have four sections, and docstrings begin with what a thing is.
"""

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST_WORDS = 20  # on average in a sentence of one document
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
_SENTENCE_END = re.compile(r"[.!?][\"')]*\s+(?=[A-Z0-9\"'(])")
_INDIRECT = re.compile(r"(What|Whether|How|Which)\b")


def sentences(text: str) -> list[str]:
    """Return the sentences of a document's paragraphs and list items; headings, tables and code blocks have none."""
    tokens = MarkdownIt().enable("table").parse(text)
    paragraphs = [_words(inline) for before, inline in itertools.pairwise(tokens) if before.type == "paragraph_open"]
    return [sentence for paragraph in paragraphs for sentence in _SENTENCE_END.split(paragraph) if sentence.strip()]


def _words(inline: Token) -> str:
    """Return a paragraph's text; each word of code becomes `Code`, so that no dot in it ends a sentence."""
    texts = {"softbreak": " ", "hardbreak": " "}
    return "".join(
        re.sub(r"\S+", "Code", token.content) if token.type == "code_inline" else texts.get(token.type, token.content)
        for token in inline.children or ()
        if token.type != "html_inline"
    )


def sentence_faults(text: str) -> Iterator[str]:
    """Yield a fault if the sentences of a document are too long on average."""
    found = sentences(text)
    words = sum(len(sentence.split()) for sentence in found)
    if words >= MOST_WORDS * len(found) > 0:
        yield f"1: {words / len(found):.1f} words per sentence on average; fewer than {MOST_WORDS} are allowed"


def section_faults(text: str) -> Iterator[str]:
    """Yield a fault if the sections of a runbook are not those of every runbook, in their order."""
    tokens = MarkdownIt().parse(text)
    found = [tokens[at + 1].content for at, token in enumerate(tokens) if token.tag == "h2" and token.nesting == 1]
    if found != SECTIONS:
        yield f"1: the sections of a runbook are {', '.join(SECTIONS)}, not {', '.join(found) or 'none'}"


def docstring_faults(source: str) -> Iterator[str]:
    """Yield a fault for each docstring that begins with an indirect question."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            opening = _INDIRECT.match(ast.get_docstring(node) or "")
            if opening:
                yield f"{node.body[0].lineno}: a docstring says what a thing does or is; it begins with {opening[0]}"


def faults(path: Path) -> Iterator[str]:
    """Yield the faults of one file, each with its line."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from docstring_faults(text)
    else:
        yield from sentence_faults(text)
        if path.parent.name == "runbooks" and path.stem != "README":
            yield from section_faults(text)


def files() -> list[Path]:
    """Return the documents and the Python files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "*.md", "*.py"], check=True, capture_output=True, text=True)  # noqa: S607
    return [Path(line) for line in listed.stdout.splitlines()]


def main() -> int:
    """Print every fault of the given files, or of all; return 1 if there is any."""
    paths = [Path(argument) for argument in sys.argv[1:]] or files()
    found = [f"{path}:{fault}" for path in paths for fault in faults(path)]
    print("".join(f"{line}\n" for line in found), end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

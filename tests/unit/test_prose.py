"""The rules of prose that `make lint` holds, each by a fault that breaks it."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = "deploy/prose/check.py"
SHORT = "The server answers. It does so at once.\n\n"
LONG = f"This sentence {'goes on and ' * 8}never ends.\n\n"
CODE = f"`a.B` {'`c. D` ' * 20}is one sentence.\n\n"
UNCOUNTED = f"# {LONG}\n| {LONG.strip()} |\n| - |\n| {LONG.strip()} |\n\n```\n{LONG}```\n\n"
RUNBOOK = "".join(f"## {section}\n\nIt is short.\n\n" for section in ("Meaning", "Impact", "Diagnosis", "Mitigation"))


def said(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ran = subprocess.run([sys.executable, CHECK, path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (bool(ran.stdout), "")
    return ran.stdout.replace(f"{path}:", "")


@pytest.mark.parametrize(("text", "average"), [
    (SHORT, None),
    (LONG, 28.0),
    (LONG + SHORT, None),  # 12 on average
    (f"- {LONG}- {LONG}", 28.0),
    (CODE, 44.0),
    (UNCOUNTED, None),
    (f"Read\n{LONG}", 29.0),
])  # fmt: skip
def test_sentences_are_short_on_average(tmp_path: Path, text: str, average: float | None) -> None:
    fault = f"1: {average} words per sentence on average; fewer than 20 are allowed\n" if average else ""
    assert said(tmp_path / "page.md", text) == fault


@pytest.mark.parametrize(("page", "text", "found"), [
    ("runbooks/VedetteX.md", RUNBOOK, None),
    ("runbooks/VedetteX.md", RUNBOOK.replace("Impact", "Causes"), "Meaning, Causes, Diagnosis, Mitigation"),
    ("runbooks/VedetteX.md", SHORT, "none"),
    ("runbooks/README.md", SHORT, None),
    ("x.md", SHORT, None),
])  # fmt: skip
def test_runbooks_have_four_sections(tmp_path: Path, page: str, text: str, found: str | None) -> None:
    fault = f"1: the sections of a runbook are Meaning, Impact, Diagnosis, Mitigation, not {found}\n" if found else ""
    assert said(tmp_path / page, text) == fault


@pytest.mark.parametrize(("docstring", "opening"), [
    ("Return what is found.", None),
    ("Whatever is found.", None),
    ("What is found.", "What"),
    ("Whether it is found.", "Whether"),
    ("How it is found.", "How"),
    ("Which one is found.", "Which"),
])  # fmt: skip
def test_docstrings_begin_with_what_a_thing_is(tmp_path: Path, docstring: str, opening: str | None) -> None:
    told = f'"""{docstring}"""'
    source = f"{told}\n\nclass A:\n    {told}\n\n    async def b(self):\n        {told}\n\ndef c():\n    {told}\n"
    fault = f"a docstring says what a thing does or is; it begins with {opening}"
    expected = [f"{line}: {fault}" for line in (1, 4, 10, 7)] if opening else []
    assert said(tmp_path / "code.py", source).splitlines() == expected

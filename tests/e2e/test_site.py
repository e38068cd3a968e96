"""The documentation as a site: it builds without a warning or a network, and a broken link fails the build."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "deploy/docs"
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")
FROM_ELSEWHERE = re.compile(
    r"""(?:<(?:script|img|iframe)[^>]+src|<link[^>]+href|url\(|@import)\s*=?\s*["'(]?(?:https?:)?//"""
)


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs-site` does."""
    recipe = subprocess.run(["make", "--dry-run", "docs-site"], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in recipe.stdout.splitlines() if " -m sphinx " in line)
    options = line.split(" -m sphinx ")[1].split()[:-2]
    command = [sys.executable, "-m", "sphinx", *options, "--conf-dir", str(DOCS), str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    folder = tmp_path_factory.mktemp("site")
    ran = build(DOCS, folder)
    assert ran.returncode == 0, ran.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")} >= pages
    assert len(pages) > 50


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("architecture", "The path of one frame"),
        ("changelog", "Unreleased"),
        ("contributing", "What a change brings with it"),
        ("weaknesses", "Report a vulnerability to the maintainers in private"),
    ],
)
def test_the_site_has_the_pages_of_the_root_whole(site: Path, page: str, words: str) -> None:
    assert words in (site / f"{page}.html").read_text()


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not FROM_ELSEWHERE.search(path.read_text()), path


def test_every_fault_fails_the_build(tmp_path: Path) -> None:
    """A link to no page, no heading or no file, what Sphinx does not know, and a page that no menu has."""
    source = tmp_path / "source"
    source.mkdir()
    faults = ("[a](no-page.md)", "[a](index.md#no-heading)", "[a](../no-file.yml)", "```{no-directive}\n```")
    (source / "index.md").write_text("\n\n".join(("# A page", *faults)))
    (source / "no-menu.md").write_text("# Another\n")
    ran = build(source, tmp_path / "target")
    assert ran.returncode != 0
    assert set(re.findall(r"\bno-\w+", ran.stderr)) >= {"no-page", "no-heading", "no-file", "no-directive", "no-menu"}


def links() -> Iterator[tuple[str, str]]:
    """Every relative link of the pages at the root."""
    for page in ROOT.glob("*.md"):
        for target in LINK.findall(page.read_text()):
            yield page.name, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_a_link_of_a_page_at_the_root_leads_somewhere(page: str, target: str) -> None:
    path, heading = urldefrag(target)
    assert (ROOT / path).exists(), page
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE) if heading else []
    assert not heading or heading in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings]

"""The site of these pages, for Sphinx: `make docs-site` builds it without a network, and every warning is an error."""

import re
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
# Pages of the repository's root. What stands here under these names links to them; the site has them whole.
AT_THE_ROOT = {
    "architecture": "ARCHITECTURE.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "weaknesses": "SECURITY.md",
}
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")

project = "Vedette"
project_copyright = "The Vedette authors, Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # links to headings work here as they do where the repository is shown
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # Pygments' PromQL knows no colons in names
html_theme = "furo"
html_title = "Vedette"
html_copy_source = False
html_show_sphinx = False


def from_here(link: re.Match[str]) -> str:
    """Return a link of a page at the root as it is written here."""
    path, hash_, heading = link[1].partition("#")
    names = {file: f"{page}.md" for page, file in AT_THE_ROOT.items()}
    here = path.removeprefix("deploy/docs/") if path.startswith("deploy/docs/") else names.get(path, f"../../{path}")
    return f"]({here}{hash_}{heading})"


def read(_: Sphinx, page: str, source: list[str]) -> None:
    """Put a page of the root in its place."""
    if page in AT_THE_ROOT:
        source[0] = RELATIVE_LINK.sub(from_here, (DOCS.parents[1] / AT_THE_ROOT[page]).read_text())


def setup(app: Sphinx) -> None:
    """Register with Sphinx."""
    app.connect("source-read", read)

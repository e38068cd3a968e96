"""Build and install a pure-Python wheel of Detectron2 v0.6, unless another detectron2 is installed already.

Run it with the interpreter of the environment that is to have it, after torch is there:

    python deploy/detectron2/build.py [--wheel-dir build/wheels]

The sources come from the public sdist pinned by hash in sdist.txt, which holds upstream's Python package without
its C++ sources. MENDS below is all that is changed in them; _C.py takes the place of the compiled module.
"""

import argparse
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_OURS = "+vedette."  # in the version of a wheel that this script made


@dataclass(frozen=True)
class Mend:
    """One textual change to upstream's sources, and why it is needed."""

    pattern: str
    replacement: str
    reason: str
    places: int  # how often it must match; another number means that the sources are not the ones we know


MENDS = (
    Mend(
        pattern=r"\bImage\.LINEAR\b",
        replacement="Image.BILINEAR",
        reason="Pillow 10 removed the alias Image.LINEAR of Image.BILINEAR",
        places=1,
    ),
    Mend(
        pattern=r"\bnp\.(bool|int|float|str)\b",
        replacement=r"\1",
        reason="NumPy 1.24 removed these aliases of Python's own types",
        places=19,
    ),
    Mend(
        pattern=r"^import pkg_resources$",
        replacement="import importlib.resources",
        reason="setuptools 82 removed pkg_resources, and a wheel should not need setuptools to run",
        places=1,
    ),
    Mend(
        pattern=r"pkg_resources\.resource_filename\(\s*\"detectron2\.model_zoo\", (.*)\s*\)$",
        replacement=r'str(importlib.resources.files("detectron2.model_zoo") / \1)',
        reason="the same: the model zoo's configs are found through importlib.resources",
        places=1,
    ),
    Mend(
        pattern=r"torch\.meshgrid\((shifts_y, shifts_x)\)",
        replacement=r'torch.meshgrid(\1, indexing="ij")',
        reason="torch warns when the indexing is left to its default, which is this one",
        places=1,
    ),
    Mend(
        pattern=r"^( +)torch\.arange\(width, dtype=offsets\.dtype, device=offsets\.device\),$",
        replacement=r'\g<0>\n\1indexing="ij",',
        reason="the same, in projects.panoptic_deeplab",
        places=1,
    ),
    Mend(
        pattern=r"get_norm\(norm, 1\)",
        replacement="get_norm(norm, 32)",
        reason="torch refuses a GroupNorm of 1 channel, which FCOS's head makes for its type alone",
        places=1,
    ),
    Mend(
        pattern=r"^from panopticapi\.utils import rgb2id$",
        replacement="try:\n    from panopticapi.utils import rgb2id\nexcept ImportError:\n    rgb2id = None",
        reason="panopticapi is in no package index; projects.panoptic_deeplab needs it to train, not to infer",
        places=1,
    ),
)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run one command, or stop with its exit status."""
    subprocess.run(command, check=True, cwd=cwd)  # noqa: S603  our own fixed commands


def unpack_sources(scratch: Path) -> Path:
    """Fetch the pinned sdist, check its hash and unpack it; returns its root folder."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    # No build isolation: pip asks the sdist for its metadata, and its setup.py imports torch.
    flags = ("--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes")
    run(*pip, "download", *flags, "--requirement", str(HERE / "sdist.txt"), "--dest", str(scratch))
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(scratch)  # noqa: S202  its hash is pinned; Debian 12's Python has no filters yet
    (root,) = (path for path in scratch.iterdir() if path.is_dir())
    return root


def mend(package: Path) -> None:
    """Apply every mend, and fail if one matches another number of places than it must."""
    files = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    for change in MENDS:
        places = 0
        for path, text in files.items():
            files[path], count = re.subn(change.pattern, change.replacement, text, flags=re.MULTILINE)
            places += count
        if places != change.places:
            msg = f"{change.pattern!r} matched {places} places instead of {change.places}: not the known sources"
            raise SystemExit(msg)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


def lay_out(root: Path, tree: Path) -> None:
    """Lay the package out as hatchling expects it: projects inside, our stand-in and metadata beside."""
    package = tree / "detectron2"
    shutil.copytree(root / "detectron2", package, ignore=shutil.ignore_patterns("__pycache__"))
    for project in (root / "projects").glob("*/*/__init__.py"):
        shutil.copytree(project.parent, package / "projects" / project.parent.name)
    mend(package)
    shutil.copy(HERE / "_C.py", package)
    shutil.copy(HERE / "pyproject.toml", tree)
    shutil.copy(root / "LICENSE", tree)


def build_wheel(wheel_dir: Path) -> Path:
    """Build the wheel into `wheel_dir` and return its path."""
    for old in wheel_dir.glob("detectron2-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        lay_out(unpack_sources(Path(scratch)), tree)
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheel_dir.resolve()), cwd=tree)
    (wheel,) = wheel_dir.glob("detectron2-*.whl")
    return wheel


def _installed() -> str | None:
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return None


def _ours() -> str:
    version: str = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def main() -> None:
    """Build and install, unless there is this detectron2 already, or one that its user built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel-dir", type=Path, default=Path("build/wheels"))
    arguments = parser.parse_args()
    if (installed := _installed()) and (installed == _ours() or _OURS not in installed):
        print(f"detectron2 {installed} is installed already, left alone")
        return
    wheel = build_wheel(arguments.wheel_dir)
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", str(wheel))
    print(f"detectron2 installed from {wheel}")


if __name__ == "__main__":
    main()

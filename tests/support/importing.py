"""The command that imports a model, run on a small config."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from vedette_server.predictor.config import plain

from tests.support import running
from tests.support.families import CLASSES, config


def write_config(folder: Path, family: str = "mask_rcnn", **changes: Any) -> Path:
    cfg = config(family)
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(plain(cfg)))
    return path


def run_import(
    folder: Path, weights: Path, *flags: str, cfg: Path | None = None, classes: str = ",".join(CLASSES)
) -> subprocess.CompletedProcess[str]:
    whole = command(folder, weights, cfg or write_config(folder), classes, *flags)
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def command(folder: Path, weights: Path, cfg: Path, classes: str, *flags: str) -> list[str]:
    return [
        *(str(running.BIN / "vedette-server"), "import", "model", "--config", str(cfg), "--weights", str(weights)),
        *("--repository", str(folder / "repository"), "--classes", classes, *flags),
    ]


# A process that has imported all that the command needs, and becomes it, in a fork, for each line that it reads.
_PARENT = """
import os, sys
from vedette_server.cli import main
import vedette_server.importer
for _ in sys.stdin:
    if not (child := os.fork()):
        os.close(1)
        os.close(2)
        main(sys.argv[1:])
    print(child, flush=True)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # a process still, so that a late signal meets no other
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Forked:
    """The command, started again and again without its seconds of imports."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent

    def begin(self) -> int:
        """Start the command; returns its process."""
        return int(self._exchange())

    def end(self) -> int:
        """Wait for the command to end; returns its wait status."""
        return int(self._exchange())

    def _exchange(self) -> str:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.write("\n")
        self._parent.stdin.flush()
        return self._parent.stdout.readline()


@contextlib.contextmanager
def forked(run: list[str]) -> Iterator[Forked]:
    """Offer a command, given as `command` returns it, to be started often."""
    whole = [sys.executable, "-c", _PARENT, *run[1:]]
    with subprocess.Popen(whole, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        yield Forked(parent)

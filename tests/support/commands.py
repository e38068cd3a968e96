"""The two commands as processes of their own, started as their entry points start them."""

import os
import subprocess
import sys
from typing import Any

CLIENT, SERVER = "client", "server"


def start(which: str, *arguments: str | os.PathLike[str] | bytes, **options: Any) -> subprocess.Popen[bytes]:
    """Start one; the pipes are those of `options`."""
    entry = f"from vedette_commands.start import {which}; {which}()"
    return subprocess.Popen([sys.executable, "-c", entry, *arguments], **options)


def run(
    which: str,
    *arguments: str | os.PathLike[str] | bytes,
    given: bytes | None = None,
    patience: float = 120,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run one to its end."""
    source = {"stdin": subprocess.DEVNULL} if given is None else {"stdin": subprocess.PIPE}
    wanted = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **source, **options}
    with start(which, *arguments, **wanted) as process:
        try:
            out, err = process.communicate(given, timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out or b"", err or b"")

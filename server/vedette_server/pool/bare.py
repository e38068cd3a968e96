"""Substitutes for things that libraries expect and bare containers lack: a temporary folder, a home, a user name.

Detectron2's dependencies ask for all three at import, although a worker writes no files. With a read-only root and no
mounts, none of them exists, and the import would fail.
"""

import getpass
import os
import tempfile
from pathlib import Path

_NOBODY = "vedette"
_NOWHERE, _TORCH = "/nonexistent", "TORCHINDUCTOR_CACHE_DIR"


def settle() -> None:
    """Set a substitute for each missing thing, so that libraries can be imported; nothing is written there."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        folder = tempfile.tempdir = str(Path.cwd())
        if not Path(os.environ.get(_TORCH, _NOWHERE)).is_dir():
            os.environ[_TORCH] = folder  # torch creates a folder of its own at import
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry for the user
        home = Path()
    if not home.is_dir() or not os.access(home, os.W_OK):
        os.environ["HOME"] = folder
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = _NOBODY

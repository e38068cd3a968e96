"""What libraries take for granted and a bare container lacks: a folder for temporary files, a home, a user's name.

Detectron2's parts ask for all three as they are imported, though a worker writes no file. With a read-only root and
nothing mounted there is none of them, and the import would fail.
"""

import getpass
import os
import tempfile
from pathlib import Path

_NOBODY = "vedette"
_NOWHERE, _TORCH = "/nonexistent", "TORCHINDUCTOR_CACHE_DIR"


def settle() -> None:
    """Name something in the place of what is lacking, so that libraries can be imported; nothing is written there."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        folder = tempfile.tempdir = str(Path.cwd())
        if not Path(os.environ.get(_TORCH, _NOWHERE)).is_dir():
            os.environ[_TORCH] = folder  # torch makes one of its own as it is imported
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

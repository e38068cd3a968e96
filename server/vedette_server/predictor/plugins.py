"""A Detectron2 project's own modules, such as detectron2.projects.point_rend, imported for models that need them.

Importing a module runs it, so that happens only if its name was given to `vedette-server` as --plugin.
"""

import importlib
import re
from collections.abc import Sequence
from types import ModuleType

from detectron2.config import CfgNode

from vedette_server.contract.loading import Check, LoadRefusedError

_MEND = "correct it: `python -c 'import …'` in this environment shows where it fails"
_EXTENDS = re.compile(r"add_\w*config")  # Detectron2's convention for functions that add a project's keys to a config


def load(names: Sequence[str]) -> list[ModuleType]:
    """Import modules by name, which registers their parts with Detectron2.

    Raises `LoadRefusedError`: PLUGIN_MISSING.
    """
    return [_import(name) for name in names]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise LoadRefusedError(Check.PLUGIN_MISSING, f"{type(error).__name__}: {error}") from error
    except (Exception, SystemExit) as error:  # a program may raise anything
        raise LoadRefusedError(Check.PLUGIN_MISSING, _failure(name, error), _MEND) from error


def extend(config: CfgNode, names: Sequence[str]) -> None:
    """Add the keys of each module's project to a config, through the functions that the module provides."""
    for module in load(names):
        for name, function in vars(module).items():
            if not _EXTENDS.fullmatch(name):
                continue
            try:
                function(config)
            except (Exception, SystemExit) as error:  # a program may raise anything
                raise LoadRefusedError(
                    Check.PLUGIN_MISSING, _failure(f"{module.__name__}.{name}", error), _MEND
                ) from error


def _failure(name: str, error: BaseException) -> str:
    return f"{name} fails ({type(error).__name__}: {' '.join(str(error).split())})"

"""Imports torchvision without torch's compiler, which takes as long as all the rest of torch and is not used here.

Its RoIAlign imports one function of `torch._dynamo.utils`, and with it the compiler and SymPy. It calls that function
only on a GPU in torch's deterministic mode. A stand-in defers the import to that call, and is gone again afterwards:
whoever imports the compiler later gets the compiler.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo.utils"


class _Deferred(ModuleType):
    """Stands in for the module while torchvision is imported."""

    @staticmethod
    def is_compile_supported(device: Any) -> Any:  # noqa: ANN401  torch's own signature
        """Ask the module itself."""
        return importlib.import_module(_NAME).is_compile_supported(device)

    def __getattr__(self, name: str) -> object:
        """Import the module for whatever else is asked of it, but for what `inspect` asks of every module."""
        if name.startswith("__"):
            raise AttributeError(name)
        _remove(self)
        return getattr(importlib.import_module(_NAME), name)


def _remove(stand_in: ModuleType) -> None:
    if sys.modules.get(_NAME) is stand_in:
        del sys.modules[_NAME]


def import_torchvision() -> None:
    """Import torchvision's operators, before anything else does."""
    importlib.import_module("torch")
    stand_in = _Deferred(_NAME)
    sys.modules.setdefault(_NAME, stand_in)
    try:
        importlib.import_module("torchvision.ops")
    finally:
        _remove(stand_in)

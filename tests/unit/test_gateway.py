"""The dependencies of the gateway and the client."""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, pkgutil, sys
import {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not module.name.startswith({apart}):
        importlib.import_module(module.name)
print([name for name in ("torch", "detectron2", "{other}") if name in sys.modules])
"""

APART = "predictor", "importer", "check", "demo", "triton"


@pytest.mark.parametrize(("package", "other", "apart"), [
    # What is left out are programs of their own: workers run the predictor, Triton what is exported, and the rest
    # train, import and check models.
    ("vedette_server", "vedette_client", tuple(f"vedette_server.{name}" for name in APART)),
    ("vedette_client", "vedette_server", ()),
])  # fmt: skip
def test_the_whole_package_loads_neither_torch_nor_detectron2(package: str, other: str, apart: tuple[str, ...]) -> None:
    script = SCRIPT.format(package=package, other=other, apart=apart or ("-",))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

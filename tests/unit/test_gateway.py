"""The dependencies of the gateway, of workers and of the client."""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, pathlib, sys
import {package}
root = pathlib.Path({package}.__file__).parent
names = [".".join(file.relative_to(root.parent).with_suffix("").parts) for file in sorted(root.rglob("*.py"))]
assert len(names) > 20
for name in names:
    if not name.startswith({apart}):
        importlib.import_module(name.removesuffix(".__init__"))
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


WORKER = """
import sys
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import defaults
from vedette_server.predictor.predictor import load
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

(version,) = repository.read(BUNDLED_REPOSITORY)
predictor = load(version.folder, version.contract, "cpu", 1)
image = (version.folder / "golden" / version.golden[0].name).read_bytes()
assert len(predictor.predict(SentImage(EncodedImage(), image), defaults(version.contract)).detections)
print([name for name in ("torch._dynamo", "torch._dynamo.utils", "sympy") if name in sys.modules])

asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
from torch._dynamo.utils import counters, is_compile_supported
assert asked is is_compile_supported("cpu")
"""


def test_a_worker_loads_and_runs_a_model_without_torchs_compiler() -> None:
    """Importing it takes as long as all the rest of torch. Whoever asks for it later has the real one."""
    ran = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr

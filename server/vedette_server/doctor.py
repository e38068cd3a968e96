"""Checks of the server's environment, for `vedette-server doctor`.

torch and detectron2 are imported by name, within their checks, so that the doctor works without them.
"""

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vedette_server import settings
from vedette_server.repository import repository

_INSTALL = "run `make demo` once, which installs everything, or see deploy/detectron2/"


@dataclass(frozen=True)
class Examination:
    """The result of a check: what was seen, and a fix."""

    name: str
    passed: bool
    seen: str
    fix: str


def checks() -> Iterator[Examination]:
    """Run every check, ordered by dependency."""
    for name, look, fix in (
        ("Python", _python, "use Python 3.11 or newer"),
        ("torch", _torch, _INSTALL),
        (
            "torchvision's operators",
            _torchvision,
            "install the torchvision that matches this torch: 0.26.0 for 2.11.0",
        ),
        ("detectron2", _detectron2, _INSTALL),
        (
            "devices",
            _devices,
            "set --device or VEDETTE_DEVICE to devices that torch sees, or install NVIDIA's driver",
        ),
        ("kernel", _kernel, "run on Linux 5.3 or newer: the server needs memfd_create and pidfds"),
        ("model repository", _repository, "check VEDETTE_REPOSITORY, and the repository's layout in the README"),
    ):
        yield _check(name, look, fix)


def _check(name: str, look: Callable[[], str], fix: str) -> Examination:
    try:
        return Examination(name, passed=True, seen=look(), fix=fix)
    except Exception as error:  # noqa: BLE001  any error is shown
        return Examination(name, passed=False, seen=f"{type(error).__name__}: {error}", fix=fix)


def _python() -> str:
    return platform.python_version()


def _torch() -> str:
    torch = importlib.import_module("torch")
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return f"{torch.__version__}, devices: {', '.join(['cpu', *devices])}"


def _torchvision() -> str:
    torch = importlib.import_module("torch")
    ops = importlib.import_module("torchvision.ops")
    kept = ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    return f"{importlib.import_module('torchvision').__version__}, nms keeps {len(kept)} box of 1"


def _detectron2() -> str:
    compiled = importlib.import_module("detectron2._C").get_compiler_version()
    return f"{importlib.import_module('detectron2').__version__}, operators: {compiled}"


def _devices() -> str:
    """Use each configured device once, with an operator that a CPU build lacks."""
    torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
    seen = []
    for device in settings.load({}).devices:
        ops.nms(torch.zeros(1, 4, device=device), torch.ones(1, device=device), 0.5).tolist()
        card = torch.cuda.get_device_properties(device) if torch.device(device).type == "cuda" else None
        seen.append(f"{device} ({card.name}, {card.total_memory / 2**30:.0f} GiB)" if card else device)
    return ", ".join(seen)


def _kernel() -> str:
    os.close(os.memfd_create("vedette-doctor"))
    os.close(os.pidfd_open(os.getpid()))
    return f"{platform.release()}, memfd_create and pidfd_open work"


def _repository() -> str:
    chosen = settings.load({})
    models = repository.read(chosen.repository, chosen.plugins)
    return ", ".join(f"{model.name} version {model.version}" for model in models)

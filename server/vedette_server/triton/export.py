"""The export of a model version as a repository of Triton, for its Python backend.

MODEL/config.pbtxt                  Triton's configuration, all of it
MODEL/VERSION/model.py              what Triton runs: `vedette_server.triton.model`
MODEL/VERSION/repository/           a model repository with this version alone
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as config_pb

from vedette_server.repository.repository import ModelVersion, RepositoryError
from vedette_server.rpc import model_config

REPOSITORY = "repository"  # the folder with our own files, within Triton's version
# Parameters of the configuration, for the program.
THREADS, PLUGINS, GOLDEN_SECONDS, DIAGNOSE_SHARE = "threads", "plugins", "golden_seconds", "diagnose_share"
_CONFIG, _PROGRAM = "config.pbtxt", "model.py"
_FIRST_GARBLED = 2  # major version of NumPy, whose arrays the backend of Triton 2.51 hands over as garbage
_NEEDED = ("vedette_server", "tritonclient", "detectron2", "torchvision", "numpy")
_ASKED = """
import importlib.util, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("it has no " + ", ".join(missing))
import numpy
print(numpy.__version__)
"""
_MOST_SECONDS = 120.0  # for that; a cold disk is slow
_GPU = re.compile(r"cuda:(\d+)")
# The same inputs without texts, which the protocol has too.
_WITHOUT_TEXTS = {"ENCODED": ("TYPE_UINT8", [-1]), "CLASSES_FILTER": ("TYPE_INT64", [-1])}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and with what Triton runs a model."""

    environment: Path  # a Python environment that has the package
    devices: tuple[str, ...]
    instances: int  # per device
    threads: int  # per instance
    golden_seconds: float  # between two rounds of golden images; 0: only at loading
    diagnose_share: float  # of the time, for diagnoses while there is traffic; 0: none


def export(model: ModelVersion, out: Path, placement: Placement) -> Path:
    """Write a version as a model of Triton into the repository `out`, whole or not at all; return its folder.

    Raises `RepositoryError` if it exists, or the environment lacks what is needed.
    """
    target = out / model.name
    if target.exists():
        msg = f"{target} exists: remove it, or choose another folder"
        raise RepositoryError(msg)
    config = text_format.MessageToString(_config(model, placement))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as scratch:
        folder = Path(scratch, model.name)
        version = folder / str(model.version)
        kept = version / REPOSITORY / model.name
        kept.mkdir(parents=True)
        shutil.copytree(model.folder, kept / str(model.version))
        if (settings := model.folder.parent / "model.toml").exists():
            shutil.copy(settings, kept)
        shutil.copy(Path(__file__).parent / _PROGRAM, version)
        (folder / _CONFIG).write_text(config)
        folder.rename(target)
    return target


def _config(model: ModelVersion, placement: Placement) -> config_pb.ModelConfig:
    """Return the configuration: the one that our own server shows, and where Triton runs it."""
    config = model_config.config(model).config
    config.backend, config.platform = "python", ""
    if _numpy(placement.environment) >= _FIRST_GARBLED:
        _replace_texts([*config.input, *config.output])
    gpus = _gpus(placement.devices)
    kind = config_pb.ModelInstanceGroup.KIND_GPU if gpus else config_pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, gpus=gpus, count=placement.instances)
    parameters = {
        "EXECUTION_ENV_PATH": str(placement.environment),
        THREADS: str(placement.threads),
        GOLDEN_SECONDS: str(placement.golden_seconds),
        DIAGNOSE_SHARE: str(placement.diagnose_share),
        PLUGINS: " ".join(model.contract.plugins),
    }
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def _gpus(devices: Sequence[str]) -> list[int]:
    """Return the numbers of the GPUs; none for the CPU. Raises `RepositoryError`."""
    found = [_GPU.fullmatch(device) for device in devices]
    if [*devices] == ["cpu"]:
        return []
    if not all(found):
        msg = f"Triton runs models on cpu, or on GPUs such as cuda:0,cuda:1, not on {','.join(devices)!r}"
        raise RepositoryError(msg)
    return [int(one[1]) for one in found if one]


def _replace_texts(tensors: Iterable[config_pb.ModelInput | config_pb.ModelOutput]) -> None:
    """Describe texts as numbers: inputs as their other form, outputs as the bytes of their elements, packed."""
    for one in tensors:
        if one.data_type == config_pb.TYPE_STRING:
            kind, shape = _WITHOUT_TEXTS.get(one.name, ("TYPE_UINT8", [-1]))
            one.data_type = config_pb.DataType.Value(kind)
            one.dims[:] = shape


def _numpy(environment: Path) -> int:
    """Return the major version of an environment's NumPy, asked of its own Python. Raises `RepositoryError`."""
    python = environment / "bin" / "python"
    if not python.is_file() or not (environment / "bin" / "activate").is_file():
        msg = f"{environment} is no virtual environment: it needs bin/python, and bin/activate, which Triton reads"
        raise RepositoryError(msg)
    try:
        command = [str(python), "-E", "-c", _ASKED, *_NEEDED]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_MOST_SECONDS)  # noqa: S603  the operator's own
        return int(ran.stdout.partition(".")[0])
    except subprocess.CalledProcessError as error:
        told = (error.stderr.strip().splitlines() or ["it told nothing"])[-1]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        told = str(error)
    msg = f"{environment} lacks what the model needs, vedette[server,triton] and Detectron2: {told}"
    raise RepositoryError(msg)

"""NVIDIA's real `tritonserver`, which `make triton` installs, and environments for the models that it runs."""

import contextlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import vedette
import vedette_client
import vedette_server

from tests.support import commands, running

INSTALLED = Path(__file__).parents[2] / "build" / "triton"  # NumPy 1 lies there, too
_SERVER = INSTALLED / "pytriton" / "tritonserver"
_STUB = _SERVER / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
_PYTHON = "/usr/bin/python3.11"  # of Debian, whose library the stub is linked to
_SHARED = Path("/dev/shm")  # noqa: S108  where Triton has its shared memory


def require() -> None:
    """Skip a test where there is no Triton, but never where all must be tested."""
    if not _STUB.exists() and "CI" not in os.environ:
        pytest.skip("needs `make triton`")


def environment(folder: Path, *first: Path) -> Path:
    """Make a virtual environment of Debian's Python that has what this one has, but for what `first` has."""
    subprocess.run([_PYTHON, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = (vedette_server, vedette_client, vedette)
    ours = [Path(next(iter(package.__path__))).parent for package in packages]
    (site,) = folder.glob("lib/python3.*/site-packages")
    paths = [*first, *ours, sysconfig.get_path("purelib")]
    (site / "tests.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder


def export(name: str, ours: Path, out: Path, environment: Path, settings: str) -> None:
    """Export a model of our repository, by the command that users have, with a file of these settings."""
    config = environment / "vedette.toml"
    config.write_text(settings)
    line = [name, "--repository", str(ours), "--out", str(out), "--env", str(environment), "--config", str(config)]
    ran = commands.run(commands.SERVER, "export-triton", *line)
    assert ran.returncode == 0, ran.stderr


@dataclass(frozen=True)
class Triton:
    """A running `tritonserver`."""

    address: str  # of gRPC
    metrics: str  # the address of the page
    log: Path

    def page(self) -> str:
        with urllib.request.urlopen(self.metrics) as response:  # noqa: S310  our own server
            text: str = response.read().decode()
            return text


@contextlib.contextmanager
def server(repository: Path, *flags: str) -> Iterator[Triton]:
    """Start Triton on free ports, wait until its page answers, and leave nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        backend = Path(folder, "backends", "python")
        shutil.copytree(_SERVER / "backends" / "python", backend)
        shutil.copy(_STUB, backend)
        (backend / _STUB.name).chmod(0o755)
        grpc, http, metrics = (running.free_port() for _ in range(3))
        prefix = f"vedette-{os.getpid()}-{grpc}-"
        command = [
            *(str(_SERVER / "bin" / "tritonserver"), f"--model-repository={repository}"),
            *(f"--backend-directory={backend.parent}", f"--backend-config=python,shm-region-prefix-name={prefix}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}", "--http-address=127.0.0.1", f"--http-port={http}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={metrics}", "--exit-timeout-secs=10", *flags),
        ]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {"LD_LIBRARY_PATH": str(INSTALLED / "nvidia_pytriton.libs")}
        log_path = Path(folder, "log")
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        try:
            triton = Triton(f"127.0.0.1:{grpc}", f"http://127.0.0.1:{metrics}/metrics", log_path)
            started = running.wait_for(
                lambda: "Started Metrics Service" in log_path.read_text() or process.poll() is not None, "Triton"
            )
            assert started, "it waits until then"
            assert process.poll() is None, log_path.read_text()
            yield triton
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for left in _SHARED.glob(f"{prefix}*"):
                left.unlink()

"""A want of memory is named: from what programs raise, from how processes end, from the kernel's own count."""

import errno
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from vedette_server.contract import encoded
from vedette_server.pool import oom


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=repr,
)
def test_what_says_that_memory_was_lacking(error: Exception) -> None:
    assert oom.lacked(error)
    outer = ValueError("the model cannot be loaded")
    outer.__cause__ = error
    assert oom.lacked(outer)
    assert not oom.lacked(ValueError("another matter"))


_STARVED = """
import resource, sys
from vedette_server.contract import encoded
from vedette_server.contract.image import EncodedImage
data = sys.stdin.buffer.read()
encoded.size(data)  # the codec is imported
resource.setrlimit(resource.RLIMIT_DATA, (1, 1))
encoded.decode(EncodedImage(), data, 3)
"""


@pytest.mark.parametrize("codec", encoded.CODECS)
def test_a_picture_for_which_memory_is_lacking_is_not_called_broken(codec: str) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (4000, 3000)).save(picture, codec)
    command = [sys.executable, "-c", _STARVED]
    ended = subprocess.run(command, input=picture.getvalue(), capture_output=True, check=False)
    assert b"MemoryError" in ended.stderr.splitlines()[-1]


def counted(root: Path, version: int, within: str, kills: int) -> oom.Kills:
    """The kernel's files as they lie in a container that sees its group's path, or does not."""
    own = root / "own"
    own.write_text("0::/pod/server\n" if version == 2 else "9:memory:/pod/server\n0::/\n")
    file = root / within / "memory.events" if version == 2 else root / "memory" / within / "memory.oom_control"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"under_oom 0\noom 7\noom_kill {kills}\n")
    return oom.Kills(root, own)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("within", ["pod/server", ""])
def test_the_kernels_count_is_claimed_once_for_each(tmp_path: Path, version: int, within: str) -> None:
    kills = counted(tmp_path, version, within, 3)
    assert not kills.claim(), "those before the start are nobody's"
    counted(tmp_path, version, within, 5)
    assert [kills.claim() for _ in range(3)] == [True, True, False]


def test_where_the_kernel_says_nothing_nothing_is_claimed(tmp_path: Path) -> None:
    assert not oom.Kills(tmp_path, tmp_path / "nothing").claim()


def test_how_a_process_ends_for_want_of_memory(tmp_path: Path) -> None:
    kills = counted(tmp_path, 2, "pod/server", 0)
    assert oom.ended(oom.EXIT_STATUS, kills, by_us=False, limit=False)
    assert not oom.ended(-signal.SIGKILL, kills, by_us=False, limit=False), "whoever has killed it, not the kernel"
    counted(tmp_path, 2, "pod/server", 1)
    assert not oom.ended(-signal.SIGKILL, kills, by_us=True, limit=False)
    assert oom.ended(-signal.SIGKILL, kills, by_us=False, limit=False)
    assert oom.ended(-signal.SIGSEGV, kills, by_us=False, limit=True)
    assert not oom.ended(-signal.SIGSEGV, kills, by_us=False, limit=False)

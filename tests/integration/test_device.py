"""A device that cannot be used is named, and one that has little memory is asked for no more than it has."""

import subprocess
import sys

import torch
from vedette_client import Client
from vedette_server.predictor.predictor import Predictor

from tests.support import running


def test_a_device_that_cannot_be_used_is_named() -> None:
    with running.server("--device", "tpu", serving=False) as server, Client(server.address) as client:
        (failed, *_) = server.logged("worker_failed_to_start")
        assert failed["check"] == "DEVICE_UNUSABLE"
        assert "the device 'tpu' cannot be used here: " in failed["error"]
        model = client.model()
        assert (model.state, model.state_reason.partition(":")[0]) == ("UNAVAILABLE", "DEVICE_UNUSABLE")


class Small(Predictor):
    """On a device whose memory is enough for four images at once, each batch of which takes the same time."""

    def __init__(self) -> None:
        self._model = torch.nn.Linear(1, 1, device="meta")
        self.tried: list[int] = []

    def _seconds_each(self, count: int) -> float:
        self.tried.append(count)
        if count > 4:
            raise torch.OutOfMemoryError
        return 1 / count


def test_batches_are_no_larger_than_the_devices_memory_allows() -> None:
    small = Small()
    assert (small.max_batch, small.tried) == (4, [1, 2, 4, 8])


def test_models_compute_in_32_bits_wherever_they_run() -> None:
    from vedette_server.predictor.device import use

    torch.backends.cudnn.allow_tf32 = True
    use("cpu")
    assert not torch.backends.cudnn.allow_tf32


# Whatever of torch's calls begins to use CUDA; where there is no GPU, it is not there either.
_WATCHED = """
import torch
for name in ("_cuda_init", "_cuda_getDeviceCount", "_cuda_getDevice", "_cuda_getCurrentStream"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, None)
import vedette_server.predictor.predictor
"""


def test_what_the_fork_server_imports_begins_to_use_no_gpu() -> None:
    """CUDA that was used by a process cannot be used by its forks."""
    subprocess.run([sys.executable, "-c", _WATCHED], check=True)

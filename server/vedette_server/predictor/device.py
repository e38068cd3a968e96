"""The device that runs a model: a check that it works, and a setting that makes it compute like Detectron2."""

import torch

from vedette_server.contract.loading import Check, LoadRefusedError


def use(device: str) -> None:
    """Test the device, and disable TF32. Raises `LoadRefusedError`: DEVICE_UNUSABLE.

    NVIDIA's cards convolve in 19 bits (TF32) by default. That changes scores by more than the tolerance of golden
    images, which are recorded on one device and verified on another.
    """
    torch.backends.cudnn.allow_tf32 = False
    try:
        torch.zeros(1, device=device).add(1).tolist()
    except (RuntimeError, AssertionError) as error:
        said = str(error).partition("\n")[0]
        raise LoadRefusedError(Check.DEVICE_UNUSABLE, f"the device {device!r} cannot be used here: {said}") from error

"""The device that a model runs on: whether it can be used, and that it computes what Detectron2 computes."""

import torch

from vedette_server.contract.loading import Check, LoadRefusedError


def use(device: str) -> None:
    """Compute on it once, and from now on in 32 bits. Raises `LoadRefusedError`: DEVICE_UNUSABLE.

    NVIDIA's cards convolve numbers of 19 bits (TF32) unless told otherwise. That moves a score by more than golden
    images may differ, which are answered on one device and held against on another.
    """
    torch.backends.cudnn.allow_tf32 = False
    try:
        torch.zeros(1, device=device).add(1).tolist()
    except (RuntimeError, AssertionError) as error:
        said = str(error).partition("\n")[0]
        raise LoadRefusedError(Check.DEVICE_UNUSABLE, f"the device {device!r} cannot be used here: {said}") from error

"""A predictor that computes on a GPU what its images say: also more than there is memory for, and what breaks CUDA."""

from collections.abc import Sequence

import torch
from vedette_server.contract.options import Options

from tests.support.scripted import BREAK, EXHAUST, Scripted


class OnGpu(Scripted):
    def infer(self, images: Sequence[tuple[bytes, Options]]) -> list[tuple[bytes, Options]]:
        for data, _options in images:
            if data[0] == EXHAUST:
                torch.empty(2**50, dtype=torch.uint8, device="cuda")
            index = 9 if data[0] == BREAK else 0  # beyond the end of three
            torch.zeros(3, device="cuda")[torch.tensor([index], device="cuda")].sum().item()
        return list(images)


def on_gpu(**_start: object) -> OnGpu:
    return OnGpu()

"""Export of a Detectron2 model to the files of a version: plain YAML and safetensors, nothing executable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import nn


def export(config: Mapping[str, Any], model: nn.Module, folder: Path) -> None:
    """Write config.yaml (complete, without base or weights path) and model.safetensors into `folder`."""
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors))

"""Write a Detectron2 model as the files of a version: plain YAML and safetensors, nothing that can run."""

from pathlib import Path

import yaml
from detectron2.config import CfgNode
from safetensors.torch import save
from torch import nn


def export(config: CfgNode, model: nn.Module, folder: Path) -> None:
    """Write config.yaml (complete, no base, no weights' address) and model.safetensors into `folder`."""
    plain = config.clone()
    plain.defrost()
    plain.MODEL.WEIGHTS = ""
    plain.OUTPUT_DIR = ""
    (folder / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(plain.dump())), encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors))

"""Build a model from a plain config, in either of Detectron2's dialects; its weights are still random."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from vedette_server.contract.declared import is_lazy
from vedette_server.predictor import lazy, plugins


def build(config: Mapping[str, Any], modules: Sequence[str], device: str) -> nn.Module:
    """Import the plugins and build the model on a device, in evaluation mode.

    Raises `LoadRefusedError`: PLUGIN_MISSING, CONFIG_IS_PROGRAM.
    """
    plugins.load(modules)
    if is_lazy(config):
        return lazy.build(config, modules).to(device).eval()
    node = CfgNode(dict(config))
    node.MODEL.DEVICE = device
    model: nn.Module = build_model(node)
    return model.eval()

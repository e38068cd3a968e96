"""Build a model from a plain config, in either of Detectron2's dialects; its weights are still random."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from vedette_server.contract.declared import is_lazy
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import lazy, plugins


def build(config: Mapping[str, Any], modules: Sequence[str], device: str) -> nn.Module:
    """Import the plugins and build the model on a device, in evaluation mode.

    Raises `LoadRefusedError`: PLUGIN_MISSING, CONFIG_IS_PROGRAM, CONFIG_UNBUILDABLE.
    """
    plugins.load(modules)
    try:
        return _build(config, modules, device).eval()
    except LoadRefusedError:
        raise
    except ImportError as error:
        raise LoadRefusedError(Check.PLUGIN_MISSING, f"{type(error).__name__}: {error}") from error
    except Exception as error:  # whatever the parts of a model raise
        reason = str(error).strip("'\"").partition("\n")[0]
        check = Check.PLUGIN_MISSING if "registry" in reason else Check.CONFIG_UNBUILDABLE
        raise LoadRefusedError(check, f"{type(error).__name__}: {reason}") from error


def _build(config: Mapping[str, Any], modules: Sequence[str], device: str) -> nn.Module:
    if is_lazy(config):
        return lazy.build(config, modules).to(device)
    node = CfgNode(dict(config))
    node.MODEL.DEVICE = device
    model: nn.Module = build_model(node)
    return model

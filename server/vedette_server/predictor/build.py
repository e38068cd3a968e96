"""Construction of a model from a plain config, in either of Detectron2's dialects; its weights are still random."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vedette_server.contract import bounds
from vedette_server.contract.declared import is_lazy
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import lazy, plugins

# A file of half or 8-bit floats is a half or a quarter of its model; a backbone's, for training, is smaller still.
_MOST_OF_STORED, _ALWAYS = 8, 2**30


def build(config: Mapping[str, Any], modules: Sequence[str], device: str, stored: int | None = None) -> nn.Module:
    """Import the plugins and build the model on a device, in evaluation mode.

    `stored` is the size of its weights file in bytes; a model with far more parameters is not built. Raises
    `LoadRefusedError`: CONFIG_OUT_OF_BOUNDS, MODEL_TOO_LARGE, PLUGIN_MISSING, CONFIG_IS_PROGRAM, CONFIG_UNBUILDABLE.
    """
    bounds.check(config)
    plugins.load(modules)
    try:
        if stored is not None:
            _check_size(config, modules, stored)
        return _build(config, modules, device).eval()
    except (LoadRefusedError, MemoryError):
        raise
    except ImportError as error:
        raise LoadRefusedError(Check.PLUGIN_MISSING, f"{type(error).__name__}: {error}") from error
    except Exception as error:  # parts of models may raise anything
        reason = str(error).strip("'\"").partition("\n")[0]
        check = Check.PLUGIN_MISSING if "registry" in reason else Check.CONFIG_UNBUILDABLE
        raise LoadRefusedError(check, f"{type(error).__name__}: {reason}") from error


def _check_size(config: Mapping[str, Any], modules: Sequence[str], stored: int) -> None:
    """Build the model on torch's meta device, without data, and compare its size to the weights file."""
    try:
        with torch.device("meta"), _Undrawn():
            model = _build(config, modules, "meta")
    except Exception:  # noqa: BLE001  a custom model that needs data, or an error that recurs on the real device
        return
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if needed > _MOST_OF_STORED * stored + _ALWAYS:
        seen = f"the config's model takes {needed} bytes, but its weights file has {stored}"
        raise LoadRefusedError(Check.MODEL_TOO_LARGE, seen)


class _Undrawn(TorchFunctionMode):
    """Draws no normal distributions: without data there is nothing to draw, but torch imports its compiler for it."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = kwargs or {}
        if func is Tensor.normal_:
            return args[0]
        return given["tensor"] if func is nn.init.normal_ else func(*args, **given)


def _build(config: Mapping[str, Any], modules: Sequence[str], device: str) -> nn.Module:
    if is_lazy(config):
        return lazy.build(config, modules).to(device)
    node = CfgNode(dict(config))
    node.MODEL.DEVICE = device
    model: nn.Module = build_model(node)
    return model

"""LazyConfigs: written down as plain data at import, built from it without running anything but Detectron2's parts."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import OmegaConf
from torch import nn

from vedette_server.contract.loading import Check, LoadRefusedError

_CHANNELS = 32  # any number that kinds of norms take
# What a version's config may call: the parts of models. None of them reads a file or runs what it is given.
_PARTS = ("detectron2.modeling.", "detectron2.layers.", "torch.nn.")


def read(path: str) -> dict[str, Any]:
    """Run a LazyConfig and write down what it would call: the model, and how images are prepared for it.

    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_UNSERVABLE.
    """
    try:
        config = LazyConfig.load(path)
        mapper = config.dataloader.test.mapper
        prepared = {key: _plain(mapper[key]) for key in ("image_format", "augmentations")}
        test: dict[str, Any] = {"mapper": prepared}
        if names := OmegaConf.select(config, "dataloader.train.dataset.names"):  # what its classes are called
            test["dataset"] = {"names": _plain(names)}
        return {"model": _plain(config.model), "dataloader": {"test": test}}
    except LoadRefusedError:
        raise
    except Exception as error:  # a program may raise anything
        msg = f"{path} gives no model ({type(error).__name__}: {error})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def _plain(node: Any) -> Any:  # noqa: ANN401  whatever a program leaves in a config
    """A node as data that YAML can hold: calls by the names of what they call."""
    if isinstance(node, ShapeSpec):
        fields = ("channels", "height", "width", "stride")
        return {"_target_": "detectron2.layers.ShapeSpec", **{name: getattr(node, name) for name in fields}}
    if isinstance(node, Mapping):
        return {str(key): _name(value) if key == "_target_" else _plain(value) for key, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_plain(item) for item in node]
    if node is None or isinstance(node, str | int | float):
        return node
    if isinstance(node, functools.partial) and not node.args:
        return {"_target_": _PARTIALLY, "part": _part_name(node.func), **_plain(node.keywords)}
    if callable(node):
        return {"_target_": _PART, "part": _part_name(node)}
    raise LoadRefusedError(Check.CONFIG_UNSERVABLE, f"{node!r} cannot be written as plain data")


def _part_name(function: Any) -> str:  # noqa: ANN401  whatever can be called
    """The name of a part of models that is given uncalled, as are the kinds of blocks and of norms.

    A nameless function that gives a norm's layer of so many channels stands for the layer's class, where that gives the
    same. Raises `LoadRefusedError`: CONFIG_UNSERVABLE.
    """
    if getattr(function, "__name__", "") == "<lambda>":
        layer = function(_CHANNELS)
        if isinstance(layer, nn.Module) and repr(layer) == repr(type(layer)(_CHANNELS)):
            function = type(layer)
    if "<" in getattr(function, "__qualname__", "<"):
        msg = f"{function!r} cannot be written as plain data, since it has no name that can be imported"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, msg)
    return _name(function)


def part(part: str) -> Any:  # noqa: ANN401  a class or a function
    """A part of models, uncalled, by its name: what a written config calls for one that is given so."""
    return locate(part)


def partially(part: str, **named: Any) -> Any:  # noqa: ANN401  what `part` gives
    """The same, some of its arguments given."""
    return functools.partial(locate(part), **named)


_PART, _PARTIALLY = (f"{__name__}.{function.__name__}" for function in (part, partially))


def _name(target: Any) -> str:  # noqa: ANN401  a callable or its name
    return target if isinstance(target, str) else str(_convert_target_to_string(target))


def build(config: Mapping[str, Any], plugins: Sequence[str]) -> nn.Module:
    """Build the model of a config that `read` wrote; it may call parts of models and what is in `plugins`, only.

    Raises `LoadRefusedError`: CONFIG_IS_PROGRAM.
    """
    allowed = (*_PARTS, *(f"{name}." for name in plugins))
    for name in _targets(config["model"]):
        if name in (_PART, _PARTIALLY):
            continue
        if not name.startswith(allowed) or not f"{locate(name).__module__}.".startswith(allowed):
            raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, f"the config calls {name}, which is no part of a model")
    model: nn.Module = instantiate(OmegaConf.create(dict(config["model"])))
    return model


def _targets(node: object) -> Iterator[str]:
    """The names of everything that a config calls."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        if node.get("_target_") in (_PART, _PARTIALLY):
            yield str(node.get("part"))
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _targets(item)

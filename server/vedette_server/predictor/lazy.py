"""LazyConfigs: saved as plain data at import, and built from it by calling nothing but parts of models."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import Container, OmegaConf
from torch import nn

from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import written

_CHANNELS = 32  # any number of channels that norms accept
# Modules that a version's config may call: parts of models. None of them reads files or runs its arguments.
_PARTS = ("detectron2.modeling.", "detectron2.layers.", "torch.nn.")
_PREPARED = ("image_format", "augmentations")  # keys of the test mapper needed for serving
_OF_TRAINING = ("dataloader.train", "dataloader.evaluator", "dataloader.test.dataset")
_CALLED = re.compile(r"\$\{[^}]*:")  # a resolver of OmegaConf, such as ${oc.env:HOME}, which is more than a reference


def read(path: str) -> dict[str, Any]:
    """Run a LazyConfig and record its calls as data: the model, and the preparation of images.

    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_UNSERVABLE.
    """
    try:
        return _served(LazyConfig.load(path), path)
    except LoadRefusedError:
        raise
    except (Exception, SystemExit) as error:  # a program may raise anything
        msg = f"{path} does not define a model ({type(error).__name__}: {' '.join(str(error).split())})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def is_lazy(data: Mapping[str, Any]) -> bool:
    """Return whether the content of a YAML file is a LazyConfig saved by `LazyConfig.save`."""
    return "MODEL" not in data and isinstance(data.get("model"), Mapping)


def from_data(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Convert a LazyConfig saved as YAML to the result of `read`, without running anything.

    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_IS_PROGRAM, CONFIG_UNSERVABLE.
    """
    parts = {key: value for key, value in data.items() if key in ("model", "dataloader")}
    parts = _with_parts(parts)
    found = {key: one.name for key, one in written.expressions(parts) if not key.startswith(_OF_TRAINING)}
    found |= {key: text for key, text in _texts(parts) if _CALLED.search(text) and not key.startswith(_OF_TRAINING)}
    if found:
        seen = f"{path} would call {', '.join(f'{name} for {key}' for key, name in found.items())}"
        raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, seen, "give the LazyConfig itself, a .py, with --run-config")
    try:
        return _served(OmegaConf.create(_without_expressions({**data, **parts})), path)
    except LoadRefusedError:
        raise
    except Exception as error:  # OmegaConf reports invalid references in many ways
        msg = f"{path} does not define a model ({type(error).__name__}: {' '.join(str(error).split())})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def _served(config: Any, path: object) -> dict[str, Any]:  # noqa: ANN401  an OmegaConf node
    """Extract what serving needs from a LazyConfig: its model, and the preparation of images."""
    if not isinstance(config, Mapping) or "_target_" not in (config.get("model") or {}):
        seen = f"{path} has no `model` with a `_target_`"
        raise LoadRefusedError(
            Check.CONFIG_UNREADABLE, seen, "give the config of the training, as written by LazyConfig.save"
        )
    mapper = OmegaConf.select(cast("Container", config), "dataloader.test.mapper")
    if not isinstance(mapper, Mapping) or not {*_PREPARED} <= {*mapper}:
        keys = " and ".join(_PREPARED)
        seen = f"{path} does not declare the preparation of images: it has no dataloader.test.mapper with {keys}"
        remedy = "add them, as in the LazyConfigs of detectron2/configs/common/data"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, seen, remedy)
    test: dict[str, Any] = {"mapper": {key: _plain(mapper[key]) for key in _PREPARED}}
    if names := OmegaConf.select(cast("Container", config), "dataloader.train.dataset.names"):  # source of class names
        test["dataset"] = {"names": _plain(names)}
    return {"model": _plain(config["model"]), "dataloader": {"test": test}}


def _with_parts(data: Any) -> Any:  # noqa: ANN401  any content of the file
    """Replace names that are not called by the form that `read` writes."""
    match data:
        case Mapping():
            return {key: _with_parts(value) for key, value in data.items()}
        case list():
            return [_with_parts(item) for item in data]
        case written.Expression(name, called=False):
            return {"_target_": _PART, "part": name}
    return data


def _texts(data: object, within: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string in plain data, with its key."""
    if isinstance(data, str):
        yield within, data
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _texts(value, f"{within}.{key}" if within else str(key))


def _without_expressions(data: Any) -> Any:  # noqa: ANN401  any content of the file
    """Replace everything that is not plain data by None; serving does not read it."""
    match data:
        case Mapping():
            return {str(key): _without_expressions(value) for key, value in data.items()}
        case list():
            return [_without_expressions(item) for item in data]
        case str() if _CALLED.search(data):
            return None
        case None | str() | bool() | int() | float():
            return data
    return None


def _plain(node: Any) -> Any:  # noqa: ANN401  a program may leave anything in a config
    """Convert a node to data for YAML, with calls by the names of their callables."""
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


def _part_name(function: Any) -> str:  # noqa: ANN401  any callable
    """Return the name of a part of models that is passed uncalled, such as a class of blocks or norms.

    A lambda that makes a norm layer for a number of channels is replaced by the layer's class, if that makes the same
    layer. Raises `LoadRefusedError`: CONFIG_UNSERVABLE.
    """
    if getattr(function, "__name__", "") == "<lambda>":
        layer = function(_CHANNELS)
        if isinstance(layer, nn.Module) and repr(layer) == repr(type(layer)(_CHANNELS)):
            function = type(layer)
    if "<" in getattr(function, "__qualname__", "<"):
        msg = f"{function!r} cannot be written as plain data, because it has no importable name"
        raise LoadRefusedError(Check.CONFIG_UNSERVABLE, msg)
    return _name(function)


def part(part: str) -> Any:  # noqa: ANN401  a class or a function
    """Return a part of models, uncalled, by name. Saved configs call this for uncalled parts."""
    return locate(part)


def partially(part: str, **named: Any) -> Any:  # noqa: ANN401  whatever `part` returns
    """Return a part of models, by name, with some of its arguments bound."""
    return functools.partial(locate(part), **named)


_PART, _PARTIALLY = (f"{__name__}.{function.__name__}" for function in (part, partially))


def _name(target: Any) -> str:  # noqa: ANN401  a callable or its name
    return target if isinstance(target, str) else str(_convert_target_to_string(target))


def build(config: Mapping[str, Any], plugins: Sequence[str]) -> nn.Module:
    """Build the model of a config written by `read`, which may call only parts of models and of `plugins`.

    Raises `LoadRefusedError`: CONFIG_IS_PROGRAM.
    """
    allowed = (*_PARTS, *(f"{name}." for name in plugins))
    for name in _targets(config["model"]):
        if name in (_PART, _PARTIALLY):
            continue
        if not name.startswith(allowed) or not f"{locate(name).__module__}.".startswith(allowed):
            raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, f"the config calls {name}, which is not a part of models")
    model: nn.Module = instantiate(OmegaConf.create(dict(config["model"])))
    return model


def _targets(node: object) -> Iterator[str]:
    """Yield the names of all callables in a config."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        if node.get("_target_") in (_PART, _PARTIALLY):
            yield str(node.get("part"))
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _targets(item)

"""LazyConfigs: written down as plain data at import, built from it without running anything but Detectron2's parts."""

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

_CHANNELS = 32  # any number that kinds of norms take
# What a version's config may call: the parts of models. None of them reads a file or runs what it is given.
_PARTS = ("detectron2.modeling.", "detectron2.layers.", "torch.nn.")
_PREPARED = ("image_format", "augmentations")  # what serving needs of the mapper of test images
_OF_TRAINING = ("dataloader.train", "dataloader.evaluator", "dataloader.test.dataset")
_CALLED = re.compile(r"\$\{[^}]*:")  # a resolver of OmegaConf's, such as ${oc.env:HOME}: more than a reference


def read(path: str) -> dict[str, Any]:
    """Run a LazyConfig and write down what it would call: the model, and how images are prepared for it.

    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_UNSERVABLE.
    """
    try:
        return _served(LazyConfig.load(path), path)
    except LoadRefusedError:
        raise
    except (Exception, SystemExit) as error:  # a program may raise anything
        msg = f"{path} gives no model ({type(error).__name__}: {' '.join(str(error).split())})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def is_lazy(data: Mapping[str, Any]) -> bool:
    """Whether a YAML file's content is a LazyConfig, as `LazyConfig.save` has written it."""
    return "MODEL" not in data and isinstance(data.get("model"), Mapping)


def from_data(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same as `read` gives, of a LazyConfig that was saved as YAML; nothing is run.

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
    except Exception as error:  # OmegaConf says in many ways what is wrong with a reference
        msg = f"{path} gives no model ({type(error).__name__}: {' '.join(str(error).split())})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def _served(config: Any, path: object) -> dict[str, Any]:  # noqa: ANN401  as OmegaConf has it
    """What serving needs of a LazyConfig: its model, and how images are prepared for it."""
    if not isinstance(config, Mapping) or "_target_" not in (config.get("model") or {}):
        seen = f"{path} has no `model` with a `_target_`"
        raise LoadRefusedError(
            Check.CONFIG_UNREADABLE, seen, "give the config of the training, as LazyConfig.save wrote it"
        )
    mapper = OmegaConf.select(cast("Container", config), "dataloader.test.mapper")
    if not isinstance(mapper, Mapping) or not {*_PREPARED} <= {*mapper}:
        keys = " and ".join(_PREPARED)
        seen = f"{path} does not say how images are prepared: it has no dataloader.test.mapper with {keys}"
        remedy = "add them, as in the LazyConfigs of detectron2/configs/common/data"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, seen, remedy)
    test: dict[str, Any] = {"mapper": {key: _plain(mapper[key]) for key in _PREPARED}}
    if names := OmegaConf.select(cast("Container", config), "dataloader.train.dataset.names"):  # its classes' names
        test["dataset"] = {"names": _plain(names)}
    return {"model": _plain(config["model"]), "dataloader": {"test": test}}


def _with_parts(data: Any) -> Any:  # noqa: ANN401  whatever the file holds
    """The same, with what is named and not called written as `read` writes it."""
    match data:
        case Mapping():
            return {key: _with_parts(value) for key, value in data.items()}
        case list():
            return [_with_parts(item) for item in data]
        case written.Expression(name, called=False):
            return {"_target_": _PART, "part": name}
    return data


def _texts(data: object, within: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain data, with its key."""
    if isinstance(data, str):
        yield within, data
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _texts(value, f"{within}.{key}" if within else str(key))


def _without_expressions(data: Any) -> Any:  # noqa: ANN401  whatever the file holds
    """The same, with nothing in the place of what nobody asks for."""
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

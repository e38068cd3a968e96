"""Resolve a Detectron2 config to one complete, plain mapping, without running what may be in it unless told to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg

from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import lazy, plugins


def resolve(path: str, modules: Sequence[str] = (), *, run: bool = False) -> dict[str, Any]:
    """The complete config of a file, or of a path within Detectron2's model zoo, its bases merged in.

    `modules` are the plugins that extend the config; `run` allows a LazyConfig, which is a program, to be run. YAML
    that Detectron2 itself carries may hold expressions, and some does; that of anyone else must be plain.
    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_IS_PROGRAM, PLUGIN_MISSING.
    """
    if path.endswith(".py"):
        if not run:
            raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, f"{path} is a Python program")
        return lazy.read(_file(path))
    return _resolve_yaml(path, modules)


def _resolve_yaml(path: str, modules: Sequence[str]) -> dict[str, Any]:
    carried = not Path(path).exists()
    config: CfgNode = get_cfg()
    plugins.extend(config, modules)
    try:
        config.merge_from_file(_file(path), allow_unsafe=carried)
    except yaml.constructor.ConstructorError as error:
        msg = f"{path} holds an expression ({error.problem})"
        raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, msg) from error
    except (OSError, KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        msg = f"{path} is no Detectron2 config ({type(error).__name__}: {error})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error
    return plain(config)


def _file(path: str) -> str:
    if Path(path).exists():
        return path
    try:
        file: str = model_zoo.get_config_file(path)
    except RuntimeError as error:
        msg = f"{path} is neither a file nor a config of the model zoo"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error
    return file


def plain(config: CfgNode) -> dict[str, Any]:
    """A yacs config as plain data, without a device and without an address of weights."""
    config = config.clone()
    config.defrost()
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = ""
    config.OUTPUT_DIR = ""
    data: dict[str, Any] = yaml.safe_load(config.dump())
    return data

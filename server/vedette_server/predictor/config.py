"""Resolve a Detectron2 config file to one complete config, without running what may be in it."""

from pathlib import Path

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg

from vedette_server.contract.loading import Check, LoadRefusedError


def resolve(path: str) -> CfgNode:
    """The complete config of a YAML file, or of a path within Detectron2's model zoo, its bases merged in.

    Configs that Detectron2 itself carries may hold expressions, and some do; those of anyone else must be plain YAML.
    Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_IS_PROGRAM.
    """
    if path.endswith(".py"):
        msg = f"{path} is a Python program (a LazyConfig), which is not run here; export its settings as YAML"
        raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, msg)
    carried = not Path(path).exists()
    config: CfgNode = get_cfg()
    try:
        file = model_zoo.get_config_file(path) if carried else path
        config.merge_from_file(file, allow_unsafe=carried)
    except yaml.constructor.ConstructorError as error:
        msg = f"{path} holds an expression ({error.problem}), which would be run; write its value instead"
        raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, msg) from error
    except RuntimeError as error:
        msg = f"{path} is neither a file nor a config of the model zoo"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error
    except (OSError, KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        msg = (
            f"{path} is no Detectron2 config ({type(error).__name__}: {error}); detectron2.config.defaults has the keys"
        )
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = ""
    return config

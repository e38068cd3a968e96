"""Resolution of a Detectron2 config to a complete, plain mapping, without running code in it unless allowed."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, downgrade_config, get_cfg
from detectron2.config.compat import guess_version
from detectron2.data import Metadata, MetadataCatalog
from yacs.config import CfgNode as Node

from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import lazy, plugins, written

_BASE = "_BASE_"
_MODELS = ("MODEL", "INPUT")  # keys here cannot be dropped: the model or its input would change
_UNREAD = ("SOLVER", "DATALOADER", "OUTPUT_DIR", "SEED", "CUDNN_BENCHMARK", "VIS_PERIOD")  # irrelevant for serving
_LONGEST_REASON = 300  # characters of Detectron2's message


def resolve(path: str, modules: Sequence[str] = (), *, run: bool = False, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve the config in a file, or at a path in Detectron2's model zoo, including its bases.

    `modules` are the plugins that extend the config. `run` allows running a LazyConfig, which is a program. `ignore`
    lists keys of the file to drop. Detectron2's own YAML may contain expressions, and some does; YAML from anyone else
    is read as data. Raises `LoadRefusedError`: CONFIG_UNREADABLE, CONFIG_IS_PROGRAM, CONFIG_KEYS_UNKNOWN,
    PLUGIN_MISSING.
    """
    file = _file(path)
    if path.endswith(".py"):
        if not run:
            raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, f"{path} is a Python program")
        return lazy.read(str(file))
    stock, config = get_cfg(), get_cfg()
    plugins.extend(config, modules)
    data = _with_bases(file, ())
    _leave_out(data, ignore, file, stock, config)
    if lazy.is_lazy(data):
        return lazy.from_data(data, file)
    _check_no_expressions(data, file, stock, config)
    _check_known(data, file, stock, config)
    return _merged(data, config, file)


def _file(path: str) -> Path:
    if Path(path).exists():
        return Path(path)
    try:
        return Path(model_zoo.get_config_file(path))
    except RuntimeError as error:
        msg = f"{path} is neither a file nor a config in the model zoo"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def _is_carried(file: Path) -> bool:
    """Return whether a file is part of Detectron2."""
    return Path(model_zoo.__file__).resolve().parent in file.resolve().parents


def _with_bases(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's content merged over its bases."""
    if _is_carried(file):
        carried: dict[str, Any] = CfgNode.load_yaml_with_base(str(file), allow_unsafe=True)
        return carried
    here = file.resolve()
    if here in above:
        chain = " on ".join(map(str, (*above[above.index(here) :], here)))
        _unreadable(f"{file} is a base of itself: {chain}", "remove one _BASE_")
    data = written.read(file)
    if not isinstance(data, dict):
        _unreadable(f"{file} holds {_kind(data)}, not keys with values")
    given = data.pop(_BASE, [])
    bases = [given] if isinstance(given, str) else given
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        _unreadable(f"{file} has {_kind(given)} as _BASE_, not a file")
    merged: dict[str, Any] = {}
    for base in bases:
        _merge(_with_bases(_base(file, base), (*above, here)), merged, file)
    _merge(data, merged, file)
    return merged


def _kind(data: object) -> str:
    if data is None:
        return "nothing"
    return {list: "a list", str: "a text", dict: "keys with values", written.Expression: "an expression"}.get(
        type(data), f"the value {data!r}"
    )


def _base(file: Path, base: str) -> Path:
    """Return the path that `_BASE_` refers to."""
    if "://" in base:
        _unreadable(
            f"{file} has the base {base}, but nothing is downloaded", "copy it to the same folder, and name the copy"
        )
    path = file.parent / Path(base).expanduser()
    if not path.is_file():
        _no_base(file, base, path)
    return path


def _no_base(file: Path, base: str, path: Path) -> NoReturn:
    own = [one for one in Path(model_zoo.__file__).parent.rglob("*.yaml") if one.name == Path(base).name]
    remedy = (
        f"Detectron2 contains one of that name: _BASE_: {own[0]}"
        if own
        else "put it there, or give a config that needs none"
    )
    _unreadable(f"{file} has the base {base}, but {path} does not exist", remedy)


def _merge(above: Mapping[str, Any], below: dict[str, Any], file: Path) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(value, below[key], file)
        elif isinstance(value, dict) and key in below:
            _unreadable(f"{file} has keys in {key}, but its base has a value there")
        else:
            below[key] = value


def _leave_out(data: dict[str, Any], ignore: Sequence[str], file: Path, stock: CfgNode, config: CfgNode) -> None:
    """Remove the keys listed in --ignore-keys."""
    for key in ignore:
        *sections, last = key.split(".")
        node: Any = data
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            _unreadable(f"{file} has no key {key}, which --ignore-keys names", "remove it from --ignore-keys")
        if not _ignorable(key, stock, config):
            seen = f"--ignore-keys names {key}, which affects the model"
            _unreadable(seen, "give the --plugin that defines it, or remove it from the config if it has no effect")
        del node[last]


def _ignorable(key: str, stock: CfgNode, config: CfgNode) -> bool:
    """Return whether a key may be dropped: irrelevant for serving, or in a section that a plugin added."""
    section = key.partition(".")[0]
    if section in _MODELS:
        starts = [key[:at] for at, letter in enumerate(key) if letter == "."]
        return any(_has(config, start) and not _has(stock, start) for start in starts)
    return section in _UNREAD or not _has(stock, key)


def _has(config: Node, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, Node) or part not in config:
            return False
        config = config[part]
    return True


def _check_no_expressions(data: Mapping[str, Any], file: Path, stock: CfgNode, config: CfgNode) -> None:
    found = dict(written.expressions(data))
    if found:
        seen = f"{file} would call {', '.join(f'{one.name} for {key}' for key, one in found.items())}"
        remedy = "write the values instead"
        keys = [".".join(key.split(".")[:2]) for key in found]
        raise LoadRefusedError(Check.CONFIG_IS_PROGRAM, seen, remedy, flags=_flags(keys, stock, config))


def _flags(keys: Sequence[str], stock: CfgNode, config: CfgNode) -> list[tuple[str, ...]]:
    """Return the flags that would drop these keys, if that is allowed."""
    if not all(_ignorable(key, stock, config) for key in keys):
        return []
    return [("--ignore-keys", ",".join(dict.fromkeys(keys)))]


def _check_known(data: Mapping[str, Any], file: Path, stock: CfgNode, config: CfgNode) -> None:
    """Refuse all keys unknown to Detectron2 at once."""
    keys = [*_unknown(data, _of_its_version(data, config, file), config)]
    if not keys:
        return
    inside = [key for key in keys if not _ignorable(key, stock, config)]
    remedy = "give the --plugin that defines them"
    if not inside:
        remedy += ", or drop them with --ignore-keys: none of them is under MODEL or INPUT"
    elif len(inside) < len(keys):
        remedy += f", or correct {', '.join(inside)}, and drop the others with --ignore-keys"
    else:
        remedy += ", or correct them"
    raise LoadRefusedError(
        Check.CONFIG_KEYS_UNKNOWN, f"{file} has {', '.join(keys)}", remedy, flags=_flags(keys, stock, config)
    )


def _of_its_version(data: Mapping[str, Any], config: CfgNode, file: Path) -> CfgNode:
    """Return the config with the keys of the version for which a file was written."""
    try:
        version = data.get("VERSION") or guess_version(CfgNode(dict(data)), str(file))
        return downgrade_config(config, to_version=version) if version != config.VERSION else config
    except Exception:  # noqa: BLE001  for invalid data, which merging reports
        return config


def _unknown(data: Mapping[str, Any], known: CfgNode, root: CfgNode, within: str = "") -> Iterator[str]:
    for key, value in data.items():
        path = f"{within}{key}"
        if key in known:
            if isinstance(value, dict) and isinstance(known[key], Node):
                yield from _unknown(value, known[key], root, f"{path}.")
        elif not known.is_new_allowed() and not root.key_is_deprecated(path):
            yield path


def _merged(data: Mapping[str, Any], config: CfgNode, file: Path) -> dict[str, Any]:
    """Merge a file's values over Detectron2's defaults, with Detectron2's own code."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "config.yaml"
            whole.write_text(yaml.safe_dump(dict(data), allow_unicode=True), encoding="utf-8")
            config.merge_from_file(str(whole), allow_unsafe=False)
        return plain(config)
    except Exception as error:  # yacs reports invalid values in many ways
        reason = " ".join(str(error.args[0] if error.args else error).split())[:_LONGEST_REASON]
        msg = f"{file} is not a Detectron2 config ({type(error).__name__}: {reason})"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, msg) from error


def _unreadable(seen: str, remedy: str | None = None) -> NoReturn:
    raise LoadRefusedError(Check.CONFIG_UNREADABLE, seen, remedy)


def plain(config: CfgNode) -> dict[str, Any]:
    """Return a yacs config as plain data, without device or weights path."""
    config = config.clone()
    config.defrost()
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = ""
    config.OUTPUT_DIR = ""
    data: dict[str, Any] = yaml.safe_load(config.dump())
    return data


def catalogued(dataset: str) -> Metadata:
    """Return what Detectron2 knows of a dataset, such as the names of its classes."""
    return MetadataCatalog.get(dataset)

"""Mutated configs, checkpoints and versions, each wholly given by its number."""

import copy
import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from vedette_server.contract.contract import Names
from vedette_server.importer import ModelSource, import_model, write_version
from vedette_server.predictor.config import plain
from vedette_server.predictor.predictor import load
from vedette_server.repository import repository

from tests.support import families, hostile
from tests.support.damage import damaged

FAMILY = "faster_rcnn"
OUTSIDE = "outside.yaml"  # beside each case: a sound file that no case may read

State = dict[str, torch.Tensor]
Change = Callable[[random.Random, Any], Any]

_NUMBERS = (0, 1, -1, 2, 7, 1e-9, -0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63), 10**40)
_TEXTS = ("", " ", "a\0b", "x" * 5_000, "é\u202e", "nan", "1e9", f"../{OUTSIDE}", "/dev/zero", "${oc.env:HOME}", "BN")
_OTHERS: tuple[Any, ...] = (None, True, [], {}, [[[]]], [1, "a", None], {"_target_": "os.system"}, {"a": {"b": {}}})
_DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)


def odd(rng: random.Random) -> Any:
    """A value that seldom belongs anywhere."""
    return rng.choice([rng.choice(_NUMBERS), rng.choice(_TEXTS), rng.choice(_OTHERS), rng.randint(-5, 10**6)])


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every container within a config, with each of its keys."""
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in items] + [place for _, child in items for place in _places(child)]


def _in_config(rng: random.Random, config: Any) -> Any:
    """Change one value of a config, or where it stands."""
    container, key = rng.choice(_places(config) or [({"a": 1}, "a")])
    match rng.randrange(7):
        case 0 | 1 | 2:
            container[key] = odd(rng)
        case 3:
            del container[key]
        case 4:
            container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}
        case 5 if isinstance(container, dict):
            container[rng.choice(["_BASE_", "EXTRA", "", 7, f"{key}X"])] = odd(rng)
        case _:
            container[key] = copy.deepcopy(rng.choice(_places(config))[0])
    return config


def _scaled(rng: random.Random, config: Any) -> Any:
    """Multiply a number of the config, or negate it: what is only wrong in its size."""
    numbers = [(node, key) for node, key in _places(config) if type(node[key]) in (int, float)]
    node, key = rng.choice(numbers)
    node[key] = type(node[key])(node[key] * rng.choice([-1, 0, 0.5, 2, 3, 10, 1_000, 10**6]))
    return config


_YAML = (
    "&a [*a]",
    "*nowhere",
    "!!python/object/apply:os.system ['true']",
    "!!python/tuple [1]",
    "\t",
    "- x\n",
    "{",
    "<<: 1",
)


def _in_text(rng: random.Random, text: str) -> bytes:
    """Put something into YAML's own structure."""
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    key = lines[at].partition(":")[0]
    lines[at] = f"{key}: {rng.choice(_YAML)}" if rng.random() < 0.7 else rng.choice(_YAML)
    return "\n".join(lines).encode(rng.choice(["utf-8", "utf-8", "utf-16"]))


def config_bytes(rng: random.Random, config: dict[str, Any]) -> bytes:
    """A config's file: sound, or changed in value, structure or bytes."""
    kind = rng.randrange(8)
    for _ in range(rng.choice([1, 1, 2, 5]) if 1 <= kind <= 5 else 0):
        config = (_scaled if kind == 5 else _in_config)(rng, config)
    text = yaml.dump(config, allow_unicode=True) if kind != 6 else yaml.dump(config)
    if kind == 6:
        return _in_text(rng, text)
    return damaged(rng, text.encode()) if kind == 7 else text.encode()


def _in_state(rng: random.Random, state: dict[Any, Any]) -> dict[Any, Any]:
    """Change one tensor of a state, its name, or what it is."""
    name = rng.choice([*state])
    value = state[name]
    match rng.randrange(9):
        case 0:
            state[name] = value.to(rng.choice(_DTYPES))
        case 1:
            state[name] = rng.choice(
                [value[None], value.flatten(), value.T if value.dim() == 2 else value.reshape(-1)[:1]]
            )
        case 2:
            state[name] = torch.zeros(()).expand(value.shape)
        case 3:
            state[name] = value * rng.choice([float("nan"), float("inf"), 1e30, 0.0])
        case 4:
            state[rng.choice([f"module.{name}", name.upper(), "", 7, None])] = state.pop(name)
        case 5:
            state[name] = odd(rng)
        case 6:
            state[name] = value.numpy() if rng.random() < 0.5 else {"tensor": value, "a": [value, {"b": value}]}
        case 7:
            del state[name]
        case _:
            state[name] = state[rng.choice([*state])]
    return state


def checkpoint_bytes(rng: random.Random, state: State) -> bytes:
    """A checkpoint's file in one of its forms: sound, or changed in its tensors or bytes."""
    changed: dict[Any, Any] = {**state}
    for _ in range(rng.choice([0, 0, 1, 1, 2, 8])):
        changed = _in_state(rng, changed) if all(isinstance(one, torch.Tensor) for one in changed.values()) else changed
    content = rng.choice([changed, {"model": changed}, {"state_dict": changed, "epoch": 3}, [changed]])
    data = rng.choice([_zipped, _legacy, _pickled, _safe])(content)
    return damaged(rng, data) if rng.random() < 0.5 else data


def _zipped(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _legacy(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _pickled(content: Any) -> bytes:
    """As the zoo's files: arrays of NumPy, where there is one for the dtype."""

    def arrays(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: arrays(value) for key, value in node.items()}
        if isinstance(node, torch.Tensor) and node.dtype not in (torch.bfloat16, torch.float8_e4m3fn):
            return node.numpy()
        return [arrays(one) for one in node] if isinstance(node, list) else str(node)

    return pickle.dumps(arrays(content))


def _safe(content: Any) -> bytes:
    while not isinstance(content, dict) or "model" in content or "state_dict" in content:
        content = content[0] if isinstance(content, list) else content.get("model", content.get("state_dict"))
    tensors = {str(name): one.contiguous().clone() for name, one in content.items() if isinstance(one, torch.Tensor)}
    return save(tensors)


def prepare(folder: Path) -> None:
    """Write what every case starts from: a small model's config and checkpoint, and the same as a version."""
    config, model = families.config(FAMILY), families.model(FAMILY)
    (folder / "base.yaml").write_text(yaml.safe_dump(plain(config)))
    torch.save(model.state_dict(), folder / "base.pth")
    write_version(folder, 1, plain(config), model.eval(), names=Names(families.CLASSES), pictures={})


def importing(base: Path, folder: Path, seed: int) -> None:
    """Import a mutated config and checkpoint."""
    rng = random.Random(seed)  # noqa: S311  not secrets
    config = yaml.safe_load((base / "base.yaml").read_text())
    state = torch.load(base / "base.pth", weights_only=True)
    data = config_bytes(rng, config) if rng.random() < 0.6 else (base / "base.yaml").read_bytes()
    (folder / "config.yaml").write_bytes(data)
    (folder / "model.pth").write_bytes(checkpoint_bytes(rng, state))
    source = ModelSource(config=str(folder / "config.yaml"), weights=folder / "model.pth", classes=families.CLASSES)
    import_model(folder / "repository", "model", source)


def serving(base: Path, folder: Path, seed: int) -> None:
    """Read and load a mutated version, as the gateway and a worker do."""
    rng = random.Random(seed)  # noqa: S311  not secrets
    version = folder / "repository" / "model" / "1"
    shutil.copytree(base / "1", version)
    path = version / rng.choice(["config.yaml", "config.yaml", "model.safetensors", "manifest.json"])
    if path.name == "config.yaml":
        path.write_bytes(config_bytes(rng, yaml.safe_load(path.read_text())))
    elif path.name == "manifest.json":
        manifest = _in_config(rng, json.loads(path.read_text()))
        path.write_bytes(damaged(rng, json.dumps(manifest, default=str).encode()) if rng.random() < 0.3 else
                         json.dumps(manifest, default=str).encode())  # fmt: skip
    else:
        path.write_bytes(_mutated_weights(rng, path.read_bytes(), base))
    if path.name != "manifest.json" and rng.random() < 0.9:
        hostile.seal(version)
    one = repository.read_version(version)
    load(version, one.contract, "cpu", threads=1)


def _mutated_weights(rng: random.Random, data: bytes, base: Path) -> bytes:
    if rng.random() < 0.5:
        return damaged(rng, data)
    return _safe(_in_state(rng, torch.load(base / "base.pth", weights_only=True)))

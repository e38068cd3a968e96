"""Read checkpoints without executing what is in them.

safetensors hold numbers alone. `.pth` files go through torch's own restricted loader. `.pkl` files, the model zoo's
format, go through an unpickler that knows NumPy's arrays and nothing else.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.layers import FrozenBatchNorm2d
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vedette_server.contract.loading import Check, LoadRefusedError

# What a pickled NumPy array is made of, under the module names of NumPy 1 and 2.
_HARMLESS = {
    (module, name)
    for module, names in {
        "numpy": ("ndarray", "dtype"),
        "numpy.core.multiarray": ("_reconstruct", "scalar"),
        "numpy._core.multiarray": ("_reconstruct", "scalar"),
        "collections": ("OrderedDict",),
        "_codecs": ("encode",),
    }.items()
    for name in names
}
_PICKLE_PROTOCOL = b"\x80"
_WRAPPERS = ("model", "state_dict", "model_state", "model_ema", "ema_state", "ema", "blobs")  # the last is Caffe2's
_OPTIMIZERS = "_momentum"  # what Caffe2 writes beside each weight
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses every name but those that arrays are made of, so that nothing can run."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  pickle's own signature
        """Look a name up, if it is harmless."""
        if (module, name) not in _HARMLESS:
            raise LoadRefusedError(Check.WEIGHTS_UNSAFE, f"the pickle asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def read_weights(path: Path, model: nn.Module, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint, under the names that `model` has for them.

    `key` names the entry to take of a checkpoint that holds several; None takes "model", as Detectron2 does, or the
    only one there is. Raises `LoadRefusedError`: WEIGHTS_UNREADABLE, WEIGHTS_UNSAFE, WEIGHTS_EMPTY.
    """
    content = _read(path)
    author = content.get("__author__")
    state = _unwrap(content, key)
    tensors = {_plain(name): _tensor(name, value) for name, value in state.items() if not name.endswith(_OPTIMIZERS)}
    if not tensors:
        raise LoadRefusedError(Check.WEIGHTS_EMPTY, f"{path} holds no tensors")
    if author == "Caffe2" or content.get("matching_heuristics") or _is_caffe2(path, content):
        aligned: dict[str, Tensor] = align_and_update_state_dicts(model.state_dict(), tensors, c2_conversion=True)
        return _constants(model) | aligned
    return tensors


def _constants(model: nn.Module) -> dict[str, Tensor]:
    """The statistics of frozen norms, which Caffe2 had folded into weight and bias; as Detectron2 fills them in."""
    frozen = {name: part for name, part in model.named_modules() if isinstance(part, FrozenBatchNorm2d)}
    means = {f"{name}.running_mean": torch.zeros_like(part.running_mean) for name, part in frozen.items()}
    return means | {f"{name}.running_var": torch.ones_like(part.running_var) for name, part in frozen.items()}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = _load(path)
    except LoadRefusedError:
        raise
    except pickle.UnpicklingError as error:
        msg = f"torch's restricted loader refuses {path}: {str(error).splitlines()[0]}"
        raise LoadRefusedError(Check.WEIGHTS_UNSAFE, msg) from error
    except Exception as error:
        msg = f"{path} cannot be read ({type(error).__name__}: {error})"
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg) from error
    if not isinstance(content, Mapping):
        msg = f"{path} holds a {type(content).__name__}, not tensors by name"
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg)
    return content


def _load(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            msg = f"{path} is no whole safetensors file: {error}"
            raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg) from error
    with path.open("rb") as file:
        if path.suffix == ".pkl" and file.read(1) == _PICKLE_PROTOCOL:
            file.seek(0)
            return _unpickle(file)
    return torch.load(path, map_location="cpu", weights_only=True)


def _unpickle(file: IO[bytes]) -> Any:  # noqa: ANN401  whatever the file holds
    try:
        return _ArrayUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError) as error:
        msg = f"{file.name} is no whole pickle: {error}"
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg) from error


def _unwrap(content: Mapping[str, Any], key: str | None) -> Mapping[str, Any]:
    found = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    if key is not None and key not in found:
        msg = f"the checkpoint has no {key!r}; it has {', '.join(map(str, content))}"
        raise LoadRefusedError(Check.WEIGHTS_EMPTY, msg)
    if key is None and not found:
        return {name: value for name, value in content.items() if isinstance(value, Tensor | np.ndarray)}
    state: Mapping[str, Any] = content[key or found[0]]
    return state


def _is_caffe2(path: Path, content: Mapping[str, Any]) -> bool:
    return path.suffix == ".pkl" and "model" not in content


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _tensor(name: str, value: object) -> Tensor:
    match value:
        case Tensor():
            return value.detach()
        case np.ndarray():
            return torch.from_numpy(np.array(value))
        case _:
            msg = f"the entry {name!r} is a {type(value).__name__}, not a tensor"
            raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg)

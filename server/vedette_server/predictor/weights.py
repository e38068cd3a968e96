"""The tensors of a checkpoint under a model's own names, read without running anything."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import checkpoint, kinds
from vedette_server.predictor.choose import Chosen, choose, leaves
from vedette_server.predictor.pickled import BrokenPickleError
from vedette_server.predictor.stored import Stored
from vedette_server.predictor.strict import is_derived, wanted

_CAFFE2 = "Caffe2"
_BLOBS = "blobs"  # the entry for tensors in Caffe2's files
_OPTIMIZERS = "_momentum"  # written by Caffe2 beside each weight


def read_weights(
    path: Path,
    model: nn.Module,
    key: str | None = None,
    prefixes: Sequence[str] = (),
    tell: Callable[[str], object] = lambda _note: None,
) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, under the names in `model`.

    For a checkpoint with several sets, `key` is the path of the containers, and `prefixes` are the prefixes of names.
    Without them, the set is Detectron2's choice, or the only one that fits. `tell` receives a note if there was a
    choice. Raises `LoadRefusedError`: WEIGHTS_UNREADABLE, WEIGHTS_UNSAFE, WEIGHTS_EMPTY, WEIGHTS_AMBIGUOUS,
    TENSORS_MISSING.
    """
    content = checkpoint.load(path)
    if key is None and not prefixes and (aligned := _aligned(path, content, model)) is not None:
        return aligned
    shapes = {name: tuple(value.shape) for name, value in wanted(model).items()}
    chosen = choose(leaves(content, path), shapes, path, key=key, prefixes=prefixes, derived=is_derived)
    tensors = _read(chosen.stored, path)
    _tell(chosen, tensors, tell)
    return tensors


def _tell(chosen: Chosen, tensors: Mapping[str, Tensor], tell: Callable[[str], object]) -> None:
    if chosen.note:
        others = "; ".join(" ".join(flags) for flags in chosen.alternatives)
        tell(chosen.note + (f" (choose with {others})" if others else ""))
    dtypes = {value.dtype for value in tensors.values() if value.is_floating_point()} - {torch.float32}
    if dtypes:
        tell(f"the weights are {', '.join(sorted(map(str, dtypes)))}; the model computes in torch.float32")


def _read(stored: Mapping[str, Stored], path: Path) -> dict[str, Tensor]:
    try:
        return {name: item.tensor() for name, item in stored.items()}
    except BrokenPickleError as error:
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, f"{path} cannot be read: {error}") from error
    except Exception as error:  # zipfile and torch may raise anything for a damaged file
        msg = f"the tensors of {path} cannot be read ({type(error).__name__}: {error})"
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg) from error


def _aligned(path: Path, content: object, model: nn.Module) -> dict[str, Tensor] | None:
    """Return the tensors of a foreign checkpoint, renamed by Detectron2's own code; None if it is not foreign."""
    top: Mapping[Any, Any] = content if isinstance(content, dict) else {}
    state = top.get("model", top.get(_BLOBS, top))
    if not isinstance(state, dict):
        return None
    theirs = {str(name): item for name, item in state.items() if isinstance(item, Stored)}
    foreign = bool(theirs) and not any(name in theirs for name in model.state_dict())
    caffe2 = top.get("__author__") == _CAFFE2 or ("model" not in top and foreign and kinds.kind(path) == kinds.PICKLE)
    if not caffe2 and not top.get("matching_heuristics"):
        return None
    tensors = _read({name: item for name, item in theirs.items() if not name.endswith(_OPTIMIZERS)}, path)
    try:
        aligned: dict[str, Tensor] = align_and_update_state_dicts(model.state_dict(), tensors, c2_conversion=caffe2)
    except (AssertionError, KeyError, ValueError):  # the names are not Caffe2's either
        return None
    return _constants(model) | aligned if caffe2 else aligned


def _constants(model: nn.Module) -> dict[str, Tensor]:
    """Return the statistics of frozen norms, which Caffe2 folds into weight and bias, as Detectron2 fills them in."""
    frozen = {name: part for name, part in model.named_modules() if isinstance(part, FrozenBatchNorm2d)}
    means = {f"{name}.running_mean": torch.zeros_like(part.running_mean) for name, part in frozen.items()}
    return means | {f"{name}.running_var": torch.ones_like(part.running_var) for name, part in frozen.items()}

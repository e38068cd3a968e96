"""Checkpoints as they are found: read by what they are and not by their names, and the right tensors of them taken."""

import argparse
import collections
import datetime as dt
import io
import itertools
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor.strict import load_strictly
from vedette_server.predictor.weights import read_weights

from tests.support.families import model
from tests.support.importing import run_import

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return model("mask_rcnn")


@pytest.fixture(scope="module")
def state(small: nn.Module) -> State:
    return {name: value.clone() for name, value in small.state_dict().items()}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def worse(state: State) -> State:
    """Another of the same shapes."""
    return {name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}


def in_parts(state: State) -> dict[str, Any]:
    """A dictionary for each module, within each other."""
    nested: dict[str, Any] = {}
    for name, value in state.items():
        *parts, last = name.split(".")
        node = nested
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = value
    return nested


def extras(state: State) -> dict[str, Any]:
    """Entries that training leaves beside the tensors."""
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    return {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "iteration": 7,
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1, hooks=[print, len]),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("abca"),
        "now": dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
        "path": pathlib.Path("/data/run"),
        "array": np.arange(3),
        "objects": np.array([{}, "text"], dtype=object),
        "config": get_cfg(),
        "omega": OmegaConf.create({"a": {"b": [1, 2]}}),
        "trainer": Trainer(),
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "complex": 1j,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "generator": np.random.default_rng(1),
    }


class Trainer:
    """A class of the project that trained, which is not there where the checkpoint is read."""

    def __init__(self) -> None:
        self.history = [{"loss": np.float32(1.5)}, slice(1, 2), range(3)]


def shared(state: State) -> State:
    """All of them views of one storage, some transposed."""
    flat = torch.cat([value.double().flatten() for value in state.values()])
    starts = itertools.accumulate((value.numel() for value in state.values()), initial=0)
    views = {
        name: flat[start : start + value.numel()].view(value.shape)
        for (name, value), start in zip(state.items(), starts, strict=False)
        if value.is_floating_point()
    }
    turned = {name: value.t().contiguous().t() for name, value in views.items() if value.dim() == 2}
    return state | views | turned


def pickled(protocol: int) -> Callable[[object, Path], object]:
    return lambda content, path: path.write_bytes(pickle.dumps(content, protocol))


def old(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def arrays(state: State) -> dict[str, Any]:
    return {"model": {name: value.numpy() for name, value in state.items()}, "__author__": "Detectron2 Model Zoo"}


def same(content: Any) -> Any:
    return content


def lightning(state: State) -> dict[str, Any]:
    return {
        "state_dict": under("model.", state) | {"loss.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {"ModelCheckpoint": {"best_model_path": "/x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "pytorch-lightning_version": "2.1.0",
    }


def loaded(state: State) -> nn.Module:
    built = model("mask_rcnn")
    built.load_state_dict(state)
    return built


Make: TypeAlias = Callable[[State], Any]
Save: TypeAlias = Callable[[Any, Path], object]

FOUND: dict[str, tuple[Make, Save, str]] = {
    "its tensors alone": (same, torch.save, "m.pth"),
    "Detectron2's own": (lambda state: {"model": state, "iteration": 3}, torch.save, "m.pth"),
    "with all that training leaves": (extras, torch.save, "m.pth"),
    "the same in torch's old format": (extras, old, "m.pth"),
    "distributed": (lambda state: {"model": under("module.", state)}, torch.save, "m.pth"),
    "distributed twice": (lambda state: {"model": under("module.module.", state)}, torch.save, "m.pth"),
    "compiled": (lambda state: under("_orig_mod.", state), torch.save, "m.pth"),
    "compiled and distributed": (lambda state: under("module._orig_mod.", state), torch.save, "m.pth"),
    "Lightning's": (lightning, torch.save, "m.ckpt"),
    "within others": (lambda state: {"a": {"b": [{"weights": state}]}}, torch.save, "m.pth"),
    "in parts": (lambda state: {"model": in_parts(state), "optimizer": {"state": {0: torch.ones(2)}}}, torch.save, "m"),
    "a pickled model": (loaded, torch.save, "m.pth"),
    "parameters": (
        lambda state: {
            name: nn.Parameter(value) if value.is_floating_point() else value for name, value in state.items()
        },
        torch.save,
        "m.pt",
    ),
    "of one storage": (shared, torch.save, "m.pth"),
    "of one storage, old": (shared, old, "m.pth"),
    "64 bits": (lambda state: {name: value.double() for name, value in state.items()}, torch.save, "m.pth"),
    "the zoo's, named .pth": (arrays, pickled(2), "m.pth"),
    "tensors, pickled": (same, pickled(4), "m.pkl"),
    "torch's, named .pkl": (same, torch.save, "m.pkl"),
    "safetensors, named .pth": (same, save_file, "m.pth"),
    "torch's, named .safetensors": (same, torch.save, "m.safetensors"),
    **{f"the zoo's, protocol {number}": (arrays, pickled(number), "m.pkl") for number in range(6)},
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_checkpoint_gives_its_tensors(kind: str, small: nn.Module, state: State, tmp_path: Path) -> None:
    make, save, name = FOUND[kind]
    save(make(state), tmp_path / name)
    read = read_weights(tmp_path / name, small)
    load_strictly(small, read)
    for key, value in state.items():
        assert torch.equal(read[key].to(value.dtype), value), key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_numbers_of_fewer_bits_are_what_they_are(
    dtype: torch.dtype, small: nn.Module, state: State, tmp_path: Path
) -> None:
    short = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(short, tmp_path / "m.pth")
    told: list[str] = []
    read = read_weights(tmp_path / "m.pth", small, tell=told.append)
    assert all(torch.equal(read[name].float(), value.float()) for name, value in short.items())
    assert str(dtype) in told[0]


def test_an_index_of_parts_gives_them_all(small: nn.Module, state: State, tmp_path: Path) -> None:
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, own in parts.items():
        save_file({name: state[name] for name in own}, tmp_path / part)
    where = {name: part for part, own in parts.items() for name in own}
    (tmp_path / "m.index.json").write_text(f'{{"weight_map": {str(where).replace(chr(39), chr(34))}}}')
    assert read_weights(tmp_path / "m.index.json", small).keys() == state.keys()
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(LoadRefusedError, match=r"WEIGHTS_UNREADABLE: .*the part 'b.safetensors'"):
        read_weights(tmp_path / "m.index.json", small)


def test_what_detectron2_would_take_is_taken_and_the_rest_is_told(
    small: nn.Module, state: State, tmp_path: Path
) -> None:
    torch.save({"model": state, "ema_state": worse(state)}, tmp_path / "m.pth")
    told: list[str] = []
    read = read_weights(tmp_path / "m.pth", small, tell=told.append)
    assert torch.equal(read[next(iter(state))], state[next(iter(state))])
    (note,) = told
    assert "under 'model.', as Detectron2 would" in note
    assert "choose with --weights-key ema_state" in note


SETS: dict[str, tuple[Callable[[State], Any], list[dict[str, Any]]]] = {
    "a student and its teacher": (
        lambda state: {"model": under("modelStudent.", worse(state)) | under("modelTeacher.", state)},
        [
            {"prefixes": ["modelTeacher."]},
            {"key": "model", "prefixes": ["modelTeacher."]},
            {"key": "model.modelTeacher"},
        ],
    ),
    "two entries": (lambda state: {"student": worse(state), "teacher": state}, [{"key": "teacher"}]),
    "an average of timm's": (
        lambda state: {"state_dict": worse(state), "state_dict_ema": under("module.", state)},
        [{"key": "state_dict_ema"}, {"key": "state_dict_ema", "prefixes": ["module."]}],
    ),
    "at the top": (
        lambda state: under("net.", worse(state)) | under("ema.module.", state),
        [{"prefixes": ["ema.module."]}, {"prefixes": ["ema.", "module."]}, {"prefixes": ["ema."]}],
    ),
    "deep": (
        lambda state: {"runs": [{"student": worse(state)}, {"ema.best": state}]},
        [{"key": "runs.1.ema.best"}, {"key": "runs.1"}],
    ),
}


@pytest.mark.parametrize("case", SETS)
def test_of_several_sets_none_is_guessed(case: str, small: nn.Module, state: State, tmp_path: Path) -> None:
    make, choices = SETS[case]
    torch.save(make(state), tmp_path / "m.pth")
    with pytest.raises(LoadRefusedError) as caught:
        read_weights(tmp_path / "m.pth", small)
    error = caught.value
    assert error.check is Check.WEIGHTS_AMBIGUOUS
    assert "BACKBONE" not in str(error)
    assert len(error.flags) == 2
    taken = [read_weights(tmp_path / "m.pth", small, **arguments(flags)) for flags in error.flags]
    assert (
        sum(torch.equal(read["backbone.fpn_output2.weight"], state["backbone.fpn_output2.weight"]) for read in taken)
        == 1
    )
    for choice in choices:
        read = read_weights(tmp_path / "m.pth", small, **choice)
        assert all(torch.equal(read[name], value) for name, value in state.items()), choice


def arguments(flags: Any) -> dict[str, Any]:
    """The arguments that the command makes of flags."""
    pairs = [*zip(flags[::2], flags[1::2], strict=True)]
    return {
        "key": next((value for flag, value in pairs if flag == "--weights-key"), None),
        "prefixes": [value for flag, value in pairs if flag == "--strip-prefix"],
    }


def test_what_is_asked_for_and_not_there_is_told_with_what_there_is(
    small: nn.Module, state: State, tmp_path: Path
) -> None:
    torch.save({"student": worse(state), "teacher": state}, tmp_path / "m.pth")
    for asked in ({"key": "ema"}, {"prefixes": ["ema."]}, {"key": "teacher", "prefixes": ["ema."]}):
        with pytest.raises(LoadRefusedError, match=r"WEIGHTS_EMPTY: .*student \(\d+ tensors\), teacher") as caught:
            read_weights(tmp_path / "m.pth", small, **asked)
        assert ("--weights-key", "teacher") in caught.value.flags


def test_the_command_to_try_is_one_that_works(state: State, tmp_path: Path) -> None:
    torch.save({"student": worse(state), "teacher": state}, tmp_path / "m.pth")
    refused = run_import(tmp_path, tmp_path / "m.pth", "--weights-key", "ema")
    (line,) = refused.stderr.splitlines()
    command = line.rpartition("; or: vedette-server import ")[2].split()
    assert refused.returncode == 1
    assert command[-2:] == ["--weights-key", "teacher"]
    assert "ema" not in command
    taken = run_import(tmp_path, tmp_path / "m.pth", *command[-2:])
    assert taken.returncode == 0, taken.stderr


def torchscript(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def numpys(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(2))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model_final.pth", b"x")


def packed_again(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(100)}, buffer)
    with zipfile.ZipFile(buffer) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in given.namelist():
            archive.writestr(name, given.read(name))


def cut(path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def cut_old(path: Path) -> None:
    old({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def flipped(path: Path) -> None:
    """One bit of the numbers."""
    torch.save({"backbone.fpn_output2.weight": torch.ones(32, 32, 3, 3)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def binary(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def folder_with(file: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / file).touch()

    return make


NOT_ONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a Git LFS pointer": (
        text("version https://git-lfs.github.com/spec/v1\noid sha256:0d71\nsize 178000000\n"),
        "Git LFS pointer.*git lfs pull",
    ),
    "a download page": (text("<!DOCTYPE html><html>Virus scan warning"), "web page.*download it again"),
    "a storage server's answer": (
        text('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
        "XML.*download",
    ),
    "a text": (text("404: Not Found\n"), "text that begins with '404: Not Found'"),
    "JSON": (text('{"images": []}'), "JSON"),
    "nothing": (text(""), "empty: it has no bytes"),
    "zeros": (binary(bytes(5000)), "zeros"),
    "a TorchScript archive": (torchscript, "TorchScript.*state_dict"),
    "a zip archive": (zipped, r"not written by torch, with model_final\.pth.*unpack"),
    "a checkpoint, zipped by hand": (packed_again, "repacked"),
    "arrays of NumPy": (numpys, "NumPy arrays"),
    "one array": (numpy, "one NumPy array"),
    "an ONNX model": (binary(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0"), "ONNX"),
    "a SavedModel": (binary(b"\x08\x01\x12\x90\x02"), "SavedModel"),
    "Keras's": (binary(b"\x89HDF\r\n\x1a\n" + bytes(100)), "HDF5"),
    "a gzip": (binary(b"\x1f\x8b\x08" + bytes(50)), "gzip.*unpack"),
    "a tar": (binary(bytes(257) + b"ustar" + bytes(300)), "tar archive"),
    "cut off": (cut, "its end is missing: it has .* bytes"),
    "cut off, old": (cut_old, "is truncated"),
    "with a flipped bit": (flipped, "CRC"),
    "half a pickle": (binary(pickle.dumps({"a": [1, 2, 3]})[:-4]), "not a complete pickle"),
    "half of safetensors": (binary((2000).to_bytes(8, "little") + b'{"a":' + bytes(3000)), "cannot be read"),
    "other bytes": (binary(b"\x13\xff" * 50), "it begins with the bytes 13 ff"),
    "a list": (lambda path: torch.save([1, 2, 3], path), "holds no tensors"),
    "a folder": (folder_with("model_final.pth"), "folder with model_final.pth"),
    "a distributed checkpoint": (folder_with(".metadata"), "dcp_to_torch"),
    "not there": (lambda _path: None, "missing"),
}


@pytest.mark.parametrize("name", ["m.pth", "m.pkl", "m.safetensors"])
@pytest.mark.parametrize("kind", NOT_ONE)
def test_what_is_no_checkpoint_is_named_whatever_it_is_called(
    kind: str, name: str, small: nn.Module, tmp_path: Path
) -> None:
    make, told = NOT_ONE[kind]
    make(tmp_path / name)
    with pytest.raises(LoadRefusedError, match=f"(?s)^WEIGHTS_(UNREADABLE|EMPTY): .*{told}") as caught:
        read_weights(tmp_path / name, small)
    assert "weights_only" not in str(caught.value), "torch's advice to run it"
    assert "\n" not in str(caught.value)


def test_tensors_that_are_kept_otherwise_are_named(small: nn.Module, state: State, tmp_path: Path) -> None:
    torch.save(state | {"roi_heads.box_head.fc1.weight": torch.ones(64, 1568).to_sparse()}, tmp_path / "m.pth")
    with pytest.raises(LoadRefusedError, match=r"WEIGHTS_UNREADABLE: .*fc1.weight, as .*sparse"):
        read_weights(tmp_path / "m.pth", small)


def test_whole_numbers_are_no_weights(small: nn.Module, state: State, tmp_path: Path) -> None:
    torch.save(state | {"roi_heads.box_head.fc1.weight": torch.ones(64, 1568).to(torch.int8)}, tmp_path / "m.pth")
    with pytest.raises(LoadRefusedError, match=r"TENSORS_MISSHAPEN: .*torch.int8 instead of torch.float32"):
        load_strictly(small, read_weights(tmp_path / "m.pth", small))


def test_heads_under_other_names_are_not_called_a_backbone(small: nn.Module, state: State, tmp_path: Path) -> None:
    renamed = {name.replace("roi_heads", "heads").replace("proposal", "region"): value for name, value in state.items()}
    renamed = {name.replace("fpn", "neck"): value for name, value in renamed.items()}
    torch.save(renamed, tmp_path / "m.pth")
    with pytest.raises(LoadRefusedError, match="TENSORS_MISSING: "):
        load_strictly(small, read_weights(tmp_path / "m.pth", small))
    torch.save({"conv1.weight": torch.ones(3), "fc.weight": torch.ones(3)}, tmp_path / "m.pth")
    with pytest.raises(LoadRefusedError, match=r"TENSORS_MISSING: none of .*conv1.weight, fc.weight.*the model's are"):
        read_weights(tmp_path / "m.pth", small)


class Calls:
    """Pickled as a call of anything."""

    def __init__(self, called: Any, *given: Any, state: Any = None) -> None:
        self.reduced = (called, given) if state is None else (called, given, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def test_what_a_checkpoint_would_call_is_not_called(small: nn.Module, state: State, tmp_path: Path) -> None:
    """Harmless calls are replaced by nothing; calls that no checkpoint needs are named, and the file is refused."""
    proof = tmp_path / "it-ran"
    harmless = {"made": Calls(pathlib.Path.touch, proof), "set": Calls(collections.Counter, {}, state={"a": 1})}
    for save in (torch.save, old, pickled(2)):
        save({"model": state, **harmless}, tmp_path / "m.pth")
        assert read_weights(tmp_path / "m.pth", small).keys() == state.keys()
        save({"model": state, "made": Calls(eval, f"open({str(proof)!r}, 'w')")}, tmp_path / "m.pth")
        with pytest.raises(LoadRefusedError, match=r"WEIGHTS_UNSAFE: .*would call (builtins|__builtin__)\.eval "):
            read_weights(tmp_path / "m.pth", small)
    assert not proof.exists()


def rebuilt(*, offset: Any = 0, size: Any = (2, 2), strides: Any = (2, 1)) -> Calls:
    storage = torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
        wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, strides, 0, {})


LIES: dict[str, dict[str, Any]] = {
    "larger than what is stored": {"size": (10**6, 10**6), "strides": (10**6, 1)},
    "repeated without end": {"size": (10**9, 10**9), "strides": (0, 0)},
    "before the beginning": {"offset": -4},
    "behind the end": {"offset": 4},
    "backwards": {"strides": (-2, 1)},
    "of more dimensions than strides": {"size": (2, 2, 1)},
    "of no numbers": {"size": ("a", 2)},
    "of a thousand dimensions": {"size": (1,) * 1000, "strides": (1,) * 1000},
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("save", [torch.save, old], ids=["new", "old"])
def test_a_tensor_that_lies_about_its_size_is_refused(lie: str, save: Save, small: nn.Module, tmp_path: Path) -> None:
    save({"model": {"backbone.fpn_output2.weight": rebuilt(**LIES[lie])}}, tmp_path / "m.pth")
    with pytest.raises(LoadRefusedError) as caught:
        read_weights(tmp_path / "m.pth", small)
    assert caught.value.check in (Check.WEIGHTS_UNREADABLE, Check.WEIGHTS_EMPTY)


def test_arrays_are_made_of_plain_numbers_alone(small: nn.Module, tmp_path: Path) -> None:
    objects = np.array([Calls(eval, "1")], dtype=object)
    for content in (objects, np.array(["text"]), np.zeros(2, [("a", "f4")]), np.array(["2024-01-01"], "M8[D]")):
        pickled(2)({"model": {"backbone.fpn_output2.weight": content}}, tmp_path / "m.pkl")
        with pytest.raises(LoadRefusedError, match="WEIGHTS_"):
            read_weights(tmp_path / "m.pkl", small)
    truncated = pickle.dumps({"a": np.ones(100, np.float32)}, 2).replace(b"K\x64\x85", b"K\x65\x85")
    (tmp_path / "m.pkl").write_bytes(truncated)
    with pytest.raises(LoadRefusedError, match=r"WEIGHTS_UNREADABLE: .*shape \[101\] has 400 bytes"):
        read_weights(tmp_path / "m.pkl", small)


def test_containers_within_each_other_without_end_are_refused(small: nn.Module, tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless |= {"a": endless, "b": endless}
    pickled(4)(endless, tmp_path / "m.pkl")
    with pytest.raises(LoadRefusedError, match=r"WEIGHTS_UNREADABLE: .*more than \d+ nested objects"):
        read_weights(tmp_path / "m.pkl", small)
    deep: Any = ()
    for _ in range(400):
        deep = (deep, deep)
    pickled(4)({"a": deep}, tmp_path / "m.pkl")
    with pytest.raises(LoadRefusedError, match=r"WEIGHTS_UNREADABLE: .*more than \d+ nested objects"):
        read_weights(tmp_path / "m.pkl", small)

"""Validation of a safetensors header against the file's size, before any tensor is read."""

import math
from pathlib import Path
from typing import NoReturn

import msgspec

from vedette_server.contract import disk
from vedette_server.contract.loading import Check, LoadRefusedError

_LENGTH = 8  # bytes of the header's length field
_LONGEST = 32 * 2**20  # bytes of a header, which has about a hundred per tensor
_MOST_DIMENSIONS = 64
_SIZES = {  # bytes per number
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


class _TensorHeader(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def check(path: Path, within: Path | None = None) -> None:
    """Refuse a file whose header does not account for each of its bytes exactly once.

    Raises `LoadRefusedError`: FILE_UNUSABLE, WEIGHTS_UNREADABLE; `OSError`.
    """
    with disk.opened(path, disk.LARGEST["model.safetensors"], within) as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or not 2 <= length <= min(size - _LENGTH, _LONGEST):
            _refuse(path, f"begins with a header of {length} bytes, and has {size}")
        header = file.read(length)
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        tensors = {name: msgspec.json.decode(raw, type=_TensorHeader) for name, raw in entries.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(path, f"has a header that cannot be read ({error})")
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        _check(path, name, tensor, end)
        end = tensor.data_offsets[1]
    if end != size - _LENGTH - length:
        _refuse(path, f"declares {end} bytes of tensors, but has {size - _LENGTH - length}")


def _check(path: Path, name: str, tensor: _TensorHeader, begin: int) -> None:
    each = _SIZES.get(tensor.dtype)
    if each is None:
        _refuse(path, f"has the tensor {name[:100]!r} of {tensor.dtype[:20]!r}, a dtype that is not supported")
    if len(tensor.shape) > _MOST_DIMENSIONS or min(tensor.shape, default=0) < 0:
        _refuse(path, f"has the tensor {name[:100]!r}, whose shape is invalid")
    if tensor.data_offsets != (begin, begin + math.prod(tensor.shape) * each):
        _refuse(path, f"has the tensor {name[:100]!r}, whose number of bytes contradicts its shape")


def _refuse(path: Path, why: str) -> NoReturn:
    raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, f"{path} {why}")

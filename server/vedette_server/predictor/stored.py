"""Tensors and arrays in checkpoint files: their shapes, and their values on demand.

Nothing is allocated before the file is known to have the necessary bytes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vedette_server.predictor.pickled import BrokenPickleError

_MOST_DIMENSIONS = 64
_MOST_REPEATED = 1_000_000  # elements of a tensor that exceed those of its storage
_NUMBERS = "biufc"  # NumPy's kinds of numbers
_SIZES = ("1", "2", "4", "8", "16")  # bytes


@runtime_checkable
class Stored(Protocol):
    """A tensor in a file."""

    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return its values. Raises `BrokenPickleError` if the file does not have them."""


@dataclass(eq=False)
class Whole:
    """A tensor that its file provides as a whole."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    def tensor(self) -> Tensor:
        """Return its values."""
        return self.read()


@dataclass(eq=False)
class Storage:
    """Numbers shared by torch tensors: `count` of them from `start` on; `read` returns all stored bytes.

    The bytes are read once and shared by all tensors that refer to them.
    """

    dtype: torch.dtype
    count: int
    read: Callable[[], bytearray]
    start: int = 0

    def elements(self, dtype: torch.dtype) -> int:
        """Return the number of elements of a dtype in it."""
        return self.count * self.dtype.itemsize // dtype.itemsize

    def flat(self, dtype: torch.dtype) -> Tensor:
        """Return all elements."""
        data, size = self.read(), self.dtype.itemsize
        begin, end = self.start * size, (self.start + self.count) * size
        if len(data) < end:
            msg = f"tensors need {end} bytes, but {len(data)} are stored for them"
            raise BrokenPickleError(msg)
        given = torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
        return given[begin : begin + (end - begin) // dtype.itemsize * dtype.itemsize].view(dtype)


@dataclass(eq=False, kw_only=True)
class Strided:
    """A torch tensor: a view verified to lie within its storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int  # in elements, like the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(is_size(number) for number in (self.offset, *self.shape, *self.strides)):
            msg = "a tensor's size is invalid"
            raise BrokenPickleError(msg)
        if len(self.shape) != len(self.strides) or len(self.shape) > _MOST_DIMENSIONS:
            msg = "a tensor's strides do not match its shape"
            raise BrokenPickleError(msg)
        elements = self.storage.elements(self.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((edge - 1) * stride for edge, stride in steps)
        number = math.prod(self.shape)
        if number and (last >= elements or number > max(elements, _MOST_REPEATED)):
            msg = f"a tensor of shape {[*self.shape]} does not lie within its {elements} stored numbers"
            raise BrokenPickleError(msg)

    def tensor(self) -> Tensor:
        """Return its values, which share memory with others of its storage."""
        if 0 in self.shape:
            return torch.zeros(self.shape, dtype=self.dtype)
        return self.storage.flat(self.dtype).as_strided(self.shape, self.strides, self.offset)


class DType:
    """A NumPy dtype: plain numbers, or an unsupported one."""

    def __init__(self, code: object = "", *_: object) -> None:
        text = code.lstrip("<>=|") if isinstance(code, str) else ""
        self._code = text if text[:1] in [*_NUMBERS] and text[1:] in _SIZES else ""
        self._order = code[0] if isinstance(code, str) and code.startswith(("<", ">")) else "="

    def build(self, state: object) -> None:
        """Set the byte order, as pickle does."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self._order = str(state[1])

    @property
    def size(self) -> int:
        """The bytes of a number; 0 if the dtype is unsupported."""
        return int(self._code[1:]) if self._code else 0

    def numbers(self, data: bytes) -> NDArray[Any]:
        """Convert bytes to numbers in this machine's order."""
        given: NDArray[Any] = np.frombuffer(data, np.dtype(self._order + self._code))
        return given.astype(given.dtype.newbyteorder("="))


class Array:
    """A NumPy array, which pickle creates first and fills later."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.numeric = False  # arrays of objects are not supported
        self._read: Callable[[], NDArray[Any]] = lambda: np.zeros(0)

    def build(self, state: object) -> None:
        """Set the content, as pickle does."""
        match state:
            case (_, tuple() as shape, DType() as dtype, int() as fortran, bytes() | bytearray() | str() as data):
                self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: bytes | bytearray | str, dtype: DType, shape: tuple[Any, ...], order: str) -> None:
        """Set the bytes of the array. Raises `BrokenPickleError` if their number does not match the shape."""
        raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        if not dtype.size:
            return
        if not all(map(is_size, shape)) or math.prod(shape) * dtype.size != len(raw):
            msg = f"an array of shape {[*shape]} has {len(raw)} bytes"
            raise BrokenPickleError(msg)
        self.shape, self.numeric = shape, True
        self._read = lambda: dtype.numbers(raw).reshape(shape, order=cast("Any", order))

    def tensor(self) -> Tensor:
        """Return its values."""
        return torch.from_numpy(np.ascontiguousarray(self._read()).reshape(self.shape))


def is_size(value: object) -> bool:
    """Return whether a value is a valid size."""
    return isinstance(value, int) and value >= 0

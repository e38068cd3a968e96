"""Arrays and buffers of any kind, converted to bytes."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vedette_client import arguments
from vedette_client.errors import LocalError

_TORCH = "for torch, give tensor.detach().cpu().numpy()"


def is_array(image: object) -> bool:
    """Return whether an object is an array; NumPy scalars have the same attributes, but are not."""
    if isinstance(image, type | Image.Image | np.generic):
        return False
    return any(hasattr(image, name) for name in ("__array__", "__array_interface__", "__dlpack__"))


def array(given: object, name: str) -> NDArray[Any]:
    """Return a NumPy array, without copying if possible."""
    if isinstance(given, np.ma.MaskedArray):
        msg = f"{name} is a masked array, but models ignore masks: fill it first, for example with array.filled(0)"
        raise LocalError(msg)
    try:
        dlpack = hasattr(given, "__dlpack__") and not hasattr(given, "__array__")
        return np.from_dlpack(cast("Any", given)) if dlpack else np.asarray(given)
    except Exception as error:  # the object's code may raise anything
        kind = type(given).__name__
        msg = f"{name} is a {kind} that NumPy cannot read ({error}); {_TORCH}"
        raise LocalError(msg) from error


def packed(values: NDArray[Any]) -> memoryview:
    """Return an array's bytes, row by row; copied only if they are not contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def octets(data: object, name: str) -> memoryview:
    """Return the bytes of any buffer; copied only if they are not contiguous."""
    try:
        view = memoryview(cast("bytes", data))
        if "O" in view.format:
            raise arguments.wrong(name, data, "a buffer of bytes, not of objects")
        if not view.c_contiguous:
            return memoryview(view.tobytes())
        return np.frombuffer(view, np.uint8).data if view.nbytes else memoryview(b"")
    except (TypeError, ValueError, NotImplementedError, BufferError) as error:
        hint = f"; {_TORCH}" if hasattr(data, "__array__") else ""
        wanted = f"a buffer, such as bytes, a memoryview, an array or an mmap ({error}{hint})"
        raise arguments.wrong(name, data, wanted) from error
